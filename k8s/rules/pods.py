"""What a pod may do, is made of, and is told."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import environment, image_of, of_kind
from service.settings import Settings


def settings_are_known(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Every variable that begins with VITRINE_ is a setting, and its value is one that the setting takes."""
    for pod in pods:
        for container in pod.containers:
            if image_of(container)[0] != "vitrine":
                continue
            said = environment(container, manifests)
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
            _, tag, digest = image_of(container)
            if not digest and tag in ("", "latest"):
                yield pod.name, f"image {container['image']} has neither a tag, other than latest, nor a digest"
            if digest and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
                yield pod.name, f"image {container['image']}: {digest} is no digest"


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


def tls_is_everywhere(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Probes speak what the port speaks."""
    for pod in pods:
        for container in pod.spec["containers"]:
            if image_of(container)[0] != "vitrine" or not container.get("ports"):
                continue
            said = environment(container, manifests)
            scheme = "HTTPS" if "VITRINE_TLS_CERTIFICATE" in said else "HTTP"
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if container.get(kind, {}).get("httpGet", {}).get("scheme", "HTTP") != scheme:
                    yield pod.name, f"{kind} must ask by {scheme}"
            if (
                said.get("VITRINE_ALLOW_ANONYMOUS") != "true"
                and not {"VITRINE_API_KEY", "VITRINE_API_KEYS"} & said.keys()
            ):
                yield pod.name, "neither VITRINE_ALLOW_ANONYMOUS nor an API key: the service refuses to start"


def jobs_are_named_by_release(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A Job cannot be changed: the next release's needs another name."""
    for each in of_kind(manifests, "Job"):
        if not re.search(r"-[0-9]+$", each["metadata"]["name"]):
            yield name_of(each), "a Job cannot be changed: its name must end in the number of the release"


def cron_jobs_end(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """One after another, each within a time."""
    for each in of_kind(manifests, "CronJob"):
        spec = each["spec"]
        if spec.get("concurrencyPolicy") != "Forbid":
            yield name_of(each), "concurrencyPolicy must be Forbid: two trainings would write the same folder"
        if "activeDeadlineSeconds" not in spec["jobTemplate"]["spec"]:
            yield name_of(each), "activeDeadlineSeconds must be set: one that hangs keeps all later ones away"


def retrains_name_an_alias(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """What a retrained release is proposed as."""
    for pod in pods:
        for container in pod.containers:
            to = environment(container, manifests).get("RETRAIN_TO")
            if to is not None and to not in ("staging", "canary", "production"):
                yield pod.name, f"RETRAIN_TO={to} is no alias: staging, canary or production"
