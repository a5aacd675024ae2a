"""What must fit what, in manifests that are rendered together: each rule gives who is at fault, and the fault."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from k8s.rendered import Manifest, Pod, name_of
from service.keys import OPEN_PATHS
from service.settings import Settings

SECRETS = {"vitrine": {"user-key", "api-keys"}, "vitrine-tls": {""}}  # made by hand, see README.md: name -> keys
CLIENTS = {"vitrine/client": "true"}  # who may ask is labelled by whoever owns it
PROBED = {"vitrine": OPEN_PATHS, "triton": ("/v2/health/live", "/v2/health/ready")}
NODE_LOCAL_DNS = "169.254.20.10/32"
ENGINES = "/tmp/vitrine-engines"  # as the encoder's configuration says
BUILDING = 900  # seconds
SLOWEST_BODY = 600  # seconds
ADDED = 5  # seconds that a request may take beyond VITRINE_DEADLINE, see service/app.py

Rule = Callable[[list[Manifest], list[Pod]], Iterator[tuple[str, str]]]


def _selected(pods: Sequence[Pod], selector: dict[str, Any]) -> list[Pod]:
    wanted = selector.get("matchLabels", {})
    return [pod for pod in pods if wanted and wanted.items() <= pod.labels.items()]


def _of_kind(manifests: Sequence[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (each for each in manifests if each["kind"] in kinds)


def selectors_select(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Deployments, services, budgets, policies and monitors find what they are for."""
    for pod in pods:
        if pod.selector is not None and not pod.selector.items() <= pod.labels.items():
            yield pod.name, f"its selector {pod.selector} does not match the labels of its own pods {pod.labels}"
    for each in _of_kind(manifests, "Service"):
        if not _selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            yield name_of(each), f"its selector {each['spec'].get('selector')} matches no pod"
    for each in _of_kind(manifests, "PodDisruptionBudget", "NetworkPolicy"):
        selector = each["spec"].get("selector" if each["kind"] == "PodDisruptionBudget" else "podSelector") or {}
        if not selector.get("matchLabels"):
            yield name_of(each), "its selector is empty: it would hold for every pod of the namespace, or for none"
        elif not _selected(pods, selector):
            yield name_of(each), f"its selector {selector['matchLabels']} matches no pod"
    for pod in pods:
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            if pod.name.startswith("Job/"):
                continue
            selects = "selector" if kind == "PodDisruptionBudget" else "podSelector"
            if not any(pod in _selected(pods, each["spec"].get(selects) or {}) for each in _of_kind(manifests, kind)):
                yield pod.name, f"no {kind} selects its pods"
    services = list(_of_kind(manifests, "Service"))
    for each in _of_kind(manifests, "ServiceMonitor"):
        wanted = each["spec"]["selector"]["matchLabels"]
        found = [s for s in services if wanted.items() <= s["metadata"].get("labels", {}).items()]
        if not found and services:
            yield name_of(each), f"its selector {wanted} matches no service"
        for endpoint in each["spec"]["endpoints"]:
            if any(endpoint["port"] not in {port["name"] for port in s["spec"]["ports"]} for s in found):
                yield name_of(each), f"the service has no port {endpoint['port']!r}"


def peers_are_named(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A policy lets nobody in or out by leaving something empty, and both ends of a way within the namespace agree."""
    for each in _of_kind(manifests, "NetworkPolicy"):
        own = _selected(pods, each["spec"].get("podSelector") or {})
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
    found = _selected(pods, peer.get("podSelector") or {}) if inside else []
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
    for each in _of_kind(manifests, "Service"):
        for pod in _selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            for port in each["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in pod.ports and target not in pod.ports.values():
                    yield name_of(each), f"port {target!r} does not exist in {pod.name}, which has {pod.ports}"
    for pod in pods:
        for container in pod.spec["containers"]:
            own = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                get = container.get(kind, {}).get("httpGet")
                if get is None:
                    if container.get("ports"):
                        yield pod.name, f"{container['name']} has no {kind} over HTTP"
                    continue
                if get["port"] not in own and get["port"] not in own.values():
                    yield pod.name, f"{kind} asks port {get['port']!r}, which {container['name']} does not have"
                routes = PROBED.get(_image(container)[0], ())
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
    for each in _of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = each["spec"]["scaleTargetRef"]
        scaled = there.get((target.get("kind", "Deployment"), target["name"]))
        if scaled is None:
            yield name_of(each), f"{target.get('kind', 'Deployment')} {target['name']} is not there"
        elif "replicas" in scaled["spec"]:
            yield name_of(each), f"{name_of(scaled)} says its replicas: each apply would undo what the autoscaler did"
    for each in _of_kind(manifests, "InferenceService"):
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


def _environment(container: dict[str, Any], manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Its variables; None for a value that stands in a secret or in the pod."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in _of_kind(manifests, "ConfigMap")}
    said: dict[str, Any] = {}
    for source in container.get("envFrom", []):
        said |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return said | {each["name"]: each.get("value") for each in container.get("env", [])}


def settings_are_known(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Every variable that begins with VITRINE_ is a setting, and its value is one that the setting takes."""
    for pod in pods:
        for container in pod.containers:
            if _image(container)[0] != "vitrine":
                continue
            said = _environment(container, manifests)
            ours = {name: value for name, value in said.items() if name.startswith("VITRINE_")}
            for name in sorted(ours):
                if name.removeprefix("VITRINE_").lower() not in Settings.model_fields:
                    yield pod.name, f"{name} is no setting of the service"
            values = {name.removeprefix("VITRINE_").lower(): value for name, value in ours.items() if value is not None}
            try:
                Settings.model_validate({key: value for key, value in values.items() if key in Settings.model_fields})
            except ValidationError as error:
                for each in error.errors():
                    yield pod.name, f"VITRINE_{str(each['loc'][0]).upper()}={each['input']}: {each['msg']}"


def images_are_pinned(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """By a tag that is not `latest`, or a digest."""
    for pod in pods:
        for container in pod.containers:
            _, tag, digest = _image(container)
            if not digest and tag in ("", "latest"):
                yield pod.name, f"image {container['image']} has neither a tag, other than latest, nor a digest"
            if digest and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
                yield pod.name, f"image {container['image']}: {digest} is no digest"


def _image(container: dict[str, Any]) -> tuple[str, str, str]:
    """Short name, tag, digest."""
    rest, _, digest = container["image"].partition("@")
    path, _, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    short = path.rpartition("/")[2]
    return ("triton" if short == "tritonserver" else short), tag, digest


def pods_are_restricted(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Pod Security `restricted`, and what is wanted beyond it: no token, no writable disk, no links, bounded memory."""
    for pod in pods:
        said = pod.spec.get("securityContext", {})
        if said.get("runAsNonRoot") is not True or not said.get("runAsUser"):
            yield pod.name, "must say runAsNonRoot, and as which number runAsUser, other than 0"
        if said.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield pod.name, "seccompProfile must be RuntimeDefault"
        for field in ("automountServiceAccountToken", "enableServiceLinks"):
            if pod.spec.get(field) is not False:
                yield pod.name, f"{field} must be false"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield pod.name, f"{field} must not be set"
        for volume in pod.spec.get("volumes", []):
            if "hostPath" in volume:
                yield pod.name, f"volume {volume['name']} is a path of the node"
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield pod.name, f"volume {volume['name']} has no sizeLimit: it could fill the node"
        for container in pod.containers:
            for message in _rights(container):
                yield pod.name, f"{container['name']}: {message}"


def _rights(container: dict[str, Any]) -> Iterator[str]:
    said = container.get("securityContext", {})
    if said.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem must be true"
    if said.get("allowPrivilegeEscalation") is not False or said.get("privileged"):
        yield "allowPrivilegeEscalation must be false, and privileged not set"
    if said.get("capabilities", {}).get("drop") != ["ALL"] or said.get("capabilities", {}).get("add"):
        yield "all capabilities must be dropped, and none added"
    if said.get("runAsUser") == 0 or said.get("runAsNonRoot") is False:
        yield "must not run as root"
    asked = container.get("resources", {})
    if not {"cpu", "memory"} <= asked.get("requests", {}).keys() or "memory" not in asked.get("limits", {}):
        yield "requests of cpu and memory, and a limit of memory, must be set"
    if "ephemeral-storage" not in asked.get("requests", {}) or "ephemeral-storage" not in asked.get("limits", {}):
        yield "ephemeral-storage must be asked for and limited: else a node that runs out of disk evicts this pod first"


def requests_survive(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A rollout takes nobody away before another is ready, and a pod that ends has time for what it began."""
    for each in _of_kind(manifests, "Deployment"):
        strategy = each["spec"].get("strategy", {})
        if _has_gpu(each["spec"]["template"]["spec"]):
            if strategy.get("type") != "Recreate":
                yield name_of(each), "it holds a GPU: without Recreate a new pod waits for the one that the old one has"
        elif strategy.get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield name_of(each), "maxUnavailable must be 0"
    for each in _of_kind(manifests, "PodDisruptionBudget"):
        if each["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield (
                name_of(each),
                "unhealthyPodEvictionPolicy must be AlwaysAllow: else a pod that is not ready keeps a node",
            )
    for pod in pods:
        for container in pod.spec["containers"]:
            if _image(container)[0] != "vitrine" or not container.get("ports"):
                continue
            said = _environment(container, manifests)
            ends = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if ends[:1] != ["sleep"]:
                yield pod.name, f"{container['name']} must sleep in preStop, until it is out of every endpoint list"
                continue
            spent = (ends[1], said.get("VITRINE_DRAIN", "2"), said.get("VITRINE_DEADLINE", "5"))
            needed = sum(float(each) for each in spent if each.replace(".", "", 1).isdigit())
            if pod.spec.get("terminationGracePeriodSeconds", 30) < needed + ADDED:
                yield pod.name, f"terminationGracePeriodSeconds must be at least {needed + ADDED:g}"


def _has_gpu(pod: dict[str, Any]) -> bool:
    return any("nvidia.com/gpu" in each.get("resources", {}).get("limits", {}) for each in pod["containers"])


def pods_of_a_rollout_are_spread(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A constraint that counts the pods of the rollout before puts all new ones onto one node."""
    for pod in pods:
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if constraint.get("matchLabelKeys") != ["pod-template-hash"]:
                yield pod.name, "topologySpreadConstraints must have matchLabelKeys: [pod-template-hash]"


def names_are_asked_for(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Who may go out may ask for names, also where nodes cache them."""
    for each in _of_kind(manifests, "NetworkPolicy"):
        egress = each["spec"].get("egress", [])
        peers = [
            peer for rule in egress for peer in rule.get("to", []) if {"port": 53, "protocol": "UDP"} in rule["ports"]
        ]
        if egress and not any(peer.get("ipBlock", {}).get("cidr") == NODE_LOCAL_DNS for peer in peers):
            yield name_of(each), f"egress must allow {NODE_LOCAL_DNS}: pods ask that address where nodes cache names"


def metrics_can_be_read(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Whatever has a port of metrics lets Prometheus in."""
    for pod in pods:
        if "metrics" not in pod.ports:
            continue
        policies = [
            each for each in _of_kind(manifests, "NetworkPolicy") if pod in _selected(pods, each["spec"]["podSelector"])
        ]
        rules = [rule for each in policies for rule in each["spec"].get("ingress", [])]
        if not any({"port": "metrics"} in rule.get("ports", []) for rule in rules):
            yield pod.name, "it has a port metrics, which nobody may read"


def volumes_fit_their_pods(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """What only one pod may mount is not mounted by two at once, and what is built for minutes is kept."""
    claims = {
        each["metadata"]["name"]: each["spec"]["accessModes"] for each in _of_kind(manifests, "PersistentVolumeClaim")
    }
    for each in _of_kind(manifests, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        for volume in spec.get("volumes", []):
            modes = claims.get(volume.get("persistentVolumeClaim", {}).get("claimName"), ["ReadWriteMany"])
            alone = each["spec"].get("strategy", {}).get("type") == "Recreate"
            if "ReadWriteMany" not in modes and not alone and volume["name"] == "engines":
                yield (
                    name_of(each),
                    f"volume {volume['name']} is mounted by one pod at a time: strategy must be Recreate",
                )
        if _has_gpu(spec):
            kept = [m["name"] for c in spec["containers"] for m in c["volumeMounts"] if m["mountPath"] == ENGINES]
            if not any(v["name"] in kept and "persistentVolumeClaim" in v for v in spec.get("volumes", [])):
                yield (
                    name_of(each),
                    f"{ENGINES}, where TensorRT's engines are kept, must be a volume that outlives the pod",
                )
            probe = spec["containers"][0].get("startupProbe", {})
            if probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) < BUILDING:
                yield name_of(each), f"startupProbe must wait {BUILDING} s: engines are built before anything answers"


def nothing_keeps_a_pod_from_starting(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Triton is a help, not a condition: no container that must end first writes into its repository."""
    for pod in pods:
        for container in pod.spec.get("initContainers", []) if pod.name.startswith("Deployment/") else []:
            if any(mount["mountPath"].startswith("/models") for mount in container.get("volumeMounts", [])):
                yield (
                    pod.name,
                    f"{container['name']} runs first and writes /models: a claim that cannot be written stops it",
                )


def jobs_are_named_by_release(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A Job cannot be changed: the next release's needs another name."""
    for each in _of_kind(manifests, "Job"):
        if not re.search(r"-[0-9]+$", each["metadata"]["name"]):
            yield name_of(each), "a Job cannot be changed: its name must end in the number of the release"


def tls_is_everywhere(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Probes speak what the port speaks."""
    for pod in pods:
        for container in pod.spec["containers"]:
            if _image(container)[0] != "vitrine" or not container.get("ports"):
                continue
            said = _environment(container, manifests)
            scheme = "HTTPS" if "VITRINE_TLS_CERTIFICATE" in said else "HTTP"
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if container.get(kind, {}).get("httpGet", {}).get("scheme", "HTTP") != scheme:
                    yield pod.name, f"{kind} must ask by {scheme}"
            if (
                said.get("VITRINE_ALLOW_ANONYMOUS") != "true"
                and not {"VITRINE_API_KEY", "VITRINE_API_KEYS"} & said.keys()
            ):
                yield pod.name, "neither VITRINE_ALLOW_ANONYMOUS nor an API key: the service refuses to start"


def routes_lead_somewhere(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A gateway's routes name services and ports, and give a large body time."""
    services = {each["metadata"]["name"]: each for each in _of_kind(manifests, "Service")}
    hosts = [
        host for each in _of_kind(manifests, "HTTPRoute", "GRPCRoute") for host in each["spec"].get("hostnames", [])
    ]
    for host in sorted({host for host in hosts if hosts.count(host) > 1}):
        yield (
            "HTTPRoute, GRPCRoute",
            f"both have the host {host}: a listener accepts one of them, and refuses the other",
        )
    for each in _of_kind(manifests, "HTTPRoute", "GRPCRoute"):
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


def queries_ask_for_their_namespace(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """One Prometheus sees staging and production: a figure over both is neither's."""
    for each in _of_kind(manifests, "PrometheusRule"):
        for rule in (rule for group in each["spec"]["groups"] for rule in group["rules"]):
            for found in re.findall(r"\b(?:sum|min|max|avg|count|group)\b *(?:by *\(([^)]*)\))?", rule["expr"]):
                if "namespace" not in found:
                    yield name_of(each), f"{rule['alert']} adds up over namespaces: it must group by (namespace)"
            if "namespace" not in rule["annotations"]["summary"]:
                yield name_of(each), f"{rule['alert']} does not say in which namespace"
    for each in _of_kind(manifests, "ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            own = f'namespace="{each["metadata"]["namespace"]}"'
            if own not in trigger["metadata"].get("query", own):
                yield name_of(each), f"its query must ask for {own}: {trigger['metadata']['query']}"
    for each in _of_kind(manifests, "ConfigMap"):
        for panel in json.loads(each.get("data", {}).get("dashboard.json", "{}")).get("panels", []):
            for target in panel.get("targets", []):
                if 'namespace="$namespace"' not in target["expr"]:
                    yield name_of(each), f"the panel {panel['title']!r} adds up over namespaces: {target['expr']}"


def operators_find_them(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A Prometheus operator looks at what carries its labels, and at nothing else."""
    for each in _of_kind(manifests, "ServiceMonitor", "PrometheusRule"):
        if not each["metadata"].get("labels", {}).get("release"):
            yield name_of(each), "it has no label `release`, by which an operator selects"


RULES: tuple[Rule, ...] = (
    selectors_select, peers_are_named, ports_exist, references_resolve, settings_are_known,
    images_are_pinned, pods_are_restricted, requests_survive, pods_of_a_rollout_are_spread, names_are_asked_for,
    metrics_can_be_read, volumes_fit_their_pods, nothing_keeps_a_pod_from_starting, jobs_are_named_by_release,
    tls_is_everywhere,
    routes_lead_somewhere, queries_ask_for_their_namespace, operators_find_them,
)  # fmt: skip
