"""Each thing that could be wrong with what keeps changes and events is found."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s import check, rendered
from tests.k8s.manifests import (
    Manifests,
    container,
    keep_in,
    needs_kubectl,
    one,
    require_found,
    unset,
    variable,
    without,
)
from tests.processes import HOME

pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def dev() -> Manifests:
    """The service, its store and Triton."""
    return rendered.render(HOME / "k8s" / "overlays" / "dev")


STORED: dict[str, tuple[Callable[[Manifests], object], str]] = {
    "a password for all to read": (
        lambda m: keep_in(m, "postgresql://vitrine:secret@postgres-dev/vitrine"), "VITRINE_STORE stands in the"),
    "a key for all to read": (
        lambda m: variable(m, "VITRINE_ADMIN_KEY").update(value="known-to-all"), "VITRINE_ADMIN_KEY stands in the"),
    "a store whose secret nobody makes": (
        lambda m: variable(m, "VITRINE_STORE")["valueFrom"]["secretKeyRef"].update(name="x"), "Secret x is not there"),
    "a store whose secret has another key": (
        lambda m: variable(m, "VITRINE_STORE")["valueFrom"]["secretKeyRef"].update(key="url"), "no key 'url'"),
    "a store that nobody may change": (lambda m: unset(m, "VITRINE_CATALOGUE_KEY"), "nobody changes an item"),
    "a store that forgets nobody": (lambda m: unset(m, "VITRINE_ADMIN_KEY"), "nobody forgets a user"),
    "a key for a store that is not there": (lambda m: unset(m, "VITRINE_STORE"), "what it opens keeps nothing"),
    "a way out to a store that is not there": (lambda m: unset(m, "VITRINE_STORE"), "it may go out to port 5432"),
    "no way to the store": (
        lambda m: [one(m, "NetworkPolicy")["spec"]["egress"].pop() for _ in range(2)], "out to port 5432"),
    "a store that lets nobody in": (
        lambda m: one(m, "NetworkPolicy", "postgres-dev")["spec"]["ingress"][0].update(ports=[{"port": "web"}]),
        "ingress to port 'web'"),
    "a host of the store that is none": (
        lambda m: keep_in(m, "postgresql://vitrine@postgres/vitrine"), "names the host postgres: there is no such"),
    "a file that pods would not share": (
        lambda m: keep_in(m, "sqlite:////models/store.db") or one(m, "Deployment")["spec"].update(replicas=3),
        "they would not share"),
    "a file that goes with its pod": (lambda m: keep_in(m, "/tmp/store.db"), "gone with its pod"),
    "no time to wait for the store": (
        lambda m: one(m, "ConfigMap")["data"].update(VITRINE_STORE_WAIT="110"), "startupProbe must wait 130 s"),
    "a database that nothing probes": (
        lambda m: without(one(m, "StatefulSet", "postgres-dev")["spec"]["template"]["spec"]["containers"][0],
                          "livenessProbe"), "postgres has no livenessProbe"),
    "a service that is probed by a command": (
        lambda m: container(m).update(livenessProbe={"exec": {"command": ["true"]}}), "no livenessProbe over HTTP"),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_what_is_wrong_with_the_store_is_found(dev: Manifests, name: str) -> None:
    """The same for what keeps changes and events."""
    require_found(dev, *STORED[name])


def test_one_pod_may_keep_a_file_on_a_claim(dev: Manifests) -> None:
    """It needs no way to a database; an autoscaler beside it is refused."""
    alone = copy.deepcopy(dev)
    keep_in(alone, "sqlite:////models/store.db")
    del one(alone, "NetworkPolicy")["spec"]["egress"][-2:]
    assert check.problems(alone) == []
    scaled = next(m for m in rendered.render_component("hpa") if m["kind"] == "HorizontalPodAutoscaler")
    require_found([*alone, scaled], lambda m: None, "they would not share")


def test_the_store_of_an_operator_is_named_by_a_patch(tmp_path: Path) -> None:
    """As the component says: the Secret that CloudNativePG makes, in place of one that is made by hand."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    example = (HOME / "k8s" / "components" / "store" / "kustomization.yaml").read_text().split("patches:")
    said = "patches:\n" + "".join(f"{line.removeprefix('# ')}\n" for line in example[1].splitlines() if "#    " in line)
    overlay = tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("/monitoring\n", "/monitoring\n  - ../../components/store\n") + said)
    made = rendered.render(overlay.parent)
    assert variable(made, "VITRINE_STORE")["valueFrom"] == {"secretKeyRef": {"name": "shop-app", "key": "uri"}}
    assert check.problems(made) == ["Deployment/vitrine: Secret shop-app is not there"]
