"""The overlays are as they should be, also after a promotion has written into them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from k8s import check, rendered
from tests.k8s.manifests import container, needs_kubectl, one, pod
from tests.processes import HOME
from training.promotion import overlays
from training.promotion.overlays import Image

pytestmark = needs_kubectl


def test_every_overlay_and_component_is_as_it_should_be() -> None:
    """`make check-k8s` ends with 0, and names each of them."""
    done = subprocess.run([sys.executable, "-m", "k8s.check"], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (*rendered.components(), "dev", "staging", "production"):
        assert f"{name}: as it should be" in done.stdout


def test_production_with_its_canary_is_as_it_should_be(tmp_path: Path) -> None:
    """`vitrine promote --to canary` takes the lines in that are marked `# canary: `: repository, tag and digest are
    those that were promoted; and out again."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production"
    text = (overlay / "kustomization.yaml").read_text()
    image = Image.parse(f"registry.example:5000/shop/vitrine:2-1a2b3c4d@sha256:{'a1' * 32}")
    overlays.write_candidate(overlay / "kustomization.yaml", image)
    made = rendered.render(overlay)
    assert check.problems(made) == []
    assert pod(made)["initContainers"][0]["image"] == str(image)
    assert one(made, "ConfigMap")["data"]["VITRINE_CANDIDATE_MODE"] == "canary"
    overlays.write_candidate(overlay / "kustomization.yaml", None)
    back = (overlay / "kustomization.yaml").read_text()
    assert back == text.replace(
        'example.com/shop/vitrine\n  # canary:   newTag: "2"',
        (f'{image.name}\n  # canary:   newTag: "{image.tag}@{image.digest}"'),
    )
    assert "initContainers" not in pod(rendered.render(overlay))


def test_one_line_moves_a_release_on_a_volume(tmp_path: Path) -> None:
    """The line of the image `vitrine` names what is mounted, and the code stays; a number of its own names what is
    pulled, and the Job that builds its plan."""
    shutil.copytree(HOME / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"
    text = overlay.read_text()
    code = '  - name: vitrine-code\n    newName: example.com/shop/vitrine\n    newTag: "3"\n'
    overlay.write_text(
        text.replace("/monitoring\n", "/release-volume/image\n").replace("images:\n", f"images:\n{code}")
    )
    image = Image.parse(f"example.com/shop/vitrine:7-1a2b3c4d@sha256:{'a1' * 32}")
    overlays.write(overlay, 7, image)
    made = rendered.render(overlay.parent)
    assert [volume["image"]["reference"] for volume in pod(made)["volumes"] if "image" in volume] == [str(image)]
    assert container(made)["image"] == "example.com/shop/vitrine:3"

    pulled = (
        "patches:\n  - target: {kind: ConfigMap, name: release-to-pull}\n    patch: |-\n      - op: replace\n"
        '        path: /data/RELEASE\n        value: "1"\n'
    )
    overlay.write_text(text.replace("/monitoring\n", "/release-volume/pull\n") + pulled)
    assert overlays.read(overlay) == 1
    overlays.write(overlay, 7)
    assert overlays.read(overlay) == 7
    made = rendered.render(overlay.parent)
    assert one(made, "ConfigMap", "release-to-pull")["data"]["RELEASE"] == "7"
    assert container(made)["image"] == "example.com/shop/vitrine:1"

    renamed = (
        "patches:\n  - target: {kind: Job, name: build-plan-1}\n    patch: |-\n      - op: replace\n"
        "        path: /metadata/name\n        value: build-plan-1\n"
    )
    with_plans = "/triton\n  - ../../components/gpu\n  - ../../components/tensorrt\n"
    overlay.write_text(text.replace("/monitoring\n", with_plans) + renamed)
    overlays.write(overlay, 7, image)
    assert one(rendered.render(overlay.parent), "Job", "build-plan")["metadata"]["name"] == "build-plan-7"


def test_a_folder_that_cannot_be_rendered_is_a_problem(tmp_path: Any) -> None:
    """It says what kustomize said."""
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    command = [sys.executable, "-m", "k8s.check", str(tmp_path)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing.yaml" in done.stdout
