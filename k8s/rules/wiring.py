"""What names, selects or leads to something else finds it."""

import re
from collections.abc import Iterator
from typing import Any

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import image_of, of_kind, selected
from service.http.middleware.api_keys import OPEN_PATHS

SECRETS = {  # made by hand, or by an operator, see README.md: name -> keys
    "vitrine": {"user-key", "api-keys", "catalogue-key", "admin-key"},
    "vitrine-tls": {""},
    "vitrine-store": {"uri"},
}
CLIENTS = {"vitrine/client": "true"}  # who may ask is labelled by whoever owns it
NO_HTTP = ("postgres",)  # images that answer no HTTP: a command of theirs is what probes them
PROBED = {"vitrine": OPEN_PATHS, "triton": ("/v2/health/live", "/v2/health/ready")}
NODE_LOCAL_DNS = "169.254.20.10/32"
SLOWEST_BODY = 600  # seconds


def selectors_select(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Deployments, services, budgets, policies and monitors find what they are for."""
    for pod in pods:
        if pod.selector is not None and not pod.selector.items() <= pod.labels.items():
            yield pod.name, f"its selector {pod.selector} does not match the labels of its own pods {pod.labels}"
    for each in of_kind(manifests, "Service"):
        if not selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            yield name_of(each), f"its selector {each['spec'].get('selector')} matches no pod"
    for each in of_kind(manifests, "PodDisruptionBudget", "NetworkPolicy"):
        selector = each["spec"].get("selector" if each["kind"] == "PodDisruptionBudget" else "podSelector") or {}
        if not selector.get("matchLabels"):
            yield name_of(each), "its selector is empty: it would hold for every pod of the namespace, or for none"
        elif not selected(pods, selector):
            yield name_of(each), f"its selector {selector['matchLabels']} matches no pod"
    for pod in pods:
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            if pod.name.startswith("Job/") or (pod.name.startswith("CronJob/") and kind == "PodDisruptionBudget"):
                continue
            selects = "selector" if kind == "PodDisruptionBudget" else "podSelector"
            if not any(pod in selected(pods, each["spec"].get(selects) or {}) for each in of_kind(manifests, kind)):
                yield pod.name, f"no {kind} selects its pods"
    services = list(of_kind(manifests, "Service"))
    for each in of_kind(manifests, "ServiceMonitor"):
        wanted = each["spec"]["selector"]["matchLabels"]
        found = [s for s in services if wanted.items() <= s["metadata"].get("labels", {}).items()]
        if not found and services:
            yield name_of(each), f"its selector {wanted} matches no service"
        for endpoint in each["spec"]["endpoints"]:
            if any(endpoint["port"] not in {port["name"] for port in s["spec"]["ports"]} for s in found):
                yield name_of(each), f"the service has no port {endpoint['port']!r}"


def peers_are_named(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A policy lets nobody in or out by leaving something empty, and both ends of a way within the namespace agree."""
    for each in of_kind(manifests, "NetworkPolicy"):
        own = selected(pods, each["spec"].get("podSelector") or {})
        if set(each["spec"].get("policyTypes", [])) != {"Ingress", "Egress"}:
            yield name_of(each), "policyTypes must be Ingress and Egress: what is not named stays open"
        for direction, end in (("ingress", "from"), ("egress", "to")):
            for rule in each["spec"].get(direction, []):
                if not rule.get(end) or not rule.get("ports"):
                    yield name_of(each), f"an {direction} rule without `{end}` or `ports` is open to everybody"
                for peer in rule.get(end, []):
                    yield from _peer(each, peer, rule, direction, own, pods)


def _peer(
    policy: Manifest, peer: dict[str, Any], rule: dict[str, Any], direction: str, own: list[Pod], pods: list[Pod]
) -> Iterator[tuple[str, str]]:
    if "ipBlock" in peer:
        if peer["ipBlock"]["cidr"].endswith("/0"):
            yield name_of(policy), f"the {direction} peer {peer} is everybody"
        return
    selectors = [peer.get("podSelector"), peer.get("namespaceSelector")]
    labels = [each.get("matchLabels") for each in selectors if each is not None]
    if not labels or not all(labels):
        yield name_of(policy), f"the {direction} peer {peer} is empty: it means every pod"
        return
    inside = "namespaceSelector" not in peer
    found = selected(pods, peer.get("podSelector") or {}) if inside else []
    if inside and not found and peer["podSelector"]["matchLabels"] != CLIENTS:
        yield name_of(policy), f"the {direction} peer {peer['podSelector']['matchLabels']} matches no pod"
    receivers = own if direction == "ingress" else found
    for port in rule.get("ports", []):
        name = port.get("port")
        for pod in receivers:
            if isinstance(name, str) and name not in pod.ports:
                yield name_of(policy), f"{direction} to port {name!r}, which {pod.name} does not have"


def ports_exist(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Services and probes name ports that containers have."""
    for each in of_kind(manifests, "Service"):
        for pod in selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            for port in each["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in pod.ports and target not in pod.ports.values():
                    yield name_of(each), f"port {target!r} does not exist in {pod.name}, which has {pod.ports}"
    for pod in pods:
        for container in pod.spec["containers"]:
            own = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe, image = container.get(kind, {}), image_of(container)[0]
                get = probe.get("httpGet")
                if get is None:
                    if container.get("ports") and not (image in NO_HTTP and "exec" in probe):
                        yield pod.name, f"{container['name']} has no {kind} over HTTP"
                    continue
                if get["port"] not in own and get["port"] not in own.values():
                    yield pod.name, f"{kind} asks port {get['port']!r}, which {container['name']} does not have"
                routes = PROBED.get(image, ())
                if get["path"] not in routes:
                    yield pod.name, f"{kind} asks {get['path']}, which is no route of it; there are {', '.join(routes)}"


def references_resolve(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Whatever a pod or an autoscaler names is there."""
    there = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    for pod in pods:
        for kind, name, key in _references(pod):
            held = there.get((kind, name))
            if held is not None:
                if key and key not in {**held.get("data", {}), **held.get("stringData", {})}:
                    yield pod.name, f"{kind} {name} has no key {key!r}"
            elif kind != "Secret" or key not in SECRETS.get(name, set()):
                yield pod.name, f"{kind} {name} is not there"
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounted = {mount["name"] for each in pod.containers for mount in each.get("volumeMounts", [])}
        for name in sorted(mounted - volumes):
            yield pod.name, f"volume {name!r} is mounted but not declared"
        for name in sorted(volumes - mounted):
            yield pod.name, f"volume {name!r} is declared but not mounted"
    for each in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = each["spec"]["scaleTargetRef"]
        scaled = there.get((target.get("kind", "Deployment"), target["name"]))
        if scaled is None:
            yield name_of(each), f"{target.get('kind', 'Deployment')} {target['name']} is not there"
        elif "replicas" in scaled["spec"]:
            yield name_of(each), f"{name_of(scaled)} says its replicas: each apply would undo what the autoscaler did"
    for each in of_kind(manifests, "InferenceService"):
        if ("ServingRuntime", each["spec"]["predictor"]["model"].get("runtime")) not in there:
            yield name_of(each), f"ServingRuntime {each['spec']['predictor']['model'].get('runtime')} is not there"


def _references(pod: Pod) -> Iterator[tuple[str, str, str]]:
    """Kind, name, and the key in it or ""."""
    yield "ServiceAccount", pod.spec.get("serviceAccountName", "default"), ""
    for container in pod.containers:
        for source in container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    yield kind, source[field]["name"], ""
        for variable in container.get("env", []):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                source = variable.get("valueFrom", {}).get(field)
                if source is not None and not source.get("optional"):
                    yield kind, source["name"], source["key"]
    for volume in pod.spec.get("volumes", []):
        for field, kind, key in (
            ("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):  # fmt: skip
            if field in volume and not volume[field].get("optional"):
                yield kind, volume[field][key], ""


def names_are_asked_for(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Who may go out may ask for names, also where nodes cache them."""
    for each in of_kind(manifests, "NetworkPolicy"):
        egress = each["spec"].get("egress", [])
        peers = [
            peer for rule in egress for peer in rule.get("to", []) if {"port": 53, "protocol": "UDP"} in rule["ports"]
        ]
        if egress and not any(peer.get("ipBlock", {}).get("cidr") == NODE_LOCAL_DNS for peer in peers):
            yield name_of(each), f"egress must allow {NODE_LOCAL_DNS}: pods ask that address where nodes cache names"


def routes_lead_somewhere(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A gateway's routes name services and ports, and give a large body time."""
    services = {each["metadata"]["name"]: each for each in of_kind(manifests, "Service")}
    hosts = [
        host for each in of_kind(manifests, "HTTPRoute", "GRPCRoute") for host in each["spec"].get("hostnames", [])
    ]
    for host in sorted({host for host in hosts if hosts.count(host) > 1}):
        yield (
            "HTTPRoute, GRPCRoute",
            f"both have the host {host}: a listener accepts one of them, and refuses the other",
        )
    for each in of_kind(manifests, "HTTPRoute", "GRPCRoute"):
        for rule in each["spec"]["rules"]:
            for ref in rule["backendRefs"]:
                ports = [port["port"] for port in services.get(ref["name"], {"spec": {"ports": []}})["spec"]["ports"]]
                if ref["port"] not in ports:
                    yield name_of(each), f"it leads to {ref['name']}:{ref['port']}; there is {ports}"
            for name in ("request", "backendRequest") if each["kind"] == "HTTPRoute" else ():
                said = rule.get("timeouts", {}).get(name, "0s")
                if int(re.sub(r"\D", "", said)) < SLOWEST_BODY or not said.endswith("0s"):
                    yield (
                        name_of(each),
                        f"timeouts.{name} must be {SLOWEST_BODY}s at least: a large photo from a slow phone",
                    )
