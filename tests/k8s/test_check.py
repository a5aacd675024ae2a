"""Each thing that could be wrong with the manifests is found."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from k8s import rendered
from tests.k8s.manifests import Manifests, container, needs_kubectl, one, pod, require_found, without
from tests.processes import HOME

pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def dev() -> Manifests:
    """The service and Triton."""
    return rendered.render(HOME / "k8s" / "overlays" / "dev")


@pytest.fixture(scope="module")
def everything() -> Manifests:
    """What no overlay has: a GPU and its plans, TLS, keys, a gateway, an autoscaler that asks Prometheus."""
    wanted = ("triton", "gpu", "tensorrt", "tls", "api-key", "ingress", "keda", "monitoring", "retrain")
    made = [each for name in wanted for each in rendered.render_component(name)]
    return list({rendered.name_of(each): each for each in made}.values())


@pytest.fixture(scope="module")
def production() -> Manifests:
    """The service with an autoscaler, monitored."""
    return rendered.render(HOME / "k8s" / "overlays" / "production")


def night(manifests: Manifests) -> dict[str, Any]:
    """The pod that trains."""
    return one(manifests, "CronJob", "retrain")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def dashboard(manifests: Manifests) -> dict[str, Any]:
    """The data of Grafana's config map."""
    return next(m["data"] for m in manifests if m["metadata"]["name"] == "vitrine-dashboard")


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
    "two trainings at once": (
        lambda m: one(m, "CronJob", "retrain")["spec"].update(concurrencyPolicy="Allow"), "must be Forbid"),
    "a training without an end": (
        lambda m: without(one(m, "CronJob", "retrain")["spec"]["jobTemplate"]["spec"], "activeDeadlineSeconds"),
        "activeDeadlineSeconds must be set"),
    "a training that runs as root": (
        lambda m: night(m)["securityContext"].update(runAsUser=0), "other than 0"),
    "a training that reaches everything": (
        lambda m: m.remove(one(m, "NetworkPolicy", "retrain")), "no NetworkPolicy selects"),
    "a catalogue that is not there": (
        lambda m: m.remove(one(m, "PersistentVolumeClaim", "catalogue")), "PersistentVolumeClaim catalogue"),
    "a proposal to nobody": (
        lambda m: night(m)["containers"][0]["env"].append({"name": "RETRAIN_TO", "value": "live"}), "is no alias"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_wrong_in_a_component_is_found(everything: Manifests, name: str) -> None:
    """The same for what an overlay may add."""
    require_found(everything, *OPTIONAL[name])


def test_a_retrained_release_is_proposed_and_nothing_more() -> None:
    """The alias that nothing serves from, until an overlay says otherwise."""
    made = rendered.render_component("retrain")
    said = [m["data"]["RETRAIN_TO"] for m in made if m["kind"] == "ConfigMap" and "RETRAIN_TO" in m["data"]]
    assert said == ["staging"]


def test_tls_and_keys_are_checked_together() -> None:
    """A probe that does not speak TLS, and a service that would refuse to start."""
    tls, keys = rendered.render_component("tls"), rendered.render_component("api-key")
    require_found(tls, lambda m: without(container(m)["readinessProbe"]["httpGet"], "scheme"), "must ask by HTTPS")
    unkeyed = [each for each in container(keys)["env"] if each["name"] != "VITRINE_API_KEYS"]
    require_found(keys, lambda m: container(m).update(env=unkeyed), "refuses to start")


@pytest.mark.parametrize("name", MONITORED)
def test_what_is_wrong_in_production_is_found(production: Manifests, name: str) -> None:
    """The same for what only that overlay has."""
    require_found(production, *MONITORED[name])
