"""The Job that answers every user: each thing that could be wrong with it is found, and each release gets its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s import check, rendered
from tests.k8s.manifests import Manifests, needs_kubectl, one, require_found
from tests.processes import HOME
from training.promotion import overlays
from training.promotion.overlays import Image

pytestmark = needs_kubectl

RENAMED = (
    "patches:\n  - target: {kind: Job, name: recommend-all-1}\n    patch: |-\n      - op: replace\n"
    "        path: /metadata/name\n        value: recommend-all-1\n"
)


@pytest.fixture(scope="module")
def made() -> Manifests:
    """The base with the component."""
    return rendered.render_component("batch")


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """An overlay that a test may change."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    return tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"


def job(manifests: Manifests) -> dict[str, Any]:
    """What answers every user."""
    return one(manifests, "Job", "recommend-all")


def batch(manifests: Manifests) -> dict[str, Any]:
    """Its pod."""
    return job(manifests)["spec"]["template"]["spec"]


def answering(manifests: Manifests) -> dict[str, Any]:
    """The container of that."""
    return batch(manifests)["containers"][0]


WRONG: dict[str, tuple[Callable[[Manifests], object], str]] = {
    "one for every release": (lambda m: job(m)["metadata"].update(name="recommend-all"), "number of the release"),
    "an option that is none": (lambda m: answering(m)["args"].append("--to"), "unrecognized arguments: --to"),
    "a value that an option does not take": (lambda m: answering(m)["args"].extend(["-k", "many"]), "invalid int"),
    "nowhere to write to": (lambda m: answering(m).update(args=["-k", "5"]), "arguments are required: --out"),
    "answers that go with their pod": (
        lambda m: answering(m).update(args=["--out", "/tmp/all.parquet"]), "must lie on a claim"),
    "a disk of the pod in place of a claim": (
        lambda m: batch(m)["volumes"][0].pop("persistentVolumeClaim") and
        batch(m)["volumes"][0].update(emptyDir={"sizeLimit": "5Gi"}), "must lie on a claim"),
    "a claim that is not there": (
        lambda m: m.remove(one(m, "PersistentVolumeClaim", "recommendations")), "recommendations is not there"),
    "answers of another release": (
        lambda m: answering(m).update(image="vitrine:2"), "it answers from the release of vitrine:2"),
    "answers under other keys": (lambda m: answering(m)["env"].pop(1), "no user is known else"),
    "one that a drained node fails": (
        lambda m: job(m)["spec"]["podFailurePolicy"]["rules"].pop(0), "must ignore DisruptionTarget"),
    "one that may ask everybody": (
        lambda m: one(m, "NetworkPolicy", "recommend-all")["spec"].update(policyTypes=["Ingress"]), "stays open"),
    "root": (lambda m: batch(m)["securityContext"].update(runAsUser=0), "other than 0"),
    "a setting that is none": (
        lambda m: answering(m)["env"].append({"name": "VITRINE_USERS", "value": "all"}), "no setting"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(made: Manifests, name: str) -> None:
    """One thing is changed; the check says so."""
    require_found(made, *WRONG[name])


def test_each_release_gets_a_job_of_its_own(staging: Path) -> None:
    """A promotion writes its number into the name, and its image is the one that serves."""
    staging.write_text(staging.read_text().replace("/monitoring\n", "/batch\n") + RENAMED)
    image = Image.parse(f"example.com/shop/vitrine:7-1a2b3c4d@sha256:{'a1' * 32}")
    overlays.write(staging, 7, image)
    made = rendered.render(staging.parent)
    assert check.problems(made) == []
    assert job(made)["metadata"]["name"] == "recommend-all-7"
    assert answering(made)["image"] == str(image)


def test_it_answers_from_where_the_service_does(staging: Path) -> None:
    """A release that is pulled is not the one in the image; one that is mounted from the image is."""
    text = staging.read_text()
    both = "/batch\n  - ../../components/release-volume/"
    staging.write_text(text.replace("/monitoring\n", f"{both}pull\n"))
    [problem] = check.problems(rendered.render(staging.parent))
    assert "and the service from that of /release/current" in problem
    code = '  - name: vitrine-code\n    newName: example.com/shop/vitrine\n    newTag: "3"\n'
    staging.write_text(text.replace("/monitoring\n", f"{both}image\n").replace("images:\n", f"images:\n{code}"))
    assert check.problems(rendered.render(staging.parent)) == []
