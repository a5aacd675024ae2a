"""The verbs of promotion: pull, promote, rollback, history, status."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from service.errors import VitrineError
from training.cli.compare import (
    Catalogue,
    Number,
    ThresholdsFile,
    gate_options,
    print_gate,
)
from training.cli.console import AsJson, Releases, app, open_registry, out, red

Overlay = Annotated[
    Path | None,
    typer.Option(
        "--write-overlay", help="Also have this kustomization.yaml run the release, by the digest of its image"
    ),
]
Current = Annotated[
    Path | None,
    typer.Option("--write-current", help="Also have this file, which a running service follows, name the release"),
]
ImageReference = Annotated[
    str | None, typer.Option("--image", help="NAME:TAG@sha256:... of its image, remembered, and written into overlays")
]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept in the history")]
Who = Annotated[str | None, typer.Option(help="Who does it (default: user@host)")]


@app.command(epilog="Example: MLFLOW_TRACKING_URI=http://mlflow:5000 vitrine pull 7 --releases releases")
def pull(number: Number, releases: Releases = Path("releases"), as_json: AsJson = False) -> None:
    """Fetch a release from the registry's artefacts, and verify it on arrival. Prints its path."""
    registry = open_registry(releases)
    path = registry.fetch(number, releases)
    print(json.dumps({"release": str(number), "path": str(path)}) if as_json else path)


@app.command(
    epilog="Examples: vitrine promote 7 --to staging --reason 'spring collection' --catalogue shop\n\n"
    "vitrine promote 7 --to production --reason 'a week as canary' --shadow-report shadow.json\n\n"
    "vitrine promote 7 --to production --reason 'a better log' --write-current releases/current"
)
def promote(
    number: Number,
    to: Annotated[str, typer.Option("--to", help="staging, canary or production")],
    reason: Reason,
    catalogue: Catalogue = None,
    releases: Releases = Path("releases"),
    thresholds: ThresholdsFile = None,
    shadow_report: Annotated[Path | None, typer.Option(help="What shadow-report wrote: a further gate")] = None,
    force: Annotated[bool, typer.Option(help="Although the gate refuses it; marked so for good")] = False,
    overlay: Overlay = None,
    current: Current = None,
    propose: Annotated[
        bool, typer.Option(help="With --write-overlay: write that alone, for others to agree; no alias moves")
    ] = False,
    as_proposed: Annotated[
        bool, typer.Option(help="It was proposed, and others have agreed: the gate's answer of then counts")
    ] = False,
    image: ImageReference = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Have staging, canary or production name a release. Takes a fresh gate result, or runs the gate."""
    from training.promotion.followers import Followers
    from training.promotion.policy import GateRefused, PromotionRequest
    from training.promotion.policy import promote as carry_out

    request = PromotionRequest(
        number,
        to,
        reason,
        who,
        forced=force,
        proposed=propose,
        agreed=as_proposed,
        shadow_report=shadow_report,
        image=image,
    )
    try:
        move = carry_out(
            open_registry(releases), request, gate_options(releases, catalogue, thresholds), Followers(overlay, current)
        )
    except GateRefused as refusal:
        print_gate(refusal.result.report, refusal.result.loosened)
        raise
    if move is None:
        print(overlay)
    else:
        _say_moved(move, as_json)


@app.command(
    epilog="Examples: vitrine rollback --reason 'complaints'\n\nvitrine rollback --of canary --reason 'no need'"
)
def rollback(
    reason: Reason,
    of: Annotated[str, typer.Option("--of", help="staging, canary or production")] = "production",
    releases: Releases = Path("releases"),
    overlay: Overlay = None,
    current: Current = None,
    image: ImageReference = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Put back what was there before the last promotion; once more goes one further back. Of a canary: none is left."""
    from training.promotion.followers import Followers
    from training.promotion.policy import roll_back

    move = roll_back(
        open_registry(releases),
        of,
        gate_options(releases),
        Followers(overlay, current),
        reason=reason,
        who=who,
        image=image,
    )
    _say_moved(move, as_json)


@app.command(epilog="Examples: vitrine history\n\nvitrine history --as-of '2026-11-20 10:00'")
def history(
    as_of: Annotated[
        str | None, typer.Option(help="A time, UTC unless it says otherwise: what was live then, and who put it there")
    ] = None,
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:
    """What was promoted and rolled back, when, by whom and why."""
    from training.promotion import alias_moves

    moves = alias_moves.history(open_registry(releases))
    title = "History"
    if as_of is not None:
        moment = _moment(as_of)
        moves = sorted(alias_moves.as_of(moves, moment).values(), key=lambda move: move.alias)
        title = f"Live at {moment:%F %T %Z}"
    if as_json:
        print(json.dumps([_plain(move) for move in moves], indent=1))
        return
    table = Table("when (UTC)", Column("what", no_wrap=True), "release", "before", "by", "why", title=title)
    for move in moves:
        what = f"{move.kind} to {move.alias}" if move.kind == alias_moves.PROMOTE else f"{move.kind} of {move.alias}"
        said = Text.assemble(
            what, (" forced", "red") if move.forced else "", (" with loosened gates", "red") if move.loosened else ""
        )
        table.add_row(f"{move.at:%F %T}", said, _shown(move.release), _shown(move.before), move.who, move.why)
    out.print(table)


@app.command(
    epilog="Examples: vitrine status --current releases/current --service http://127.0.0.1:3000\n\n"
    "vitrine status --overlay k8s/overlays/production/kustomization.yaml --service http://pod:3000"
)
def status(
    alias: Annotated[str, typer.Option(help="staging, canary or production")] = "production",
    overlay: Annotated[Path | None, typer.Option(help="kustomization.yaml that pods follow")] = None,
    current: Annotated[Path | None, typer.Option(help="File beside releases that a service follows")] = None,
    service: Annotated[list[str] | None, typer.Option(help="URL of a running service; may be repeated")] = None,
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:
    """Compare what the registry says with what follows it: an overlay, a pointer file, services. Exit code 1 where
    they differ."""
    from training.cli.console import get_json
    from training.promotion.followers import Followers

    registry = open_registry(releases)
    aliases = registry.aliases()
    expected = aliases.get(alias)
    found: dict[str, int | str | None] = dict(Followers(overlay, current).named(alias))
    for url in service or ():
        try:
            found[url] = int(get_json(f"{url.rstrip('/')}/release")["release"])
        except (VitrineError, KeyError, ValueError) as error:
            found[url] = f"no answer ({error})"
    # a canary that has become production is none any more where it is served
    right = {expected, None} if alias == "canary" and expected == aliases.get("production") else {expected}
    drift = [place for place, number in found.items() if number not in right]
    if as_json:
        print(json.dumps({"aliases": aliases, "alias": alias, "found": found, "drift": drift}))
    else:
        table = Table("where", "release", "", title=f"What {alias} is")
        table.add_row("registry", _shown(expected), "")
        for place, number in found.items():
            table.add_row(
                place,
                number if isinstance(number, str) else _shown(number),
                red("drift") if place in drift else "as registered",
            )
        out.print(table)
        others = {name: number for name, number in aliases.items() if name != alias}
        out.print(", ".join(f"{name}: release {number}" for name, number in sorted(others.items())))
    raise typer.Exit(1 if drift else 0)


def _say_moved(move: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(move)))
        return
    if not move.moved:
        out.print(
            f"{move.alias}: release {_shown(move.release)}, as before; nothing moved ({move.who}, {move.at:%F %T})"
        )
        return
    said = f"{move.alias}: release {_shown(move.before)} -> {_shown(move.release)}"
    marks = [name for name, there in (("forced", move.forced), ("with loosened gates", bool(move.loosened))) if there]
    out.print(Text.assemble(said, (f" ({', '.join(marks)})", "red") if marks else ""))


def _plain(move: Any) -> dict[str, Any]:
    return {**asdict(move), "at": move.at.isoformat()}


def _shown(number: int | None) -> str:
    return "none" if number is None else str(number)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise VitrineError(
            f"--as-of {text}: expected a time such as 2026-11-20 10:00 or 2026-11-20T10:00+01:00"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
