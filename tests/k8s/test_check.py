"""The manifests are as they should be, and each thing that could be wrong with them is found."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from k8s import check, rendered
from tests.processes import HOME

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="renders with kubectl, which is not here")
Manifests = list[dict[str, Any]]


@pytest.fixture(scope="module")
def dev() -> Manifests:
    """The service and Triton."""
    return rendered.render(HOME / "k8s" / "overlays" / "dev")


@pytest.fixture(scope="module")
def production() -> Manifests:
    """The service with an autoscaler, monitored."""
    return rendered.render(HOME / "k8s" / "overlays" / "production")


def test_every_overlay_and_component_is_as_it_should_be() -> None:
    """`make check-k8s` ends with 0, and names each of them."""
    done = subprocess.run([sys.executable, "-m", "k8s.check"], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (*rendered.components(), "dev", "staging", "production"):
        assert f"{name}: as it should be" in done.stdout


def test_production_with_its_canary_is_as_it_should_be(tmp_path: Any) -> None:
    """The lines that are marked `# canary: ` are taken in, as k8s/README.md has it."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production"
    text = (overlay / "kustomization.yaml").read_text().replace("# canary: ", "")
    (overlay / "kustomization.yaml").write_text(text)
    made = rendered.render(overlay)
    assert check.problems(made) == []
    assert pod(made)["initContainers"][0]["image"] == "vitrine:2"
    assert one(made, "ConfigMap")["data"]["VITRINE_CANDIDATE_MODE"] == "canary"


def test_a_folder_that_cannot_be_rendered_is_a_problem(tmp_path: Any) -> None:
    """It says what kustomize said."""
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    command = [sys.executable, "-m", "k8s.check", str(tmp_path)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing.yaml" in done.stdout


def one(manifests: Manifests, kind: str, name: str = "vitrine") -> dict[str, Any]:
    """The manifest of this kind, its name with or without a hash behind it; a dashboard is another one."""
    names = (m for m in manifests if m["kind"] == kind and m["metadata"]["name"].startswith(name))
    return next(m for m in names if "dashboard" not in m["metadata"]["name"])


def pod(manifests: Manifests, name: str = "vitrine") -> dict[str, Any]:
    """The pod of a deployment."""
    return one(manifests, "Deployment", name)["spec"]["template"]["spec"]


def container(manifests: Manifests, name: str = "vitrine") -> dict[str, Any]:
    """Its container."""
    return pod(manifests, name)["containers"][0]


def labels(manifests: Manifests) -> dict[str, Any]:
    """Of the service's pods."""
    return one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]


def without(held: dict[str, Any], key: str) -> None:
    """Take it out."""
    del held[key]


MUTATIONS: dict[str, tuple[Callable[[Manifests], object], str]] = {
    "a service selects no pod": (
        lambda m: one(m, "Service")["spec"].update(selector={"app": "vitrin"}), "matches no pod"),
    "a deployment does not select its own pods": (
        lambda m: one(m, "Deployment")["spec"]["selector"].update(matchLabels={"app": "other"}), "its own pods"),
    "a service's port is missing": (
        lambda m: one(m, "Service")["spec"]["ports"][0].update(targetPort="web"), "port 'web' does not exist"),
    "a container's port is missing": (
        lambda m: container(m)["ports"].pop(0), "asks port 'http'"),
    "root": (lambda m: pod(m)["securityContext"].update(runAsUser=0), "other than 0"),
    "root in the container": (
        lambda m: container(m)["securityContext"].update(runAsUser=0), "must not run as root"),
    "root is not refused": (lambda m: without(pod(m)["securityContext"], "runAsNonRoot"), "runAsNonRoot"),
    "a network policy for everybody": (
        lambda m: one(m, "NetworkPolicy", "triton")["spec"].update(podSelector={}), "selector is empty"),
    "a network policy for nobody": (
        lambda m: one(m, "NetworkPolicy")["spec"]["podSelector"].update(matchLabels={"app": "x"}), "matches no pod"),
    "a peer that is everybody": (
        lambda m: one(m, "NetworkPolicy", "triton")["spec"]["ingress"][0]["from"].append({"podSelector": {}}),
        "it means every pod"),
    "a rule without peers": (
        lambda m: without(one(m, "NetworkPolicy", "triton")["spec"]["ingress"][0], "from"), "open to everybody"),
    "a peer that is not there": (
        lambda m: one(m, "NetworkPolicy", "triton")["spec"]["ingress"][0]["from"][0]["podSelector"].update(
            matchLabels={"app": "x"}), "matches no pod"),
    "a policy's port is missing": (
        lambda m: one(m, "NetworkPolicy")["spec"]["egress"][-1].update(ports=[{"port": "web"}]), "to port 'web'"),
    "egress stays open": (
        lambda m: one(m, "NetworkPolicy")["spec"].update(policyTypes=["Ingress"]), "stays open"),
    "a setting that is none": (
        lambda m: container(m)["env"].append({"name": "VITRINE_ENCODR", "value": "triton"}), "no setting"),
    "a setting in the config map that is none": (
        lambda m: one(m, "ConfigMap")["data"].update(VITRINE_MAX_WAIT="3"), "VITRINE_MAX_WAIT is no setting"),
    "a value that the setting does not take": (
        lambda m: one(m, "ConfigMap")["data"].update(VITRINE_DEADLINE="soon"), "VITRINE_DEADLINE=soon"),
    "a writable root": (
        lambda m: without(container(m)["securityContext"], "readOnlyRootFilesystem"), "readOnlyRootFilesystem"),
    "a writable root of what runs first": (
        lambda m: without(pod(m)["initContainers"][0]["securityContext"], "readOnlyRootFilesystem"),
        "bring-encoder: readOnlyRootFilesystem"),
    "a probe of an unknown path": (
        lambda m: container(m)["readinessProbe"]["httpGet"].update(path="/health"), "asks /health, which is no route"),
    "no readiness probe": (lambda m: without(container(m), "readinessProbe"), "no readinessProbe"),
    "the tag latest": (lambda m: container(m).update(image="vitrine:latest"), "other than latest"),
    "no tag": (lambda m: container(m).update(image="registry:5000/vitrine"), "other than latest"),
    "half a digest": (lambda m: container(m).update(image="vitrine:1@sha256:abc"), "is no digest"),
    "a budget without a selector": (
        lambda m: without(one(m, "PodDisruptionBudget")["spec"], "selector"), "selector is empty"),
    "a budget for nobody": (
        lambda m: one(m, "PodDisruptionBudget")["spec"]["selector"].update(matchLabels={"a": "b"}), "matches no pod"),
    "no budget": (lambda m: m.remove(one(m, "PodDisruptionBudget")), "no PodDisruptionBudget selects"),
    "no network policy": (lambda m: m.remove(one(m, "NetworkPolicy")), "no NetworkPolicy selects"),
    "a capability": (
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "none added"),
    "more privileges": (
        lambda m: container(m)["securityContext"].update(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    "no seccomp": (lambda m: without(pod(m)["securityContext"], "seccompProfile"), "RuntimeDefault"),
    "a token": (lambda m: pod(m).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "links to services": (lambda m: pod(m).update(enableServiceLinks=True), "enableServiceLinks"),
    "a path of the node": (
        lambda m: pod(m)["volumes"].append({"name": "tmp", "hostPath": {"path": "/"}}), "path of the node"),
    "a boundless disk": (lambda m: pod(m)["volumes"][-1].update(emptyDir={}) or
        [v.update(emptyDir={}) for v in pod(m)["volumes"] if v["name"] == "tmp"], "no sizeLimit"),
    "boundless memory": (lambda m: without(container(m)["resources"]["limits"], "memory"), "limit of memory"),
    "a config map that is not there": (
        lambda m: container(m)["envFrom"][0]["configMapRef"].update(name="other"), "ConfigMap other is not there"),
    "a secret that nobody makes": (
        lambda m: container(m)["env"][0]["valueFrom"]["secretKeyRef"].update(name="x"), "Secret x is not there"),
    "a key that the secret lacks": (
        lambda m: container(m)["env"][0]["valueFrom"]["secretKeyRef"].update(key="x"), "no key 'x'"),
    "a claim that is not there": (
        lambda m: m.remove(one(m, "PersistentVolumeClaim", "model")), "PersistentVolumeClaim model-repository"),
    "an account that is not there": (
        lambda m: pod(m).update(serviceAccountName="root"), "ServiceAccount root is not there"),
    "a volume that is not declared": (
        lambda m: container(m)["volumeMounts"].append({"name": "x", "mountPath": "/x"}), "not declared"),
    "pods taken away before others are ready": (
        lambda m: one(m, "Deployment")["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1), "must be 0"),
    "no time to end": (lambda m: pod(m).update(terminationGracePeriodSeconds=10), "must be at least 17"),
    "no sleep before the end": (lambda m: without(container(m), "lifecycle"), "must sleep in preStop"),
    "a field that is none": (lambda m: container(m).update(imagePullPolcy="Always"), "imagePullPolcy"),
    "a version that is gone": (
        lambda m: one(m, "PodDisruptionBudget").update(apiVersion="policy/v1beta1"), "policy/v1beta1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_wrong_is_found(dev: Manifests, name: str) -> None:
    """One thing is changed; the check says so."""
    require_found(dev, *MUTATIONS[name])


MONITORED: dict[str, tuple[Callable[[Manifests], object], str]] = {
    "an autoscaler of nothing": (
        lambda m: one(m, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x"), "x is not there"),
    "an autoscaler that replicas fight": (
        lambda m: one(m, "Deployment")["spec"].update(replicas=3), "says its replicas"),
    "a monitor of nothing": (
        lambda m: one(m, "ServiceMonitor")["spec"]["selector"].update(matchLabels={"a": "b"}), "matches no service"),
    "a monitor of a port that is none": (
        lambda m: one(m, "ServiceMonitor")["spec"]["endpoints"][0].update(port="web"), "no port 'web'"),
    "a misspelt field of a CRD": (
        lambda m: one(m, "PrometheusRule")["spec"]["groups"][0]["rules"][0].update(four="5m"), "four"),
}  # fmt: skip


@pytest.mark.parametrize("name", MONITORED)
def test_what_is_wrong_in_production_is_found(production: Manifests, name: str) -> None:
    """The same for what only that overlay has."""
    require_found(production, *MONITORED[name])


def require_found(manifests: Manifests, mutate: Callable[[Manifests], object], said: str) -> None:
    """A copy that was changed has a problem that says this."""
    mutated = copy.deepcopy(manifests)
    mutate(mutated)
    found = check.problems(mutated)
    assert any(said in problem for problem in found), found
