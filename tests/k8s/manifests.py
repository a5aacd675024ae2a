"""Parts of rendered manifests, by their names."""

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from k8s import check

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


def labels(manifests: Manifests) -> dict[str, Any]:
    """Of the service's pods."""
    return one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]


def variable(manifests: Manifests, name: str) -> dict[str, Any]:
    """One of the service's environment."""
    return next(each for each in container(manifests)["env"] if each["name"] == name)


def unset(manifests: Manifests, name: str) -> None:
    """Take it out of the service's environment."""
    container(manifests)["env"].remove(variable(manifests, name))


def keep_in(manifests: Manifests, url: str) -> None:
    """Have the store be this one, said in the manifest itself."""
    unset(manifests, "VITRINE_STORE")
    container(manifests)["env"].append({"name": "VITRINE_STORE", "value": url})


def without(held: dict[str, Any], key: str) -> None:
    """Take it out."""
    del held[key]


def require_found(manifests: Manifests, mutate: Callable[[Manifests], object], said: str) -> None:
    """A copy that was changed has a problem that says this."""
    mutated = copy.deepcopy(manifests)
    mutate(mutated)
    found = check.problems(mutated)
    assert any(said in problem for problem in found), found
