"""What the rules look at manifests with."""

from collections.abc import Iterator, Sequence
from typing import Any

from k8s.rendered import Manifest, Pod


def selected(pods: Sequence[Pod], selector: dict[str, Any]) -> list[Pod]:
    wanted = selector.get("matchLabels", {})
    return [pod for pod in pods if wanted and wanted.items() <= pod.labels.items()]


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (each for each in manifests if each["kind"] in kinds)


def environment(container: dict[str, Any], manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Its variables; None for a value that stands in a secret or in the pod."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in of_kind(manifests, "ConfigMap")}
    said: dict[str, Any] = {}
    for source in container.get("envFrom", []):
        said |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return said | {each["name"]: each.get("value") for each in container.get("env", [])}


def image_of(container: dict[str, Any]) -> tuple[str, str, str]:
    """Short name, tag, digest."""
    rest, _, digest = container["image"].partition("@")
    path, _, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    short = path.rpartition("/")[2]
    return ("triton" if short == "tritonserver" else short), tag, digest
