"""The manifests are as they should be, and each thing that could be wrong with them is found."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s import check, rendered
from tests.processes import HOME
from training.promotion import overlays
from training.promotion.overlays import Image

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="renders with kubectl, which is not here")
Manifests = list[dict[str, Any]]


@pytest.fixture(scope="module")
def dev() -> Manifests:
    """The service and Triton."""
    return rendered.render(HOME / "k8s" / "overlays" / "dev")


@pytest.fixture(scope="module")
def everything() -> Manifests:
    """What no overlay has: a GPU and its plans, TLS, keys, a gateway, an autoscaler that asks Prometheus, a batch."""
    wanted = ("triton", "gpu", "tensorrt", "tls", "api-key", "ingress", "keda", "monitoring", "batch")
    made = [each for name in wanted for each in rendered.render_component(name)]
    return list({rendered.name_of(each): each for each in made}.values())


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


def test_production_with_its_canary_is_as_it_should_be(tmp_path: Path) -> None:
    """`vitrine promote --to canary` takes the lines in that are marked `# canary: `: repository, tag and digest are
    those that were promoted; and out again."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production"
    text = (overlay / "kustomization.yaml").read_text()
    image = Image.parse(f"registry.example:5000/shop/vitrine:2-1a2b3c4d@sha256:{'a1' * 32}")
    overlays.write_candidate(overlay / "kustomization.yaml", image)
    made = rendered.render(overlay)
    assert check.problems(made) == []
    assert pod(made)["initContainers"][0]["image"] == str(image)
    assert one(made, "ConfigMap")["data"]["VITRINE_CANDIDATE_MODE"] == "canary"
    overlays.write_candidate(overlay / "kustomization.yaml", None)
    back = (overlay / "kustomization.yaml").read_text()
    assert back == text.replace(
        'example.com/shop/vitrine\n  # canary:   newTag: "2"',
        (f'{image.name}\n  # canary:   newTag: "{image.tag}@{image.digest}"'),
    )
    assert "initContainers" not in pod(rendered.render(overlay))


def test_one_line_moves_a_release_on_a_volume(tmp_path: Path) -> None:
    """The line of the image `vitrine` names what is mounted, and the code stays; a number of its own names what is
    pulled, and the Jobs that build its plan and answer its users."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"
    text = overlay.read_text()
    code = '  - name: vitrine-code\n    newName: example.com/shop/vitrine\n    newTag: "3"\n'
    overlay.write_text(
        text.replace("/monitoring\n", "/release-volume/image\n").replace("images:\n", f"images:\n{code}")
    )
    image = Image.parse(f"example.com/shop/vitrine:7-1a2b3c4d@sha256:{'a1' * 32}")
    overlays.write(overlay, 7, image)
    made = rendered.render(overlay.parent)
    assert [volume["image"]["reference"] for volume in pod(made)["volumes"] if "image" in volume] == [str(image)]
    assert container(made)["image"] == "example.com/shop/vitrine:3"

    pulled = (
        "patches:\n  - target: {kind: ConfigMap, name: release-to-pull}\n    patch: |-\n      - op: replace\n"
        '        path: /data/RELEASE\n        value: "1"\n'
    )
    overlay.write_text(text.replace("/monitoring\n", "/release-volume/pull\n") + pulled)
    assert overlays.read(overlay) == 1
    overlays.write(overlay, 7)
    assert overlays.read(overlay) == 7
    made = rendered.render(overlay.parent)
    assert one(made, "ConfigMap", "release-to-pull")["data"]["RELEASE"] == "7"
    assert container(made)["image"] == "example.com/shop/vitrine:1"

    renamed = (
        "patches:\n  - target: {kind: Job, name: build-plan-1}\n    patch: |-\n      - op: replace\n"
        "        path: /metadata/name\n        value: build-plan-1\n"
    )
    with_plans = "/triton\n  - ../../components/gpu\n  - ../../components/tensorrt\n"
    overlay.write_text(text.replace("/monitoring\n", with_plans) + renamed)
    overlays.write(overlay, 7, image)
    assert one(rendered.render(overlay.parent), "Job", "build-plan")["metadata"]["name"] == "build-plan-7"

    overlay.write_text(text.replace("/monitoring\n", "/batch\n") + renamed.replace("build-plan", "recommend-all"))
    overlays.write(overlay, 7, image)
    made = rendered.render(overlay.parent)
    assert check.problems(made) == []
    job = one(made, "Job", "recommend-all")
    assert job["metadata"]["name"] == "recommend-all-7"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == str(image)


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


def batch(manifests: Manifests) -> dict[str, Any]:
    """The pod that answers every user."""
    return one(manifests, "Job", "recommend-all")["spec"]["template"]["spec"]


def labels(manifests: Manifests) -> dict[str, Any]:
    """Of the service's pods."""
    return one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]


def dashboard(manifests: Manifests) -> dict[str, Any]:
    """The data of Grafana's config map."""
    return next(m["data"] for m in manifests if m["metadata"]["name"] == "vitrine-dashboard")


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
    "what runs first needs Triton's folder": (
        lambda m: pod(m).update(initContainers=[copy.deepcopy(container(m))]), "cannot be written stops it"),
    "no disk is asked for": (
        lambda m: without(container(m)["resources"]["requests"], "ephemeral-storage"), "ephemeral-storage"),
    "a budget that keeps a node": (
        lambda m: without(one(m, "PodDisruptionBudget")["spec"], "unhealthyPodEvictionPolicy"), "AlwaysAllow"),
    "pods that are spread beside the old ones": (
        lambda m: without(pod(m)["topologySpreadConstraints"][0], "matchLabelKeys"), "pod-template-hash"),
    "no names where nodes cache them": (
        lambda m: one(m, "NetworkPolicy")["spec"]["egress"].pop(1), "where nodes cache names"),
    "a peer that is every address": (
        lambda m: one(m, "NetworkPolicy")["spec"]["egress"][1]["to"][0]["ipBlock"].update(cidr="0.0.0.0/0"),
        "is everybody"),
    "nobody may ask": (
        lambda m: one(m, "ConfigMap")["data"].update(VITRINE_ALLOW_ANONYMOUS="false"), "refuses to start"),
    "Triton's metrics are shut in": (
        lambda m: one(m, "NetworkPolicy", "triton")["spec"]["ingress"].pop(1), "metrics, which nobody may read"),
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


OPTIONAL: dict[str, tuple[Callable[[Manifests], object], str]] = {
    "a GPU that two pods want": (
        lambda m: one(m, "Deployment", "triton")["spec"].update(
            strategy={"rollingUpdate": {"maxUnavailable": 0}}), "without Recreate"),
    "engines that go with their pod": (
        lambda m: [v.pop("persistentVolumeClaim") and v.update(emptyDir={"sizeLimit": "5Gi"})
                   for v in pod(m, "triton")["volumes"] if v["name"] == "engines"], "must be a volume that outlives"),
    "no time to build engines": (
        lambda m: pod(m, "triton")["containers"][0]["startupProbe"].update(failureThreshold=60), "must wait 900 s"),
    "a Job for every release": (
        lambda m: one(m, "Job", "build-plan")["metadata"].update(name="build-plan"), "number of the release"),
    "a batch for every release": (
        lambda m: one(m, "Job", "recommend-all")["metadata"].update(name="recommend-all"), "number of the release"),
    "an option that is none": (
        lambda m: batch(m)["containers"][0]["args"].append("--to"), "unrecognized arguments: --to"),
    "nowhere to write to": (
        lambda m: batch(m)["containers"][0].update(args=["-k", "5"]), "arguments are required: --out"),
    "answers that go with their pod": (
        lambda m: batch(m)["containers"][0].update(args=["--out", "/tmp/all.parquet"]), "must lie on a claim"),
    "answers on a disk of the pod": (
        lambda m: batch(m)["volumes"][0].update(emptyDir={"sizeLimit": "5Gi"}) or
        batch(m)["volumes"][0].pop("persistentVolumeClaim"), "must lie on a claim"),
    "answers of another release": (
        lambda m: batch(m)["containers"][0].update(image="vitrine:2"), "it answers from the release of vitrine:2"),
    "answers under other keys": (
        lambda m: batch(m)["containers"][0]["env"].pop(1), "no user is known else"),
    "a batch that a drained node fails": (
        lambda m: one(m, "Job", "recommend-all")["spec"]["podFailurePolicy"]["rules"].pop(0), "must ignore Disruption"),
    "a batch that may ask everybody": (
        lambda m: one(m, "NetworkPolicy", "recommend-all")["spec"].update(policyTypes=["Ingress"]), "stays open"),
    "a batch as root": (
        lambda m: batch(m)["securityContext"].update(runAsUser=0), "other than 0"),
    "a route to a port that is none": (
        lambda m: one(m, "GRPCRoute")["spec"]["rules"][0]["backendRefs"][0].update(port=5), "it leads to vitrine:5;"),
    "a gateway that gives up on a slow phone": (
        lambda m: one(m, "HTTPRoute")["spec"]["rules"][0]["timeouts"].update(request="15s"), "slow phone"),
    "a host for two kinds of route": (
        lambda m: one(m, "GRPCRoute")["spec"].update(hostnames=["vitrine.example.com"]), "accepts one of them"),
    "a panel over all namespaces": (
        lambda m: dashboard(m).update({"dashboard.json": json.dumps({"panels": [
            {"title": "All", "targets": [{"expr": 'sum(vitrine_requests_total{job="vitrine"})'}]}]})}),
        "the panel 'All' adds up"),
    "a misspelt field of a route": (
        lambda m: one(m, "HTTPRoute")["spec"].update(hostname=["a"]), "hostname"),
    "a query over all namespaces": (
        lambda m: one(m, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(
            query='sum(vitrine_requests_under_way{job="vitrine"})'), 'must ask for namespace="check"'),
    "an alert over all namespaces": (
        lambda m: one(m, "PrometheusRule")["spec"]["groups"][0]["rules"][1].update(
            expr='sum(rate(vitrine_requests_total{job="vitrine"}[5m])) > 1'), "must group by (namespace)"),
    "an alert that does not say where": (
        lambda m: one(m, "PrometheusRule")["spec"]["groups"][0]["rules"][1]["annotations"].update(summary="fails"),
        "in which namespace"),
    "rules that no operator looks at": (
        lambda m: without(one(m, "PrometheusRule")["metadata"], "labels"), "by which an operator selects"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_wrong_in_a_component_is_found(everything: Manifests, name: str) -> None:
    """The same for what an overlay may add."""
    require_found(everything, *OPTIONAL[name])


def test_tls_and_keys_are_checked_together() -> None:
    """A probe that does not speak TLS, and a service that would refuse to start."""
    tls, keys = rendered.render_component("tls"), rendered.render_component("api-key")
    require_found(tls, lambda m: without(container(m)["readinessProbe"]["httpGet"], "scheme"), "must ask by HTTPS")
    unkeyed = [each for each in container(keys)["env"] if each["name"] != "VITRINE_API_KEYS"]
    require_found(keys, lambda m: container(m).update(env=unkeyed), "refuses to start")


def test_a_batch_answers_from_where_the_service_does(tmp_path: Path) -> None:
    """A release that is pulled is not the one in the image; one that is mounted from the image is."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"
    text = overlay.read_text()
    both = "/batch\n  - ../../components/release-volume/"
    overlay.write_text(text.replace("/monitoring\n", f"{both}pull\n"))
    [problem] = check.problems(rendered.render(overlay.parent))
    assert "and the service from that of /release/current" in problem
    code = '  - name: vitrine-code\n    newName: example.com/shop/vitrine\n    newTag: "3"\n'
    overlay.write_text(text.replace("/monitoring\n", f"{both}image\n").replace("images:\n", f"images:\n{code}"))
    assert check.problems(rendered.render(overlay.parent)) == []


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
