"""Parts of rendered manifests, by their names."""

import shutil
from typing import Any

import pytest

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="renders with kubectl, which is not here")
Manifests = list[dict[str, Any]]


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
