"""What the store of changes and events needs: a secret, a way to it, keys, and that all pods share it."""

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import environment, image_of, of_kind, selected
from service.settings import Settings

STORE, CATALOGUE_KEY, ADMIN_KEY = "VITRINE_STORE", "VITRINE_CATALOGUE_KEY", "VITRINE_ADMIN_KEY"
SECRET = (STORE, CATALOGUE_KEY, ADMIN_KEY, "VITRINE_API_KEY", "VITRINE_API_KEYS", "VITRINE_USER_KEY")
POSTGRESQL = 5432
STARTING = 20  # seconds, beside those in which the store is waited for: a million items take 15


def secrets_are_secret(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """What opens something stands in no deployment and in no config map, which everybody may read who reads pods."""
    for pod, container in _of_service(pods):
        said = environment(container, manifests)
        for name in SECRET:
            if said.get(name) is not None and not (name == STORE and _is_file(said[name])):
                yield pod.name, f"{name} stands in the manifest for all to read: it belongs in a Secret"


def keys_and_store_go_together(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Without its keys nobody can change an item or forget a user; without a store there is nothing to change."""
    for pod, container in _of_service(pods):
        said = environment(container, manifests)
        if STORE in said:
            for name, what in ((CATALOGUE_KEY, "changes an item"), (ADMIN_KEY, "forgets a user")):
                if name not in said:
                    yield pod.name, f"{STORE} without {name}: nobody {what}"
        elif CATALOGUE_KEY in said:
            yield pod.name, f"{CATALOGUE_KEY} without {STORE}: what it opens keeps nothing"


def pods_share_their_store(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A file is one pod's own, and lost with it where it lies on no claim."""
    for pod, container in _of_service(pods):
        url = _store(container, manifests)
        if url is None or not _is_file(url):
            continue
        if _is_scaled(pod, manifests):
            yield pod.name, f"{STORE} is a file, and there is more than one pod: they would not share what they keep"
        path = url.partition("://")[2].removeprefix("/") or url
        if not any(path.startswith(f"{mounted}/") for mounted in _claimed(pod, container)):
            yield pod.name, f"{STORE} is a file that lies on no PersistentVolumeClaim: it is gone with its pod"


def store_can_be_reached(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """The network policy leads to PostgreSQL where there is a store, and only there; a name without a dot is a
    service of the same namespace; whoever waits for it at start has the time to."""
    services = {each["metadata"]["name"] for each in of_kind(manifests, "Service")}
    for pod, container in _of_service(pods):
        said, url = environment(container, manifests), _store(container, manifests)
        asked = STORE in said and not (url is not None and _is_file(url))
        if asked and not _leads_to_postgresql(pod, pods, manifests):
            yield pod.name, f"no NetworkPolicy lets it out to port {POSTGRESQL}: {STORE} cannot be reached"
        if not asked and _leads_to_postgresql(pod, pods, manifests):
            yield pod.name, f"it may go out to port {POSTGRESQL}, and has no {STORE} there"
        host = None if url is None or not asked else urlsplit(url).hostname
        if host is not None and "." not in host and host not in services:
            yield pod.name, f"{STORE} names the host {host}: there is no such service here"
        probe = container.get("startupProbe", {})
        waits = float(said.get("VITRINE_STORE_WAIT") or Settings.model_fields["store_wait"].default)
        if asked and probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) < waits + STARTING:
            yield pod.name, f"startupProbe must wait {waits + STARTING:g} s: VITRINE_STORE_WAIT is {waits:g}"


def _of_service(pods: list[Pod]) -> Iterator[tuple[Pod, dict[str, Any]]]:
    return (
        (pod, container)
        for pod in pods
        for container in pod.spec["containers"]
        if image_of(container)[0] == "vitrine" and container.get("ports")
    )


def _is_file(url: str) -> bool:
    """As `VITRINE_STORE` is read: a path, or sqlite:///FILE."""
    return "://" not in url or url.startswith("sqlite")


def _store(container: dict[str, Any], manifests: list[Manifest]) -> str | None:
    """The URL, where it is said here: in the manifest, or in a secret that was rendered as well."""
    said = environment(container, manifests).get(STORE)
    if said is not None:
        return str(said)
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {}).get("secretKeyRef") if variable["name"] == STORE else None
        for each in of_kind(manifests, "Secret") if source else ():
            if each["metadata"]["name"] == source["name"] and source["key"] in each.get("data", {}):
                return base64.b64decode(each["data"][source["key"]]).decode()
    return None


def _is_scaled(pod: Pod, manifests: list[Manifest]) -> bool:
    kind, _, name = pod.name.partition("/")
    for each in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        if each["spec"]["scaleTargetRef"]["name"] == name:
            return True
    made = next((each for each in manifests if name_of(each) == pod.name), {"spec": {}})
    return bool(kind == "InferenceService" or made["spec"].get("replicas", 1) > 1)


def _claimed(pod: Pod, container: dict[str, Any]) -> Iterator[str]:
    """Where it has volumes that outlive it."""
    kept = {volume["name"] for volume in pod.spec.get("volumes", []) if "persistentVolumeClaim" in volume}
    return (mount["mountPath"] for mount in container.get("volumeMounts", []) if mount["name"] in kept)


def _leads_to_postgresql(pod: Pod, pods: list[Pod], manifests: list[Manifest]) -> bool:
    policies = (p for p in of_kind(manifests, "NetworkPolicy") if pod in selected(pods, p["spec"]["podSelector"]))
    rules = (rule for each in policies for rule in each["spec"].get("egress", []))
    return any(port.get("port") in (POSTGRESQL, "postgresql") for rule in rules for port in rule.get("ports", []))
