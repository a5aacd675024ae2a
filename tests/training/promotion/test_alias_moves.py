"""Who put which release where, when and why: and what becomes of a move that was broken off."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.errors import PromotionRefused, RegistryError
from tests.processes import HOME
from tests.shop import Shop
from training.promotion import alias_moves
from training.promotion.followers import Followers
from training.promotion.registry import CANARY, PRODUCTION, PROMOTIONS, STAGING, Registry, local


@pytest.fixture
def registry(shop: Shop) -> Registry:
    """Of a shop with three releases."""
    return local(shop.releases)


def promote(registry: Registry, number: int, alias: str = PRODUCTION, **more: bool) -> alias_moves.Move:
    return alias_moves.promote(registry, number, alias, why=f"{number} is better", who="ann@laptop", **more)


def vitrine(*arguments: object, code: int = 0) -> str:
    """What the command line says."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def now() -> datetime:
    time.sleep(0.01)
    moment = datetime.now(UTC)
    time.sleep(0.01)
    return moment


def test_a_promotion_moves_the_alias_and_says_so(registry: Registry) -> None:
    """Release, what was there before, who, when, why, and whether the gate was passed over."""
    promote(registry, 1)
    began = now()
    move = promote(registry, 2, forced=True)
    assert registry.aliases() == {PRODUCTION: 2}
    assert alias_moves.history(registry)[-1] == move
    assert (move.release, move.before, move.who, move.why) == (2, 1, "ann@laptop", "2 is better")
    assert move.forced
    assert began < move.at < datetime.now(UTC)


def test_history_tells_what_was_live_at_any_moment(registry: Registry) -> None:
    """Before anything, between, and after a rollback."""
    moments = [now()]
    for act in (
        lambda: promote(registry, 1),
        lambda: promote(registry, 2, STAGING),
        lambda: promote(registry, 2),
        lambda: alias_moves.rollback(registry, PRODUCTION, why="complaints", who="bob@desk"),
    ):
        act()
        moments.append(now())
    moves = alias_moves.history(registry)
    live = [{alias: move.release for alias, move in alias_moves.as_of(moves, at).items()} for at in moments]
    assert live == [
        {}, {PRODUCTION: 1}, {PRODUCTION: 1, STAGING: 2}, {PRODUCTION: 2, STAGING: 2}, {PRODUCTION: 1, STAGING: 2}
    ]  # fmt: skip
    assert alias_moves.as_of(moves, moments[-1])[PRODUCTION].who == "bob@desk"


def test_rollback_goes_back_one_promotion_at_a_time(registry: Registry) -> None:
    """A rollback is no promotion that another one would take back."""
    for number in (1, 2, 3):
        promote(registry, number)
    back = [alias_moves.rollback(registry, PRODUCTION, why="w", who="x").release for _ in range(2)]
    assert back == [2, 1]
    with pytest.raises(PromotionRefused, match="nothing in production before"):
        alias_moves.rollback(registry, PRODUCTION, why="w", who="x")
    promote(registry, 3)
    assert alias_moves.rollback(registry, PRODUCTION, why="w", who="x").release == 1
    promote(registry, 2, STAGING)
    assert alias_moves.rollback(registry, STAGING, why="w", who="x").release is None
    assert registry.aliases() == {PRODUCTION: 1}


def test_what_the_registry_does_not_hold_is_not_promoted(registry: Registry) -> None:
    """Nor to a place that there is not, nor without a reason."""
    with pytest.raises(RegistryError, match="holds no release 9"):
        promote(registry, 9)
    with pytest.raises(PromotionRefused, match="expected staging, canary, production"):
        promote(registry, 1, "prod")
    with pytest.raises(PromotionRefused, match="say why"):
        alias_moves.promote(registry, 1, PRODUCTION, why=" ", who="x")
    assert alias_moves.history(registry) == []


def test_of_many_promotions_at_once_the_history_and_the_alias_agree(registry: Registry, shop: Shop) -> None:
    """Each either takes place or says that another one is under way."""

    def attempt(number: int) -> bool:
        try:
            promote(local(shop.releases), 1 + number % 3)
        except PromotionRefused as error:
            return "under way" not in str(error)
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(12)))
    moves = alias_moves.history(registry)
    assert 0 < len(moves) <= sum(done)  # what names the release already needs no move
    assert registry.aliases()[PRODUCTION] == moves[-1].release


@pytest.mark.parametrize("moved", [False, True])
def test_the_next_command_settles_what_a_crash_left(registry: Registry, shop: Shop, moved: bool) -> None:
    """Killed between the intent and the end: recorded if the alias had moved, forgotten if not; again finishes it."""
    promote(registry, 1)
    breaks = "registry.Registry.point" if not moved else "mlflow_client.Client.set_terminated"
    script = f"""
import os, sys
from pathlib import Path
from training.promotion import alias_moves, mlflow_client, registry
{breaks} = lambda *a, **k: os.kill(os.getpid(), 9)
alias_moves.promote(registry.local(Path(sys.argv[1])), 2, "production", why="w", who="x")
"""
    killed = subprocess.run([sys.executable, "-c", script, str(shop.releases)], cwd=HOME, check=False)
    assert killed.returncode == -9
    assert registry.aliases() == {PRODUCTION: 2 if moved else 1}
    assert len(alias_moves.history(registry)) == 1
    alias_moves.reconcile(registry)
    assert [move.release for move in alias_moves.history(registry)] == ([1, 2] if moved else [1])
    promote(registry, 2)
    assert registry.aliases() == {PRODUCTION: 2}


def test_a_move_that_another_machine_has_just_begun_is_left_alone(registry: Registry) -> None:
    """Nothing is known of its process: it may be alive."""
    tags = {f"vitrine.{name}": value for name, value in {
        "alias": PRODUCTION, "release": "1", "before": "", "kind": "promote", "why": "w", "who": "eve@far",
        "forced": "false", "host": "far", "pid": "1.1",
    }.items()}  # fmt: skip
    run = registry.mlflow_client.create_run(registry.experiment(PROMOTIONS), tags=tags)
    alias_moves.reconcile(registry)
    assert registry.mlflow_client.get_run(run.info.run_id).info.status == "RUNNING"
    with pytest.raises(PromotionRefused, match="under way, by eve@far"):
        promote(registry, 2)


def test_who_comes_second_with_the_same_move_finds_it_done(registry: Registry, shop: Shop) -> None:
    """Of several who promote one release at once one moves it; the others read that it is there, and by whom."""
    promote(registry, 1)
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(alias_moves.promote, local(shop.releases), 2, PRODUCTION, why="w", who=f"{n}") for n in "abcd"
        ]
        moves = [each.result() for each in asked]
    assert [move.moved for move in moves].count(True) == 1
    assert len({move.run_id for move in moves}) == 1
    assert [move.release for move in alias_moves.history(registry)] == [1, 2]


def test_loosened_thresholds_leave_a_mark(shop: Shop, tmp_path: Path) -> None:
    """As --force does: in what promote says, and in the history, for good."""
    thresholds = tmp_path / "gates.toml"
    thresholds.write_text("[ranking]\nleast_share = 0.5\nfewest_shoppers = 40\n[cost]\nmost_latency = 1.2\n")
    asked = ("--catalogue", shop.catalogue, "--releases", shop.releases, "--thresholds", thresholds)
    assert "(with loosened gates)" in vitrine("promote", 1, "--to", "production", "--reason", "w", *asked)
    [move] = alias_moves.history(local(shop.releases))
    assert move.loosened == "ranking.least_share 0.5 (default 0.95), ranking.fewest_shoppers 40 (default 30)"
    assert "with loosened gates" in vitrine("history", "--releases", shop.releases)
    assert not move.forced


def test_a_pointer_file_follows_the_registry_and_status_compares_it(registry: Registry, tmp_path: Path) -> None:
    """It names a release that lies beside it, whole; what is no pointer stays as it is."""
    pointer = tmp_path / "served" / "current"
    pointer.parent.mkdir()
    releases = ("--releases", tmp_path / "releases")
    promote(registry, 1)
    Followers(current=pointer).write(registry, 1, PRODUCTION)
    assert pointer.read_text() == "1\n"
    assert (pointer.parent / "1" / "manifest.json").is_file()
    assert "as registered" in vitrine("status", "--current", pointer, *releases)
    promote(registry, 2)
    assert "drift" in vitrine("status", "--current", pointer, *releases, code=1)
    Followers(current=pointer).write(registry, 2, PRODUCTION)
    assert "1" in vitrine("rollback", "--reason", "w", *releases, "--write-current", pointer)
    assert pointer.read_text() == "1\n"
    pointer.write_text("mine")
    said = vitrine("rollback", "--reason", "w", *releases, "--write-current", pointer, code=1)
    assert "must hold the number of a release" in said
    assert pointer.read_text() == "mine"
    assert registry.aliases() == {PRODUCTION: 1}


def test_a_canary_that_is_taken_back_is_followed_by_none(registry: Registry) -> None:
    """What was tried before it was ended for a reason."""
    for number in (1, 2):
        alias_moves.promote(registry, number, CANARY, why="w", who="x")
    assert alias_moves.rollback(registry, CANARY, why="w", who="x").release is None
    assert CANARY not in registry.aliases()


def test_a_promotion_again_is_the_same_promotion(registry: Registry) -> None:
    """After a crash nobody knows whether it took effect: typing it again must not count twice."""
    promote(registry, 1)
    first = promote(registry, 2)
    assert promote(registry, 2) == first
    assert alias_moves.rollback(registry, PRODUCTION, why="w", who="x").release == 1
