"""Who put which release where, when and why. Each move of an alias is a run of the experiment `vitrine-promotions`:
the intent is written first, then the alias moves, then the run is finished; the next command settles what a crash
left between them.
"""

import getpass
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.errors import PromotionRefused
from training.progress import say
from training.promotion.mlflow_client import NOTE
from training.promotion.records import Run
from training.promotion.registry import ALIASES, CANARY, PRODUCTION, PROMOTIONS, Registry, is_abandoned, owner

PATIENCE = timedelta(seconds=60)  # for which a move that another machine began is left alone
SETTLED = 5.0  # seconds for which the end of a move that another one began is waited for
PROMOTE, ROLLBACK = "promote", "rollback"
TAG = "vitrine."


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an alias. release: None where the alias names nothing from then on; before: what it named;
    forced: although the gate refused it; loosened: thresholds of the gate that asked less than they do by default.
    Its reports are artefacts of the run. moved: False for what `promote` found done already."""

    alias: str
    release: int | None
    before: int | None
    at: datetime
    who: str
    why: str
    kind: str
    forced: bool
    loosened: str
    run_id: str
    moved: bool = field(default=True, compare=False)


def promote(
    registry: Registry,
    number: int,
    alias: str,
    *,
    why: str,
    who: str,
    forced: bool = False,
    loosened: Sequence[str] = (),
    reports: tuple[Path, ...] = (),
) -> Move:
    """Have an alias name a release that the registry holds; where it does already, nothing is done, and the move that
    did it is returned. reports: files that say why it may.

    Raises PromotionRefused while another move of this alias is under way, RegistryError."""
    require_sense(alias, why)
    registry.get(number)
    if there := _done(registry, alias, number):
        return there
    said = {"kind": PROMOTE, "why": why, "who": who, "forced": str(forced).lower(), "loosened": ", ".join(loosened)}
    return _move(registry, alias, number, said, reports)


def rollback(registry: Registry, alias: str, *, why: str, who: str) -> Move:
    """Put back what an alias named before the last promotion that stands.

    Raises PromotionRefused where nothing was there before: of production, which must name something."""
    require_sense(alias, why)
    back = before(history(registry), alias)
    if back is None and alias == PRODUCTION:
        raise PromotionRefused("there was nothing in production before: promote another release in its place")
    return _move(registry, alias, back, {"kind": ROLLBACK, "why": why, "who": who, "forced": "false", "loosened": ""})


def before(moves: list[Move], alias: str) -> int | None:
    """What a rollback puts back: promotions pile up, a rollback takes the topmost away.

    Raises PromotionRefused where there is no promotion to take back."""
    pile: list[int | None] = []
    for move in moves:
        if move.alias != alias:
            continue
        if move.kind == PROMOTE:
            pile.append(move.release)
        elif pile:
            pile.pop()
    if not pile:
        raise PromotionRefused(f"{alias} names nothing that was promoted: there is nothing to take back")
    # a trial that is ended is not followed by the trial before it
    return pile[-2] if len(pile) > 1 and alias != CANARY else None


def history(registry: Registry) -> list[Move]:
    """Every move that was finished, oldest first."""
    return [_read(run) for run in registry.runs(PROMOTIONS) if run.status == "FINISHED"]


def as_of(moves: list[Move], moment: datetime) -> dict[str, Move]:
    """The move that made each alias what it was at a moment."""
    return {move.alias: move for move in moves if move.at <= moment}


def reconcile(registry: Registry) -> None:
    """Settle the moves that a crash left between intent and end: an alias that has moved is recorded as moved, one
    that has not stays where it is."""
    for run in _unfinished(registry):
        move = _read(run)
        if not (is_abandoned(run.tags) or datetime.now(UTC) - run.began > PATIENCE):
            continue
        moved = registry.aliases().get(move.alias) == move.release
        what = f"{move.kind} of {_name(move.release)} to {move.alias}, begun by {move.who} at {move.at:%F %T} and"
        say(f"{what} broken off: {'it had taken effect' if moved else 'it had no effect'}")
        registry.mlflow_client.set_tag(run.run_id, f"{TAG}reconciled", "true")
        registry.mlflow_client.set_terminated(run.run_id, status="FINISHED" if moved else "KILLED")


def require_sense(alias: str, why: str) -> None:
    """Raises PromotionRefused where there is no such alias, or no reason is given."""
    if alias not in ALIASES:
        raise PromotionRefused(f"{alias} is no place for a release: expected {', '.join(ALIASES)}")
    if not why.strip():
        raise PromotionRefused("say why: --reason TEXT")


def whoami() -> str:
    """user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _move(
    registry: Registry, alias: str, number: int | None, said: dict[str, str], reports: tuple[Path, ...] = ()
) -> Move:
    facts = {"alias": alias, "release": _text(number), "before": _text(registry.aliases().get(alias)), **said}
    tags = {f"{TAG}{name}": value for name, value in facts.items()} | owner()
    tags[NOTE] = f"{facts['why']} ({facts['who']})"
    begun = registry.mlflow_client.create_run(
        registry.experiment(PROMOTIONS), tags=tags, run_name=f"{said['kind']} {_name(number)} to {alias}"
    ).info.run_id
    for report in reports:
        registry.mlflow_client.log_artifact(begun, str(report), "reports")
    if other := _earlier(registry, begun, alias):
        registry.mlflow_client.set_terminated(begun, status="FAILED")
        return _give_way(registry, other, number)
    if said["kind"] == PROMOTE and (there := _done(registry, alias, number)):  # by one that has ended just now
        registry.mlflow_client.set_terminated(begun, status="KILLED")
        return there
    registry.point(alias, number)
    registry.mlflow_client.set_terminated(begun)
    return next(_read(run) for run in registry.runs(PROMOTIONS) if run.run_id == begun)


def _earlier(registry: Registry, begun: str, alias: str) -> Move | None:
    """Of intents for one alias that are open at the same time the earliest goes on, and every other gives way."""
    for run in _unfinished(registry):  # oldest first
        if run.run_id == begun:
            return None
        if run.tags.get(f"{TAG}alias") == alias:
            return _read(run)
    return None


def _give_way(registry: Registry, other: Move, number: int | None) -> Move:
    """What becomes of a move that met an earlier one: done by it, where it was the same. Raises PromotionRefused."""
    began = time.monotonic()
    while other.release == number and time.monotonic() < began + SETTLED:
        if there := _done(registry, other.alias, number):
            return there
        time.sleep(0.1)
    raise PromotionRefused(
        f"another move of {other.alias}, to {_name(other.release)}, is under way, by {other.who}; nothing was moved; "
        "look at vitrine history, and try again"
    )


def _done(registry: Registry, alias: str, number: int | None) -> Move | None:
    """The move by which the alias names the release, if it does."""
    if registry.aliases().get(alias) != number:
        return None
    last = as_of(history(registry), datetime.now(UTC)).get(alias)
    return None if last is None or last.release != number else replace(last, moved=False)


def _unfinished(registry: Registry) -> list[Run]:
    return [run for run in registry.runs(PROMOTIONS) if run.status == "RUNNING"]


def _read(run: Run) -> Move:
    said = {name.removeprefix(TAG): value for name, value in run.tags.items()}
    return Move(
        alias=said["alias"],
        release=int(said["release"]) if said["release"] else None,
        before=int(said["before"]) if said["before"] else None,
        at=run.began,
        who=said["who"],
        why=said["why"],
        kind=said["kind"],
        forced=said["forced"] == "true",
        loosened=said.get("loosened", ""),
        run_id=run.run_id,
    )


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _name(number: int | None) -> str:
    return "nothing" if number is None else f"release {number}"
