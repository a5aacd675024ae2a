"""A team's month: releases trained, gated, promoted, tried, taken back, packed; and every command killed on its way."""

import json
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from service.files import digest
from service.recommender.release import MANIFEST, verify
from tests.processes import free_port, mlflow, serve, shadow_report, wait_until
from tests.shop import catalogues
from tests.team import QUICK, Team
from training.promotion import alias_moves
from training.promotion.registry import Registry, local
from training.triton import repository

pytestmark = pytest.mark.slow
# three epochs teach the encoder next to nothing, which differs each time
LIMITS = "[pictures]\nleast_share = 0.5\n[cost]\nmost_latency = 10\n[shadow]\nfewest = 50\nmost_latency = 10\n"
USER_KEY = "of this test alone"
OVERLAY = 'images:\n  - name: vitrine\n    newTag: "1"\n'


@pytest.fixture(scope="module")
def month(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The catalogue in the first month, today, and with a spoilt log."""
    return catalogues(boutique_folder, tmp_path_factory.mktemp("month"), pictures=True)


def test_a_teams_month(month: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Over a real MLflow server: what is promoted, tried, refused and taken back is what the history says."""
    first, today, spoilt = month
    moments: list[tuple[datetime, dict[str, int]]] = []

    def note(**live: int) -> None:
        time.sleep(0.02)
        moments.append((datetime.now(UTC), live))
        time.sleep(0.02)

    with mlflow(tmp_path / "mlflow") as uri:
        team = Team(tmp_path, MLFLOW_TRACKING_URI=uri)
        overlay = tmp_path / "kustomization.yaml"
        overlay.write_text(OVERLAY)
        limits = tmp_path / "limits.toml"
        limits.write_text(LIMITS)
        judged = ("--thresholds", limits)
        images = {
            number: ("--image", f"registry.example/vitrine:{number}-1a2b3c4d@sha256:{'a1' * 32}") for number in (1, 2)
        }
        note()
        assert team.run("train", first, *QUICK).strip().endswith("releases/1")
        team.run("promote", 1, "--to", "production", "--reason", "the first", "--catalogue", first, *judged, *images[1])
        note(production=1)

        team.run("train", today, *QUICK)
        verdict = json.loads(team.run("gate", 2, "--catalogue", today, "--json", *judged))
        assert verdict["passed"]
        assert verdict["against"] == 1
        team.run("promote", 2, "--to", "staging", "--reason", "a month more", *judged)
        note(production=1, staging=2)

        photos = sorted((today / "images").iterdir())
        tried = {"VITRINE_CANDIDATE": str(team.releases / "2"), "VITRINE_CANDIDATE_SHARE": "1"}
        with serve(team.releases / "1", tmp_path / "shadow", tried) as service:
            wait_until(lambda: service.http.get("/release").json()["candidate"]["state"] == "running", log=service.log)
            for number in range(60):
                sent = {"user_id": f"{number:05d}"}
                photo = {"image": photos[number].read_bytes()} if number % 2 else None
                assert service.http.post("/recommend", data=sent, files=photo).json()["release"] == "1"
            counted = 'vitrine_shadow_queries_total{outcome="answered"}'
            wait_until(lambda: service.metric(counted) == 60, log=service.log)
            seen = tmp_path / "shadow.json"
            done = shadow_report(service, seen, limits)
            assert done.returncode == 0, done.stdout + done.stderr
        team.run("promote", 2, "--to", "canary", "--reason", "it ranks alike", "--shadow-report", seen, *judged)
        note(production=1, staging=2, canary=2)

        canary = {**tried, "VITRINE_CANDIDATE_MODE": "canary", "VITRINE_CANDIDATE_SHARE": "0.1"}
        with serve(team.releases / "1", tmp_path / "canary", canary) as service:
            wait_until(lambda: service.http.get("/release").json()["candidate"]["state"] == "running", log=service.log)
            users = [f"{number:05d}" for number in range(300)]
            released = [service.http.post("/recommend", json={"user_id": user}).json()["release"] for user in users]
            assert 10 <= released.count("2") <= 55
            assert "2" not in {service.http.post("/recommend", json={}).json()["release"] for _ in range(20)}
            url = str(service.http.base_url)
            team.run("status", "--overlay", overlay, "--service", url)
            team.run(
                "promote",
                2,
                "--to",
                "production",
                "--reason",
                "a quiet week",
                "--write-overlay",
                overlay,
                *judged,
                *images[2],
            )
            assert '"2-1a2b3c4d@sha256:' in overlay.read_text()
            assert "drift" in team.run("status", "--overlay", overlay, "--service", url, code=1)
        note(production=2, staging=2, canary=2)

        team.run("train", spoilt, *QUICK)
        refused = team.run("gate", 3, "--catalogue", today, "--json", *judged, code=1)
        failed = {
            check["name"]
            for check in json.loads(refused[: refused.rindex("}") + 1])["checks"]
            if check["passed"] is False
        }
        assert {"warm.ndcg_at_10", "warm.recall_at_20"} <= failed
        said = team.run("promote", 3, "--to", "production", "--reason", "hurry", *judged, code=1)
        assert "warm.ndcg_at_10" in said

        tampered = shutil.copytree(team.releases / "3", tmp_path / "kept")
        (team.releases / "3" / "index.faiss").write_bytes(b"another index")
        for force in ((), ("--force",)):
            said = team.run("promote", 3, "--to", "production", "--reason", "hurry", *judged, *force, code=1)
            assert "changed: index.faiss" in said
        shutil.rmtree(team.releases / "3")
        team.run("pull", 3)  # as it was
        assert digest(team.releases / "3" / "index.faiss") == digest(Path(tampered) / "index.faiss")
        team.run("promote", 3, "--to", "staging", "--reason", "to look at it", "--force", *judged)
        note(production=2, staging=3, canary=2)

        team.run("rollback", "--reason", "complaints", "--write-overlay", overlay)
        assert '"1-1a2b3c4d@sha256:' in overlay.read_text()
        note(production=1, staging=3, canary=2)

        for moment, live in moments:
            rows = json.loads(team.run("history", "--as-of", moment.isoformat(), "--json"))
            assert {row["alias"]: row["release"] for row in rows} == live, moment
        rows = json.loads(team.run("history", "--json"))
        assert [row["kind"] for row in rows].count("rollback") == 1
        assert [row["release"] for row in rows if row["forced"]] == [3]
        other = Team(tmp_path / "another machine", MLFLOW_TRACKING_URI=uri)
        assert other.run("pull", 2).strip() == str(other.releases / "2")
        assert digest(other.releases / "2" / MANIFEST) == digest(team.releases / "2" / MANIFEST)
        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda at: Registry(uri).reserve(tmp_path / f"packager {at}"), range(4)))
        assert sorted(numbers) == [4, 5, 6, 7]
        team.run("diff", 1, 2, "--out", tmp_path / "diff.html")
        assert (tmp_path / "diff.html").read_text().count("data:image/jpeg;base64,") > 100


def test_a_command_that_is_killed_leaves_the_state_before_or_after(
    month: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """SIGKILL at twenty random moments of the work; then the same command again finishes the job."""
    _, today, _ = month
    team = Team(tmp_path, BENTOML_HOME=str(tmp_path / "bentoml"))
    models = tmp_path / "models"
    team.run("train", today, *QUICK, "--model-repository", models)
    team.run("promote", 1, "--to", "production", "--reason", "the first", "--catalogue", today)
    shutil.rmtree(team.releases / "1")
    team.run("pull", 1)
    team.run("bento", 1, "--out", tmp_path / "dist", "--default-user-key")
    team.run("history")
    team.took["rollback"] = team.took["history"]
    draw = random.Random(7)
    kills, turn = 0, 0
    while kills < 20:  # that came before the command's end
        assert turn < 10, kills
        trains = ["train", today, *QUICK, "--half-life", 30 + turn, "--model-repository", models]
        kills += strike(team, models, draw, trains)
        newest = max(each.number for each in local(team.releases).releases())
        for alias in ("staging", "production"):
            promotes = ["promote", newest, "--to", alias, "--reason", "better", "--catalogue", today, "--force"]
            kills += strike(team, models, draw, promotes)
        assert local(team.releases).aliases()["production"] == newest
        shutil.rmtree(team.releases / str(newest))
        kills += strike(team, models, draw, ["pull", newest])
        kills += strike(team, models, draw, ["bento", newest, "--out", tmp_path / "dist", "--default-user-key"])
        assert (tmp_path / "dist" / f"vitrine-{newest}.bento").exists()
        turn += 1
    before = alias_moves.before(alias_moves.history(local(team.releases)), "production")
    strike(team, models, draw, ["rollback", "--reason", "complaints"], again=False)
    assert local(team.releases).aliases()["production"] in (newest, before)


def strike(team: Team, models: Path, draw: random.Random, arguments: list, *, again: bool = True) -> int:
    """Kill it at a random moment past its imports, look, and run it to its end; whether the kill came in time."""
    killed = team.kill(*arguments, after=draw.uniform(0.3, 1) * team.took[arguments[0]])
    require_whole(team, models)
    if again:
        team.run(*arguments)
        require_whole(team, models, reconciled=True)
    return killed


def require_whole(team: Team, models: Path, *, reconciled: bool = False) -> None:
    """Every release is whole; every version that Triton sees is a release's encoder; every alias names a release that
    the registry holds whole, and the history ends with it."""
    for path in team.releases.glob("[0-9]*"):
        verify(path)
    for version in repository.versions(models / "encoder"):
        network = models / "encoder" / str(version) / "model.onnx"
        there = team.releases / str(version) / "encoder.onnx"
        assert not there.exists() or digest(network) == digest(there)
    registry = local(team.releases)
    held = {each.number: each for each in registry.releases()}
    for each in held.values():
        stored = Path(registry.mlflow_client.get_run(each.run_id).info.artifact_uri.removeprefix("file://")) / "release"
        assert digest(stored / MANIFEST) == each.manifest
        verify(stored)
    aliases = registry.aliases()
    assert set(aliases.values()) <= held.keys()
    if reconciled:
        assert {alias: move.release for alias, move in live(registry).items()} == aliases
        assert {int(path.name) for path in team.releases.glob("[0-9]*")} <= held.keys()


def live(registry: Registry) -> dict[str, alias_moves.Move]:
    """The last move of each alias."""
    moves = alias_moves.history(registry)
    return alias_moves.as_of(moves, datetime.now(UTC))


@pytest.fixture(scope="module")
def packed(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A team with release 1 in its registry, a user key of its own, and a store of BentoML's of its own."""
    folder = tmp_path_factory.mktemp("packed")
    team = Team(folder, BENTOML_HOME=str(folder / "bentoml"), VITRINE_USER_KEY=USER_KEY)
    team.run("train", boutique_folder, *QUICK)
    return team


def answered(port: int, photo: bytes) -> dict:
    """What a service on this port says of a photo, once it is ready."""

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, seconds=90)
    reply = httpx.post(f"http://127.0.0.1:{port}/recommend", files={"image": photo}, timeout=30)
    return reply.raise_for_status().json()


def test_a_bento_answers_on_a_machine_without_the_repository(packed: Team, tmp_path: Path, photo: bytes) -> None:
    """Imported into another store, in an environment made from its own lock, from another folder."""
    tag = json.loads(packed.run("bento", 1, "--out", packed.folder / "dist", "--json"))
    assert tag["tag"] == "vitrine:1"
    parts = json.loads((packed.folder / "dist" / "vitrine-1.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    assert {"bentoml", "faiss-cpu", "onnxruntime"} <= {part["name"] for part in parts["components"]}
    assert not {"torch", "mlflow", "pytest"} & {part["name"] for part in parts["components"]}
    lock = packed.folder / "bentoml" / "bentos" / "vitrine" / "1" / "env" / "python" / "requirements.txt"
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", clean], check=True)
    install = [clean / "bin" / "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", lock]
    subprocess.run(install, check=True)
    port = free_port()
    environment = {
        "PATH": f"{clean}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "store"),
        "BENTOML_DO_NOT_TRACK": "True", "VITRINE_GRPC_PORT": "0", "VITRINE_METRICS_PORT": "0",
        "VITRINE_USER_KEY": USER_KEY, "VITRINE_ALLOW_ANONYMOUS": "true",
    }  # fmt: skip
    bentoml = [clean / "bin" / "bentoml"]
    subprocess.run(
        [*bentoml, "import", packed.folder / "dist" / "vitrine-1.bento"], env=environment, cwd=tmp_path, check=True
    )
    with subprocess.Popen(
        [*bentoml, "serve", "vitrine:1", "--port", str(port)], env=environment, cwd=tmp_path
    ) as server:
        try:
            assert answered(port, photo)["release"] == "1"
        finally:
            server.terminate()
