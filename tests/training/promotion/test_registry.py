"""The registry: one number, one whole release, wherever it is fetched."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import RegistryError, ReleaseDamaged, ReleaseTooNew
from service.files import digest
from service.recommender.release import MANIFEST, Manifest, Release
from tests.processes import HOME
from tests.shop import Shop
from training.pipeline import train
from training.promotion import alias_moves
from training.promotion.registry import TRAINING, Registry, local

RESERVE = "import sys; from pathlib import Path; from training.promotion.registry import local; "


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
    assert run.data.metrics["ranking/ndcg_at_10"] == pytest.approx(manifest.metrics["ranking"]["ndcg_at_10"])
    assert run.data.tags["vitrine.data"] == manifest.data["fingerprint"]
    assert run.data.tags["vitrine.vitrine"] == manifest.code["vitrine"]
    assert run.info.status == "FINISHED"
    paths = {file.path for file in registry.mlflow_client.list_artifacts(one.run_id, "release")}
    assert {"release/manifest.json", "release/items.parquet", "release/report"} <= paths
    # what MLflow's own pages show first: a line about it, its report, how long it took
    assert run.data.tags["mlflow.note.content"].startswith(f"Release 1: {manifest.rows['interactions']} interactions")
    assert "report.html" in {file.path for file in registry.mlflow_client.list_artifacts(one.run_id)}
    assert run.info.end_time - run.info.start_time > 500


def test_a_release_with_pictures_brings_its_learning_curve_and_samples(release_folder: Path, tmp_path: Path) -> None:
    """A point for each epoch; a strip of pictures for each golden photo."""
    registry = local(tmp_path)
    assert registry.reserve(tmp_path) == 1
    one = registry.add(Path(shutil.copytree(release_folder, tmp_path / "1")))
    losses = registry.mlflow_client.get_metric_history(one.run_id, "encoder/loss")
    assert [point.step for point in losses] == [1, 2, 3, 4]
    assert losses[0].value > losses[-1].value
    samples = [file.path for file in registry.mlflow_client.list_artifacts(one.run_id, "samples")]
    assert "samples/golden-0.jpg" in samples


@pytest.mark.slow
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
    for number, name, change, says in (
        (1, "items.parquet", b"changed", "changed: items.parquet"),
        (2, MANIFEST, b"{}", "its manifest is another"),
    ):
        [stored] = Path(shop.releases / ".registry" / "artefacts").rglob(f"*{registry.get(number).run_id}*/**/{name}")
        stored.write_bytes(change)
        with pytest.raises(ReleaseDamaged, match=says):
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
    with pytest.raises(ReleaseTooNew, match="format version 99"):
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


def vitrine(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """The command line, to its end."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(
        command, cwd=HOME, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("name", ["with blanks", "100%", "%41 a?b=c", "a#b;c&wäsche"])
def test_a_registry_works_under_any_name_of_a_folder(release_folder: Path, tmp_path: Path, name: str) -> None:
    """Its file and its artefacts lie where the folder says, whatever an address would make of the letters."""
    releases = tmp_path / name / "releases"
    registry = local(releases)
    number = registry.reserve(releases)
    registry.add(Path(shutil.copytree(release_folder, releases / "1")))
    alias_moves.promote(registry, number, "production", why="w", who="x")
    assert (releases / ".registry" / "mlflow.db").stat().st_size > 100_000
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not list(Path.cwd().glob("file:*"))
    again = local(releases, begin=False)
    assert again.aliases() == {"production": 1}
    assert again.fetch(1, tmp_path / name / "elsewhere").name == "1"


def test_releases_that_were_moved_go_on_where_they_are(shop: Shop, tmp_path: Path) -> None:
    """MLflow keeps whole addresses of artefacts; a registry that was moved or copied has its own beside it."""
    moved = Path(shutil.move(shop.releases, tmp_path / "moved"))
    found = vitrine("pull", 2, "--releases", moved)
    assert found.returncode == 0
    shutil.rmtree(moved / "2")
    fetched = vitrine("pull", 2, "--releases", moved)
    assert fetched.returncode == 0, fetched.stderr
    assert "it was at" in fetched.stderr
    assert digest(moved / "2" / MANIFEST) == local(moved).get(2).manifest
    (tmp_path / "2.html").write_text("the gate's page")
    script = RESERVE + "local(Path(sys.argv[1])).add_pages(2, [Path(sys.argv[2])], 'gate')"
    subprocess.run([sys.executable, "-c", script, str(moved), str(tmp_path / "2.html")], cwd=HOME, check=True)
    kept = moved / ".registry" / "artefacts" / TRAINING / local(moved).get(2).run_id / "artifacts" / "gate"
    assert [path.name for path in kept.iterdir()] == ["2.html"]
    assert not shop.releases.exists()


def test_reading_verbs_load_no_mlflow_and_write_nothing(shop: Shop) -> None:
    """status and history, of a registry that nobody may write to: no import of seconds, no lock, no new file."""
    alias_moves.promote(local(shop.releases), 2, "production", why="spring", who="ann@laptop")
    place = shop.releases / ".registry"
    (place / "mlflow.db.lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    script = (
        "import runpy, sys\nsys.argv = ['vitrine', *sys.argv[1:]]\n"
        "try: runpy.run_module('training', run_name='__main__')\n"
        "finally: print([name for name in ('mlflow', 'torch', 'pandas') if name in sys.modules])"
    )
    for verb, said in (("status", "2"), ("history", "ann@laptop")):
        command = [sys.executable, "-c", script, verb, "--releases", str(shop.releases)]
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
        assert said in done.stdout
        assert done.stdout.splitlines()[-1] == "[]"
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_registry_that_cannot_be_asked_is_said_in_one_line(shop: Shop, tmp_path: Path) -> None:
    """Locked, gone, no database, no server, no MLflow there: within seconds, with where it was looked for."""
    database = shop.releases / ".registry" / "mlflow.db"
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    (tmp_path / "text.db").write_text("no database" * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE notes (text)")
    nowhere = "http://127.0.0.1:9"
    for verb, uri, says in (
        ("status", None, f"{database} cannot be read: database is locked"),
        ("status", f"sqlite:///{tmp_path}/gone/a.db", f"no registry at {tmp_path}/gone/a.db"),
        ("history", f"sqlite:///{tmp_path}/text.db", "text.db cannot be read: file is not a database"),
        ("history", f"sqlite:///{tmp_path}/other.db", "other.db cannot be read: no such table"),
        ("history", nowhere, f"{nowhere} does not answer"),
        ("history", "ftp://there", "expected http(s)://, sqlite:///"),
    ):
        began = time.monotonic()
        done = vitrine(verb, "--releases", shop.releases, **({"MLFLOW_TRACKING_URI": uri} if uri else {}))
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert time.monotonic() - began < 30
    holder.close()


@pytest.mark.slow
def test_a_server_and_its_tables_tell_the_same(shop: Shop, tmp_path: Path) -> None:
    """By REST and by SQL: versions, aliases, and moves."""
    from tests.processes import mlflow

    with mlflow(tmp_path / "server") as uri:
        asked = Registry(uri)
        for number in ("1", "2"):
            folder = tmp_path / "packager"
            assert asked.reserve(folder) == int(number)
            asked.add(Path(shutil.copytree(shop.releases / number, folder / number)))
        alias_moves.promote(asked, 1, "production", why="w", who="x")
        alias_moves.promote(asked, 2, "production", why="v", who="y")
        tables = Registry(f"sqlite:///{tmp_path}/server/mlflow.db", begin=False)
        assert tables.releases() == asked.releases()
        assert tables.aliases() == asked.aliases() == {"production": 2}
        assert alias_moves.history(tables) == alias_moves.history(asked)
        assert [move.why for move in alias_moves.history(asked)] == ["w", "v"]
