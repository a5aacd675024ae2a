"""Every command of a team killed on its way, and typed again."""

import os
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.files import digest
from service.recommender.release import MANIFEST, verify
from tests.team import QUICK, Team
from training.promotion import alias_moves
from training.promotion.registry import Registry, local
from training.triton import repository

pytestmark = pytest.mark.slow
KILLS = 20 if os.environ.get("VITRINE_FUZZ") == "1" else 8  # that came before the command's end


def test_a_command_that_is_killed_leaves_the_state_before_or_after(boutique_folder: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments of the work; then the same command again finishes the job."""
    team = Team(tmp_path, BENTOML_HOME=str(tmp_path / "bentoml"))
    models, catalogue = tmp_path / "models", ("--catalogue", boutique_folder)
    team.run("train", boutique_folder, *QUICK, "--model-repository", models)
    team.run("promote", 1, "--to", "production", "--reason", "the first", *catalogue)
    shutil.rmtree(team.releases / "1")
    team.run("pull", 1)
    team.run("bento", 1, "--out", tmp_path / "dist", "--default-user-key")
    team.run("history")
    team.took["rollback"] = team.took["history"]
    draw = random.Random(7)
    kills, turn = 0, 0
    while kills < KILLS:
        assert turn < 10, kills
        trains = ["train", boutique_folder, *QUICK, "--half-life", 30 + turn, "--model-repository", models]
        kills += strike(team, models, draw, trains)
        newest = max(each.number for each in local(team.releases).releases())
        for alias in ("staging", "production"):
            promotes = ["promote", newest, "--to", alias, "--reason", "better", *catalogue, "--force"]
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
