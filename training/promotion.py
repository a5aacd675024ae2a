"""Who put which release where, when and why. Each move of an alias is a run of the experiment `vitrine-promotions`:
the intent is written first, then the alias moves, then the run is finished; the next command settles what a crash
left between them.
"""

import getpass
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import PromotionRefused
from training.progress import say
from training.registry import ALIASES, PRODUCTION, PROMOTIONS, Registry, is_abandoned, owner

PATIENCE = 60.0  # seconds for which a move that another machine began is waited for
PROMOTE, ROLLBACK = "promote", "rollback"
TAG = "vitrine."


@dataclass(frozen=True, slots=True)
class Move:
    """One move of an alias. release: None where the alias names nothing from then on; before: what it named;
    forced: although the gate refused it. Its reports are artefacts of the run."""

    alias: str
    release: int | None
    before: int | None
    at: datetime
    who: str
    why: str
    kind: str
    forced: bool
    run_id: str


def promote(
    registry: Registry, number: int, alias: str, *, why: str, who: str, forced: bool = False,
    reports: tuple[Path, ...] = (),
) -> Move:  # fmt: skip
    """Have an alias name a release that the registry holds; where it does already, nothing is done. reports: files
    that say why it may.

    Raises PromotionRefused while another move of this alias is under way, RegistryError."""
    require_sense(alias, why)
    registry.get(number)
    if registry.aliases().get(alias) == number and (there := as_of(history(registry), datetime.now(UTC)).get(alias)):
        return there
    return _move(registry, alias, number, kind=PROMOTE, why=why, who=who, forced=forced, reports=reports)


def rollback(registry: Registry, alias: str, *, why: str, who: str) -> Move:
    """Put back what an alias named before the last promotion that stands.

    Raises PromotionRefused where nothing was there before: of production, which must name something."""
    require_sense(alias, why)
    back = before(history(registry), alias)
    if back is None and alias == PRODUCTION:
        raise PromotionRefused("there was nothing in production before: promote another release in its place")
    return _move(registry, alias, back, kind=ROLLBACK, why=why, who=who)


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
    return pile[-2] if len(pile) > 1 else None


def history(registry: Registry) -> list[Move]:
    """Every move that was finished, oldest first."""
    moves = [_read(run) for run in _runs(registry, "attributes.status = 'FINISHED'")]
    return sorted(moves, key=lambda move: (move.at, move.run_id))


def as_of(moves: list[Move], moment: datetime) -> dict[str, Move]:
    """The move that made each alias what it was at a moment."""
    return {move.alias: move for move in moves if move.at <= moment}


def reconcile(registry: Registry) -> None:
    """Settle the moves that a crash left between intent and end: an alias that has moved is recorded as moved, one
    that has not stays where it is."""
    for run in _unfinished(registry):
        tags, move = run.data.tags, _read(run)
        age = time.time() - run.info.start_time / 1000
        if not (is_abandoned(tags) or age > PATIENCE):
            continue
        moved = registry.aliases().get(move.alias) == move.release
        what = f"{move.kind} of {_name(move.release)} to {move.alias}, begun by {move.who} at {move.at:%F %T} and"
        say(f"{what} broken off: {'it had taken effect' if moved else 'it had no effect'}")
        registry.mlflow_client.set_tag(run.info.run_id, f"{TAG}reconciled", "true")
        registry.mlflow_client.set_terminated(run.info.run_id, status="FINISHED" if moved else "KILLED")


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
    registry: Registry, alias: str, number: int | None, *, kind: str, why: str, who: str, forced: bool = False,
    reports: tuple[Path, ...] = (),
) -> Move:  # fmt: skip
    said = {
        "alias": alias, "release": _text(number), "before": _text(registry.aliases().get(alias)), "kind": kind,
        "why": why, "who": who, "forced": str(forced).lower(),
    }  # fmt: skip
    tags = {f"{TAG}{name}": value for name, value in said.items()} | owner()
    run = registry.mlflow_client.create_run(
        registry.experiment(PROMOTIONS), tags=tags, run_name=f"{kind} {_name(number)} to {alias}"
    )
    for report in reports:
        registry.mlflow_client.log_artifact(run.info.run_id, str(report), "reports")
    if other := _earlier(registry, run, alias):
        registry.mlflow_client.set_terminated(run.info.run_id, status="FAILED")
        raise PromotionRefused(f"another move of {alias} is under way, by {other.who}; try again")
    registry.point(alias, number)
    registry.mlflow_client.set_terminated(run.info.run_id)
    return _read(run)


def _earlier(registry: Registry, run: Any, alias: str) -> Move | None:
    """Of intents for one alias that are open at the same time the earliest goes on, and every other gives way."""
    mine = (run.info.start_time, run.info.run_id)
    for other in _unfinished(registry):
        if (other.info.start_time, other.info.run_id) < mine and other.data.tags.get(f"{TAG}alias") == alias:
            return _read(other)
    return None


def _unfinished(registry: Registry) -> list[Any]:
    return list(_runs(registry, "attributes.status = 'RUNNING'"))


def _runs(registry: Registry, filter: str) -> Iterator[Any]:
    token = None
    while True:
        page = registry.mlflow_client.search_runs(
            [registry.experiment(PROMOTIONS)], filter, max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _read(run: Any) -> Move:
    said = {name.removeprefix(TAG): value for name, value in run.data.tags.items()}
    return Move(
        alias=said["alias"],
        release=int(said["release"]) if said["release"] else None,
        before=int(said["before"]) if said["before"] else None,
        at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        who=said["who"],
        why=said["why"],
        kind=said["kind"],
        forced=said["forced"] == "true",
        run_id=run.info.run_id,
    )


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _name(number: int | None) -> str:
    return "nothing" if number is None else f"release {number}"
