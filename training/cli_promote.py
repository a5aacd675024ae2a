"""The verbs of promotion: pull, gate, promote, rollback, history, status, diff, shadow-report."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.table import Column, Table
from rich.text import Text

from service.errors import PromotionRefused, ReleaseError, VitrineError
from service.settings import Settings
from training.console import AsJson, Releases, app, open_registry, out, red
from training.progress import say

Number = Annotated[int, typer.Argument(min=1, help="Number of a release in the registry")]
Catalogue = Annotated[Path | None, typer.Option(help="What was held out; needed where there is no fresh gate result")]
ThresholdsFile = Annotated[Path | None, typer.Option("--thresholds", help="TOML file; default: training/gates.toml")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept in the history")]
Who = Annotated[str | None, typer.Option(help="Who does it (default: user@host)")]


@app.command(epilog="Example: MLFLOW_TRACKING_URI=http://mlflow:5000 vitrine pull 7 --releases releases")
def pull(number: Number, releases: Releases = Path("releases"), as_json: AsJson = False) -> None:
    """Fetch a release from the registry's artefacts, and verify it on arrival. Prints its path."""
    registry = open_registry(releases)
    path = registry.fetch(number, releases)
    print(json.dumps({"release": str(number), "path": str(path)}) if as_json else path)


@app.command(epilog="Example: vitrine gate 7 --catalogue shop")
def gate(
    number: Number,
    catalogue: Catalogue = None,
    releases: Releases = Path("releases"),
    thresholds: ThresholdsFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare a release with what is in production, on what was held out. Exit code 1 where it must not take over."""
    registry = open_registry(releases)
    report, files = _gate(registry, number, releases, catalogue, thresholds, again=True)
    if as_json:
        print(json.dumps({**asdict(report), "passed": report.passed}, indent=1))
    else:
        _print_gate(report)
        print(files[1])
    raise typer.Exit(0 if report.passed else 1)


@app.command(
    epilog="Examples: vitrine promote 7 --to staging --reason 'spring collection' --catalogue shop\n\n"
    "vitrine promote 7 --to production --reason 'a week as canary' --shadow-report shadow.json"
)
def promote(
    number: Number,
    to: Annotated[str, typer.Option("--to", help="staging, canary or production")],
    reason: Reason,
    catalogue: Catalogue = None,
    releases: Releases = Path("releases"),
    thresholds: ThresholdsFile = None,
    shadow_report: Annotated[
        Path | None, typer.Option(help="What shadow-report wrote: a further gate")
    ] = None,
    force: Annotated[bool, typer.Option(help="Although the gate refuses it; marked so for good")] = False,
    overlay: Annotated[
        Path | None, typer.Option("--write-overlay", help="Also write the number into this kustomization.yaml")
    ] = None,
    propose: Annotated[
        bool, typer.Option(help="With --write-overlay: write that alone, for others to agree; no alias moves")
    ] = False,
    image_digest: Annotated[
        str | None, typer.Option(help="sha256:... of the release's image, remembered, and written into overlays")
    ] = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Have staging, canary or production name a release. Takes a fresh gate result, or runs the gate."""
    from training import overlays, promotion
    from training.shadow import read_verdict

    registry = open_registry(releases)
    promotion.require_sense(to, reason)  # said before the gate takes its time
    if propose and overlay is None:
        raise VitrineError("--propose needs --write-overlay FILE: that is the proposal")
    if overlay is not None:
        overlays.read(overlay)  # what cannot be written is said before anything moves
    if image_digest is not None:
        registry.note_image(number, image_digest)
    verdict = None if shadow_report is None else read_verdict(shadow_report, number)  # so is one of another release
    report, files = _gate(registry, number, releases, catalogue, thresholds, again=False)
    refused = [check.name for check in report.failed]
    if verdict is not None and shadow_report is not None:
        refused += verdict.failed
        files = (*files, shadow_report)
    if refused and not force:
        _print_gate(report)
        raise PromotionRefused(f"release {number} stays where it is: {', '.join(refused)}. See {files[1]}")
    if propose:
        assert overlay is not None, "checked above"
        overlays.write(overlay, number, registry.image(number))
        print(overlay)
        return
    there = registry.aliases().get(to) == number
    move = promotion.promote(
        registry, number, to, why=reason, who=who or promotion.whoami(), forced=bool(refused), reports=files
    )
    if overlay is not None:
        overlays.write(overlay, number, registry.image(number))
    if there and not as_json:
        out.print(f"{to}: release {number}, as before; nothing moved")
    else:
        _say_moved(move, as_json)


@app.command(
    epilog="Examples: vitrine rollback --reason 'complaints'\n\nvitrine rollback --of canary --reason 'no need'"
)
def rollback(
    reason: Reason,
    of: Annotated[str, typer.Option("--of", help="staging, canary or production")] = "production",
    releases: Releases = Path("releases"),
    overlay: Annotated[
        Path | None, typer.Option("--write-overlay", help="Also write the number into this kustomization.yaml")
    ] = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Put back what was there before the last promotion; once more goes one further back."""
    from training import overlays, promotion

    registry = open_registry(releases)
    promotion.require_sense(of, reason)
    if overlay is not None:
        overlays.read(overlay)
    number = promotion.before(promotion.history(registry), of)
    if number is not None:
        _require_servable(registry.fetch(number, releases))
    move = promotion.rollback(registry, of, why=reason, who=who or promotion.whoami())
    if overlay is not None and move.release is not None:
        overlays.write(overlay, move.release, registry.image(move.release))
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
    from training import promotion

    moves = promotion.history(open_registry(releases))
    title = "History"
    if as_of is not None:
        moment = _moment(as_of)
        moves = sorted(promotion.as_of(moves, moment).values(), key=lambda move: move.alias)
        title = f"Live at {moment:%F %T %Z}"
    if as_json:
        print(json.dumps([_plain(move) for move in moves], indent=1))
        return
    table = Table("when (UTC)", "what", "release", "before", "by", "why", title=title)
    for move in moves:
        what = f"{move.kind} to {move.alias}" if move.kind == promotion.PROMOTE else f"{move.kind} of {move.alias}"
        said = Text.assemble(what, (" forced", "red") if move.forced else "")
        table.add_row(f"{move.at:%F %T}", said, _shown(move.release), _shown(move.before), move.who, move.why)
    out.print(table)


@app.command(
    epilog="Example: vitrine status --overlay k8s/overlays/production/kustomization.yaml --service http://pod:3000"
)
def status(
    alias: Annotated[str, typer.Option(help="staging, canary or production")] = "production",
    overlay: Annotated[Path | None, typer.Option(help="kustomization.yaml that pods follow")] = None,
    service: Annotated[list[str] | None, typer.Option(help="URL of a running service; may be repeated")] = None,
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:
    """Compare what the registry says with the overlay and what services report. Exit code 1 where they differ."""
    from training import overlays
    from training.console import get_json

    registry = open_registry(releases)
    aliases = registry.aliases()
    expected = aliases.get(alias)
    found: dict[str, int | str | None] = {}
    if overlay is not None:
        found[str(overlay)] = overlays.read(overlay)
    for url in service or ():
        try:
            found[url] = int(get_json(f"{url.rstrip('/')}/release")["release"])
        except (VitrineError, KeyError, ValueError) as error:
            found[url] = f"no answer ({error})"
    drift = [place for place, number in found.items() if number != expected]
    if as_json:
        print(json.dumps({"aliases": aliases, "alias": alias, "found": found, "drift": drift}))
    else:
        table = Table("where", "release", "", title=f"What {alias} is")
        table.add_row("registry", _shown(expected), "")
        for place, number in found.items():
            table.add_row(place, str(number), red("drift") if place in drift else "as registered")
        out.print(table)
        others = {name: number for name, number in aliases.items() if name != alias}
        out.print(", ".join(f"{name}: release {number}" for name, number in sorted(others.items())))
    raise typer.Exit(1 if drift else 0)


@app.command(epilog="Example: vitrine diff 6 7 --out diff.html")
def diff(
    first: Number,
    second: Number,
    out_file: Annotated[Path, typer.Option("--out", help="Page to write: the same queries, answered by both")] = Path(
        "diff.html"
    ),
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """What is different between two releases: manifest, parameters, figures, and what shoppers see."""
    from training.diff import compare

    registry = open_registry(releases)
    folders = [registry.fetch(number, releases) for number in (first, second)]
    found = compare(folders[0], folders[1], out_file, user_key=Settings.read().user_key)
    if as_json:
        print(json.dumps({**asdict(found), "page": str(out_file)}, indent=1))
        return
    table = Table(title="What is different")
    for column in ("", f"release {first}", f"release {second}"):
        table.add_column(column, overflow="fold")
    for change in found.changes:
        table.add_row(change.name, str(change.first), str(change.second))
    out.print(table)
    out.print(f"of ten items shown {10 * found.overlap:.1f} are the same, over {found.queries} queries")
    print(out_file)


@app.command(
    "shadow-report",
    epilog="Example: vitrine shadow-report http://pod-1:3000 http://pod-2:3000 --out shadow.json",
)
def shadow_report(
    service: Annotated[list[str], typer.Argument(help="URLs of running services with a candidate")],
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics of each")] = 3002,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON to write, for promote --shadow-report")] = None,
    thresholds: ThresholdsFile = None,
    as_json: AsJson = False,
) -> None:
    """What candidates answered beside production, over one or several services, and a verdict. Exit code 1 against."""
    from training.console import get_json, get_text
    from training.gate import read_thresholds
    from training.shadow import judge

    urls, limits = [url.rstrip("/") for url in service], read_thresholds(thresholds)["shadow"]
    verdict = judge(
        [get_json(f"{url}/release") for url in urls], [get_text(_metrics_of(url, metrics_port)) for url in urls], limits
    )
    if out_file is not None:
        verdict.save(out_file)
    if as_json:
        print(json.dumps(asdict(verdict), indent=1))
    else:
        table = Table(
            "", "measured", "asked", "", title=f"Release {verdict.release} as candidate, {verdict.queries} queries"
        )
        for line in verdict.lines:
            passed = "" if line.passed is None else "passed" if line.passed else red("failed")
            table.add_row(line.name, f"{line.value:.4g}", line.bound, passed)
        out.print(table)
    raise typer.Exit(1 if verdict.failed else 0)


def _metrics_of(url: str, port: int) -> str:
    """Where a service has its metrics: on the same host, by plain HTTP."""
    host = urlsplit(url).hostname or ""
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"


def _gate(
    registry: Any, number: int, releases: Path, catalogue: Path | None, thresholds: Path | None, *, again: bool
) -> tuple[Any, tuple[Path, ...]]:
    """The report, fresh or made now, and its files. again: although there is a fresh one."""
    from training import gate as gates
    from training.catalogue import read

    limits = gates.read_thresholds(thresholds)
    release = registry.fetch(number, releases)
    _require_servable(release)
    live = registry.aliases().get("production")
    production = registry.fetch(live, releases) if live is not None and live != number else None
    folder = releases / ".gates"
    files = (folder / f"{number}.json", folder / f"{number}.html")
    report = gates.Report.read(files[0])
    if report is not None and not again and report.is_fresh(release, production, limits):
        say(f"gate: the result of {report.created} is taken; `vitrine gate {number}` asks again")
        return report, files
    if catalogue is None:
        raise VitrineError(
            f"there is no fresh gate result of release {number}: say what to ask it with --catalogue FOLDER"
        )
    report = gates.run(release, production, read(catalogue), limits, user_key=Settings.read().user_key)
    return report, report.save(folder)


def _require_servable(release: Path) -> None:
    """Raises ReleaseError where it cannot be served: damaged, of a newer format, or not what it was."""
    from training.console import open_recommender

    try:
        open_recommender(release)
    except ReleaseError as error:
        raise PromotionRefused(f"release {release.name} is refused: {error}") from error


def _print_gate(report: Any) -> None:
    against = "the first release" if report.against is None else f"beside release {report.against} in production"
    name = Column("check", no_wrap=True)  # of two columns that must be cut it is not the one
    table = Table("", name, "value", "production", "asked", "", title=f"Release {report.release}, {against}")
    for check in report.checks:
        sign = "-" if check.passed is None else Text("passed", "green") if check.passed else red("FAILED")
        numbers = ["" if number is None else f"{number:.4g}" for number in (check.value, check.production)]
        between = f"difference {check.interval[0]:+.4f} to {check.interval[1]:+.4f}" if check.interval else ""
        table.add_row(sign, check.name, *numbers, check.bound, "; ".join(filter(None, (between, check.note))))
    out.print(table)
    failed = ", ".join(check.name for check in report.failed)
    verdict = f"is refused: {failed}" if failed else "passes"
    out.print(f"release {report.release} {verdict}", soft_wrap=True)


def _say_moved(move: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(move)))
        return
    said = f"{move.alias}: release {_shown(move.before)} -> {_shown(move.release)}"
    out.print(Text.assemble(said, (" (forced)", "red") if move.forced else ""))


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
