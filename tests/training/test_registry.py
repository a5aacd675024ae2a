"""The registry: one number, one whole release, wherever it is fetched."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import RegistryError, ReleaseDamaged, ReleaseTooNew
from service.release import MANIFEST, Manifest, Release, digest
from tests.processes import HOME
from tests.shop import Shop
from training.registry import TRAINING, local
from training.train import train

RESERVE = "import sys; from pathlib import Path; from training.registry import local; "


def test_a_release_is_a_registered_version_with_all_that_made_it(trained_shop: Shop) -> None:
    """Its number, parameters, figures, the digest of its data, the code, and the release itself among the artefacts."""
    registry = local(trained_shop.releases)
    assert [each.number for each in registry.releases()] == [1, 2, 3]
    one = registry.get(1)
    manifest = Manifest.read(trained_shop.releases / "1")
    assert manifest.release == 1
    assert one.manifest == digest(trained_shop.releases / "1" / MANIFEST)
    run = registry.mlflow_client.get_run(one.run_id)
    assert run.data.params["ranker.factors"] == "8"
    assert run.data.metrics["ranking.ndcg_at_10"] == pytest.approx(manifest.metrics["ranking"]["ndcg_at_10"])
    assert run.data.tags["vitrine.data"] == manifest.data["fingerprint"]
    assert run.data.tags["vitrine.vitrine"] == manifest.code["vitrine"]
    assert run.info.status == "FINISHED"
    paths = {file.path for file in registry.mlflow_client.list_artifacts(one.run_id, "release")}
    assert {"release/manifest.json", "release/items.parquet", "release/report"} <= paths


def test_a_release_with_pictures_brings_its_learning_curve_and_samples(release_folder: Path, tmp_path: Path) -> None:
    """A point for each epoch; a strip of pictures for each golden photo."""
    registry = local(tmp_path)
    assert registry.reserve(tmp_path) == 1
    one = registry.add(Path(shutil.copytree(release_folder, tmp_path / "1")))
    losses = registry.mlflow_client.get_metric_history(one.run_id, "encoder.loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert losses[0].value > losses[-1].value
    samples = [file.path for file in registry.mlflow_client.list_artifacts(one.run_id, "samples")]
    assert "samples/golden-0.jpg" in samples


def test_two_packagings_at_once_never_get_one_number(tmp_path: Path) -> None:
    """Four processes take five numbers each, of a registry that none of them has seen before."""
    script = RESERVE + "r = local(Path(sys.argv[1])); print(*[r.reserve(Path(sys.argv[1])) for _ in range(5)])"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: subprocess.run(command, cwd=HOME, capture_output=True, text=True), range(4)))
    assert [each.returncode for each in done] == [0] * 4, done
    numbers = [int(number) for each in done for number in each.stdout.split()]
    assert len(set(numbers)) == 20


def test_a_number_that_a_release_has_is_passed_over(tmp_path: Path) -> None:
    """It was made before there was a registry."""
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
    assert local(tmp_path).reserve(tmp_path) == 3


def test_a_release_is_fetched_and_verified_on_arrival(shop: Shop, tmp_path: Path) -> None:
    """Into a folder that has never seen it; what is there already is compared with what the registry holds."""
    registry = local(shop.releases)
    elsewhere = tmp_path / "elsewhere"
    path = registry.fetch(2, elsewhere)
    assert path == elsewhere / "2"
    assert Release.open(path).number == "2"
    assert digest(path / MANIFEST) == digest(shop.releases / "2" / MANIFEST)
    assert registry.fetch(2, elsewhere) == path
    with pytest.raises(RegistryError, match="no release 9; it holds 1, 2, 3"):
        registry.fetch(9, elsewhere)


def test_what_was_changed_on_its_way_does_not_arrive(shop: Shop, tmp_path: Path) -> None:
    """A changed part, a changed manifest, a format of tomorrow: refused, and nothing is left behind."""
    registry = local(shop.releases)
    for number, name, change, error in (
        (1, "items.parquet", b"changed", ReleaseDamaged),
        (2, MANIFEST, b"{}", ReleaseDamaged),
    ):
        [stored] = Path(shop.releases / ".registry" / "artefacts").rglob(f"*{registry.get(number).run_id}*/**/{name}")
        stored.write_bytes(change)
        with pytest.raises(error):
            registry.fetch(number, tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == []
    other = shop.releases / "2"
    shutil.rmtree(other)
    shutil.copytree(shop.releases / "1", other)  # another release in the place of 2
    with pytest.raises(ReleaseDamaged, match="its manifest is another"):
        registry.fetch(2, shop.releases)


def test_a_release_of_a_later_format_is_not_registered(shop: Shop) -> None:
    """What this code cannot read it does not promote either."""
    manifest = shop.releases / "1" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ReleaseTooNew):
        local(shop.releases).add(shop.releases / "1")


def test_a_packaging_that_was_killed_is_completed_or_forgotten(shop: Shop) -> None:
    """With its release written, the next command registers it; without, its number stays unused."""
    script = (
        RESERVE
        + "import os; print(local(Path(sys.argv[1])).reserve(Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(shop.releases)]
    for expected in (4, 5):
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL
        assert int(done.stdout) == expected
    finished = Path(shutil.copytree(shop.releases / "1", shop.releases / "5"))
    manifest = Manifest.read(finished)
    (finished / MANIFEST).write_text((finished / MANIFEST).read_text().replace('"release": 1', '"release": 5'))
    (shop.releases / ".writing-4").mkdir()
    registry = local(shop.releases)
    assert [each.number for each in registry.releases()] == [1, 2, 3]
    registry.reconcile(shop.releases)
    assert manifest.release == 1
    assert [each.number for each in registry.releases()] == [1, 2, 3, 5]
    assert not (shop.releases / ".writing-4").exists()
    assert registry.reserve(shop.releases) == 6
    states = registry.mlflow_client.search_runs([registry.experiment(TRAINING)], "attributes.status = 'KILLED'")
    assert len(states) == 1


def test_a_number_under_way_is_left_alone(shop: Shop) -> None:
    """Its process lives: this one."""
    registry = local(shop.releases)
    number = registry.reserve(shop.releases)
    registry.reconcile(shop.releases)
    assert (
        registry.mlflow_client.get_model_version("vitrine", str(number))
        .tags["vitrine.pid"]
        .startswith(f"{os.getpid()}.")
    )


def test_training_again_gives_the_same_release_and_number(shop: Shop, trained_shop: Shop) -> None:
    """Nothing changed: nothing is made, nothing registered."""
    registry = local(trained_shop.releases)
    assert train(trained_shop.options(), registry) == trained_shop.releases / "2"
    assert [each.number for each in registry.releases()] == [1, 2, 3]
