"""The verbs that compare releases: gate, diff, shadow-report."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.table import Column, Table
from rich.text import Text

from service.settings import Settings
from training.cli.console import AsJson, Releases, app, open_registry, out, red

Number = Annotated[int, typer.Argument(min=1, help="Number of a release in the registry")]
Catalogue = Annotated[Path | None, typer.Option(help="What was held out; needed where there is no fresh gate result")]
ThresholdsFile = Annotated[
    Path | None, typer.Option("--thresholds", help="TOML file; default: training/promotion/gates.toml")
]


@app.command(epilog="Example: vitrine gate 7 --catalogue shop")
def gate(
    number: Number,
    catalogue: Catalogue = None,
    releases: Releases = Path("releases"),
    thresholds: ThresholdsFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare a release with what is in production, on what was held out. Exit code 1 where it must not take over."""
    from training.promotion.policy import run_gate

    result = run_gate(open_registry(releases), number, gate_options(releases, catalogue, thresholds), again=True)
    report = result.report
    if as_json:
        print(json.dumps({**asdict(report), "passed": report.passed, "loosened": result.loosened}, indent=1))
    else:
        print_gate(report, result.loosened)
        print(result.files[1])
    raise typer.Exit(0 if report.passed else 1)


@app.command(epilog="Examples: vitrine diff 6 7 --catalogue shop\n\nvitrine diff 6 7 --out diff.html")
def diff(
    first: Number,
    second: Number,
    catalogue: Annotated[
        Path | None, typer.Option(help="Also ask both what happened there after both were trained, as the gate does")
    ] = None,
    out_file: Annotated[Path, typer.Option("--out", help="Page to write: the same queries, answered by both")] = Path(
        "diff.html"
    ),
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:
    """What is different between two releases: parameters, figures over the same questions, and what users see."""
    from training.data.catalogue_reader import read
    from training.evaluation.diff import compare

    registry = open_registry(releases)
    folders = [registry.fetch(number, releases) for number in (first, second)]
    asked = None if catalogue is None else read(catalogue)
    found = compare(folders[0], folders[1], out_file, user_key=Settings.read().user_key, catalogue=asked)
    if as_json:
        print(json.dumps({**asdict(found), "page": str(out_file)}, indent=1))
        return
    changes = Table("", f"release {first}", f"release {second}", title="What is different")
    for change in found.changes:
        changes.add_row(change.name, _brief(change.first), _brief(change.second))
    out.print(changes)
    if found.figures:
        figures = Table(
            "",
            f"release {first}",
            f"release {second}",
            "difference",
            "95 % interval",
            "questions",
            title="The same questions, held out of both",
        )
        for figure in found.figures:
            between = f"{figure.interval[0]:+.4f} to {figure.interval[1]:+.4f}"
            values = (f"{figure.first:.4f}", f"{figure.second:.4f}", f"{figure.difference:+.4f}")
            figures.add_row(figure.name, *values, between, str(figure.questions))
        out.print(figures)
    else:
        out.print("figures: --catalogue FOLDER asks both releases the same questions")
    out.print(f"of ten items shown {10 * found.overlap:.1f} are the same, over {found.queries} queries")
    print(out_file)


def _brief(value: Any) -> str:
    """Short enough for a table: of a digest the beginning says which it is."""
    text = "" if value is None else str(value)
    return f"{text[:12]}..." if len(text) >= 40 and " " not in text else text


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
    from training.cli.console import get_json, get_text
    from training.promotion.gate import read_thresholds
    from training.promotion.shadow_verdict import judge

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


def gate_options(releases: Path, catalogue: Path | None = None, thresholds: Path | None = None) -> Any:
    """What the gate is asked, with the keys that the settings name."""
    from training.promotion.policy import GateOptions

    settings = Settings.read()
    return GateOptions(releases, catalogue, thresholds, settings.user_key, settings.trusted_keys)


def print_gate(report: Any, loosened: Sequence[str] = ()) -> None:
    """The checks as a table, and the verdict as its last line."""
    against = "the first release" if report.against is None else f"beside release {report.against} in production"
    name = Column("check", no_wrap=True)  # of two columns that must be cut it is not the one
    table = Table("", name, "value", "production", "asked", "", title=f"Release {report.release}, {against}")
    for check in report.checks:
        sign = "-" if check.passed is None else Text("passed", "green") if check.passed else red("FAILED")
        numbers = ["" if number is None else f"{number:.4g}" for number in (check.value, check.production)]
        between = f"difference {check.interval[0]:+.4f} to {check.interval[1]:+.4f}" if check.interval else ""
        table.add_row(sign, check.name, *numbers, check.bound, "; ".join(filter(None, (between, check.note))))
    out.print(table)
    if loosened:
        out.print(Text(f"thresholds that ask less than the defaults: {', '.join(loosened)}", "red"), soft_wrap=True)
    failed = ", ".join(check.name for check in report.failed)
    verdict = f"is refused: {failed}" if failed else "passes"
    out.print(f"release {report.release} {verdict}", soft_wrap=True)
