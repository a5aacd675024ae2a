"""Whether what kustomize renders would work: `python -m k8s.check [FOLDER ...]`; all overlays and components else.

Schemas say whether a field exists; these checks say whether the parts fit each other and the service: that selectors
select, names resolve, ports and probes exist, settings are settings, and that nothing runs with more rights than it
needs. Exit code 1 where anything is wrong.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from pydantic import ValidationError

from service.keys import OPEN_PATHS
from service.settings import Settings

HOME = Path(__file__).resolve().parent
VERSIONS = ("1.31", "1.37")  # the oldest and the newest Kubernetes that the manifests are held against
# what a component needs before it; `overlays/` show the usual combinations
NEEDS = {
    "gpu": ("triton",), "tensorrt": ("triton", "gpu"), "hpa-requests": ("hpa",),
}  # fmt: skip
SECRETS = {"vitrine": {"user-key"}}  # made by hand, see README.md: name -> keys
CLIENTS = {"vitrine/client": "true"}  # who may ask is labelled by whoever owns it
PROBED = {"vitrine": OPEN_PATHS, "triton": ("/v2/health/live", "/v2/health/ready")}
WORKLOADS = ("Deployment", "Job", "Pod", "StatefulSet", "DaemonSet")
ADDED = 5  # seconds that a request may take beyond VITRINE_DEADLINE, see service/app.py

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as some manifest makes it. name: Kind/name of that; selector: by which it finds its pods, if by any."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    selector: dict[str, str] | None = None

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first first."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    @property
    def ports(self) -> dict[str, int]:
        """By name."""
        return {
            port["name"]: port["containerPort"]
            for each in self.containers
            for port in each.get("ports", [])
            if "name" in port
        }


Check = Callable[[list[Manifest], list[Pod]], Iterator[tuple[str, str]]]


def render(folder: Path) -> list[Manifest]:
    """What kustomize makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{folder} cannot be rendered: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def render_component(name: str) -> list[Manifest]:
    """The base with one component, and with what that needs."""
    with tempfile.TemporaryDirectory() as folder:

        def there(path: str) -> str:
            return os.path.relpath(HOME / path, Path(folder).resolve())

        images = [{"name": each, "newName": "vitrine", "newTag": "1"} for each in ("vitrine", "vitrine-candidate")]
        kustomization = {
            "resources": [there("base")], "namespace": "check", "images": images,
            "components": [there(f"components/{each}") for each in (*NEEDS.get(name, ()), name)],
        }  # fmt: skip
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(Path(folder))


def problems(manifests: Sequence[Manifest]) -> list[str]:
    """What is wrong with what was rendered together, in words."""
    found = [f"{_name(each)}: {message}" for each in manifests for message in _against_schemas(json.dumps(each))]
    pods = list(_pods(manifests))
    return found + [f"{name}: {message}" for check in CHECKS for name, message in check(list(manifests), pods)]


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


@cache  # what several overlays have in common is held against them once
def _against_schemas(text: str) -> tuple[str, ...]:
    return tuple(_schema_errors(json.loads(text)))


def _schema_errors(manifest: Manifest) -> Iterator[str]:
    ours = HOME / "schemas" / f"{manifest['kind']}.json"
    if ours.exists():
        for error in jsonschema.Draft7Validator(json.loads(ours.read_text())).iter_errors(manifest):
            yield f"{error.message} (at {'.'.join(map(str, error.path))})"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{error.message} (at {'.'.join(map(str, error.path))}, Kubernetes {version})"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"Kubernetes {version} has no {manifest['apiVersion']} {manifest['kind']}"


def _pods(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    for each in manifests:
        kind, spec = each["kind"], each.get("spec", {})
        if kind in WORKLOADS:
            template = each if kind == "Pod" else spec["template"]
            labels = template["metadata"].get("labels", {})
            yield Pod(_name(each), labels, template["spec"], spec.get("selector", {}).get("matchLabels"))
        elif kind == "InferenceService":  # KServe puts the pod together from two manifests
            predictor = dict(spec["predictor"])
            runtime = next(m["spec"] for m in manifests if m["kind"] == "ServingRuntime")
            pod = {key: value for key, value in predictor.items() if key in POD_FIELDS}
            yield Pod(
                _name(each),
                predictor.get("labels", {}),
                pod | {"containers": runtime["containers"], "volumes": runtime.get("volumes", [])},
            )


POD_FIELDS = (
    "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds",
    "securityContext", "tolerations", "nodeSelector",
)  # fmt: skip


def _selected(pods: Sequence[Pod], selector: dict[str, Any]) -> list[Pod]:
    wanted = selector.get("matchLabels", {})
    return [pod for pod in pods if wanted and wanted.items() <= pod.labels.items()]


def _of_kind(manifests: Sequence[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (each for each in manifests if each["kind"] in kinds)


def pods_are_schema_valid(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Of kinds whose own schema does not look into the pod."""
    for pod in pods:
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod.spec}
        for message in _against_schemas(json.dumps(whole)):
            yield pod.name, message


def selectors_select(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Deployments, services, budgets, policies and monitors find what they are for."""
    for pod in pods:
        if pod.selector is not None and not pod.selector.items() <= pod.labels.items():
            yield pod.name, f"its selector {pod.selector} does not match the labels of its own pods {pod.labels}"
    for each in _of_kind(manifests, "Service"):
        if not _selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            yield _name(each), f"its selector {each['spec'].get('selector')} matches no pod"
    for each in _of_kind(manifests, "PodDisruptionBudget", "NetworkPolicy"):
        selector = each["spec"].get("selector" if each["kind"] == "PodDisruptionBudget" else "podSelector") or {}
        if not selector.get("matchLabels"):
            yield _name(each), "its selector is empty: it would hold for every pod of the namespace, or for none"
        elif not _selected(pods, selector):
            yield _name(each), f"its selector {selector['matchLabels']} matches no pod"
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
            yield _name(each), f"its selector {wanted} matches no service"
        for endpoint in each["spec"]["endpoints"]:
            if any(endpoint["port"] not in {port["name"] for port in s["spec"]["ports"]} for s in found):
                yield _name(each), f"the service has no port {endpoint['port']!r}"


def peers_are_named(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A policy lets nobody in or out by leaving something empty, and both ends of a way within the namespace agree."""
    for each in _of_kind(manifests, "NetworkPolicy"):
        own = _selected(pods, each["spec"].get("podSelector") or {})
        if set(each["spec"].get("policyTypes", [])) != {"Ingress", "Egress"}:
            yield _name(each), "policyTypes must be Ingress and Egress: what is not named stays open"
        for direction, end in (("ingress", "from"), ("egress", "to")):
            for rule in each["spec"].get(direction, []):
                if not rule.get(end) or not rule.get("ports"):
                    yield _name(each), f"an {direction} rule without `{end}` or `ports` is open to everybody"
                for peer in rule.get(end, []):
                    yield from _peer(each, peer, rule, direction, own, pods)


def _peer(
    policy: Manifest, peer: dict[str, Any], rule: dict[str, Any], direction: str, own: list[Pod], pods: list[Pod]
) -> Iterator[tuple[str, str]]:
    selectors = [peer.get("podSelector"), peer.get("namespaceSelector")]
    labels = [each.get("matchLabels") for each in selectors if each is not None]
    if not labels or not all(labels):
        yield _name(policy), f"the {direction} peer {peer} is empty: it means every pod"
        return
    inside = "namespaceSelector" not in peer
    found = _selected(pods, peer.get("podSelector") or {}) if inside else []
    if inside and not found and peer["podSelector"]["matchLabels"] != CLIENTS:
        yield _name(policy), f"the {direction} peer {peer['podSelector']['matchLabels']} matches no pod"
    receivers = own if direction == "ingress" else found
    for port in rule.get("ports", []):
        name = port.get("port")
        for pod in receivers:
            if isinstance(name, str) and name not in pod.ports:
                yield _name(policy), f"{direction} to port {name!r}, which {pod.name} does not have"


def ports_exist(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Services and probes name ports that containers have."""
    for each in _of_kind(manifests, "Service"):
        for pod in _selected(pods, {"matchLabels": each["spec"].get("selector", {})}):
            for port in each["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in pod.ports and target not in pod.ports.values():
                    yield _name(each), f"port {target!r} does not exist in {pod.name}, which has {pod.ports}"
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
            yield _name(each), f"{target.get('kind', 'Deployment')} {target['name']} is not there"
        elif "replicas" in scaled["spec"]:
            yield _name(each), f"{_name(scaled)} says its replicas: each apply would undo what the autoscaler did"
    for each in _of_kind(manifests, "InferenceService"):
        if ("ServingRuntime", each["spec"]["predictor"]["model"].get("runtime")) not in there:
            yield _name(each), f"ServingRuntime {each['spec']['predictor']['model'].get('runtime')} is not there"


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
                if field in variable.get("valueFrom", {}):
                    yield kind, variable["valueFrom"][field]["name"], variable["valueFrom"][field]["key"]
    for volume in pod.spec.get("volumes", []):
        for field, kind, key in (
            ("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):  # fmt: skip
            if field in volume:
                yield kind, volume[field][key], ""


def settings_are_known(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Every variable that begins with VITRINE_ is a setting, and its value is one that the setting takes."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in _of_kind(manifests, "ConfigMap")}
    for pod in pods:
        for container in pod.containers:
            if _image(container)[0] != "vitrine":
                continue
            said = {}
            for source in container.get("envFrom", []):
                said |= maps.get(source.get("configMapRef", {}).get("name"), {})
            said |= {each["name"]: each.get("value") for each in container.get("env", [])}
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


def requests_survive(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A rollout takes nobody away before another is ready, and a pod that ends has time for what it began."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in _of_kind(manifests, "ConfigMap")}
    for each in _of_kind(manifests, "Deployment"):
        if each["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield _name(each), "maxUnavailable must be 0"
    for pod in pods:
        for container in pod.spec["containers"]:
            if _image(container)[0] != "vitrine" or not container.get("ports"):
                continue
            said: dict[str, str] = {}
            for source in container.get("envFrom", []):
                said |= maps.get(source.get("configMapRef", {}).get("name"), {})
            ends = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if ends[:1] != ["sleep"]:
                yield pod.name, f"{container['name']} must sleep in preStop, until it is out of every endpoint list"
                continue
            spent = (ends[1], said.get("VITRINE_DRAIN", "2"), said.get("VITRINE_DEADLINE", "5"))
            needed = sum(float(each) for each in spent if each.replace(".", "", 1).isdigit())
            if pod.spec.get("terminationGracePeriodSeconds", 30) < needed + ADDED:
                yield pod.name, f"terminationGracePeriodSeconds must be at least {needed + ADDED:g}"


CHECKS: tuple[Check, ...] = (
    pods_are_schema_valid, selectors_select, peers_are_named, ports_exist, references_resolve, settings_are_known,
    images_are_pinned, pods_are_restricted, requests_survive,
)  # fmt: skip


def components() -> list[str]:
    """Every component, by its path below components/."""
    return sorted(
        str(path.parent.relative_to(HOME / "components")) for path in HOME.glob("components/**/kustomization.yaml")
    )


def main(folders: Sequence[str]) -> int:
    """Check these overlays, or everything; returns how many problems there are."""
    rendered: list[tuple[str, Callable[[], list[Manifest]]]] = [
        (folder, lambda folder=folder: render(Path(folder)))  # type: ignore[misc]
        for folder in folders or sorted(str(path) for path in HOME.glob("overlays/*") if path.is_dir())
    ]
    if not folders:
        rendered += [(f"base + {name}", lambda name=name: render_component(name)) for name in components()]  # type: ignore[misc]
    count = 0
    for what, make in rendered:
        try:
            found = problems(make())
        except ValueError as error:
            found = [str(error)]
        print(f"{what}: {'as it should be' if not found else f'{len(found)} problems'}")
        for problem in found:
            print(f"  {problem}")
        count += len(found)
    return count


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
