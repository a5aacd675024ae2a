"""The verb that holds photos against what a release expects: drift."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from service.errors import VitrineError
from service.recommender.drift.stability import DRIFT, Drift
from training.cli.console import AsJson, app, get_json, open_recommender, out, red
from training.progress import say


@app.command(
    epilog="Examples: vitrine drift --from http://127.0.0.1:3002\n\n"
    "vitrine drift --from http://pod-1:3002 --from http://pod-2:3002 --json\n\n"
    "vitrine drift releases/1 --images photos --out drift.html"
)
def drift(
    release: Annotated[
        Path | None, typer.Argument(help="Folder of one release; with --from it only gives the page pictures")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photos, to be held against the release")] = None,
    services: Annotated[
        list[str] | None,
        typer.Option("--from", help="URL of a running service's port of metrics; several of one release add up"),
    ] = None,
    out_file: Annotated[Path, typer.Option("--out", help="Page to write")] = Path("drift.html"),
    as_json: AsJson = False,
) -> None:
    """How far the photos that come in are from those that a release expects. Exit code 1 where they drift."""
    from training.evaluation.drift import write_drift

    if (images is None) == (not services):
        raise VitrineError("expected photos from one place: RELEASE --images FOLDER, or --from URL")
    recommender = None if release is None else open_recommender(release)
    found = _ask(services or []) if images is None else _look(recommender, images)
    opened = None if recommender is None else recommender.release
    if opened is not None and opened.number != found.release:
        raise VitrineError(f"{release} is release {opened.number}; the services run release {found.release}")
    write_drift(found, out_file, release=opened)
    if as_json:
        print(json.dumps({**found.as_json(), "page": str(out_file)}, indent=1))
    else:
        _print(found)
        print(out_file)
    raise typer.Exit(1 if found.verdict == DRIFT else 0)


def _look(recommender: Any, images: Path) -> Drift:
    """What the photos of a folder are to a release. Those that cannot be read are named."""
    from training.evaluation.drift import look_at

    if recommender is None:
        raise VitrineError(
            f"--images {images}: name the release that they are held against: vitrine drift releases/1 ..."
        )
    if not images.is_dir():
        raise VitrineError(f"--images {images}: no such folder")
    found, unreadable = look_at(recommender, images)
    if unreadable:
        shown = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
        say(f"{len(unreadable)} files are no photos: {shown}")
    return found


def _ask(services: list[str]) -> Drift:
    """What services say at their ports of metrics. Raises VitrineError where they cannot tell, and why."""
    from training.evaluation.drift import merge

    found = []
    for url in services:
        said = get_json(f"{url.rstrip('/')}/drift")
        try:
            found.append(Drift.from_json(said))
        except (KeyError, TypeError) as error:
            raise VitrineError(f"{url} does not say drift ({error}): is it the port of metrics?") from error
        if found[-1].unmeasured:
            raise VitrineError(f"{url}, release {found[-1].release}: {found[-1].unmeasured}")
    return merge(found)


def _print(found: Drift) -> None:
    from training.evaluation.drift import name_most

    table = Table(
        "",
        Column("PSI", justify="right"),
        Column("by chance", justify="right"),
        Column("photos", justify="right"),
        "",
        "most of it",
        title=f"{found.photos} photos beside release {found.release}",
    )
    for shift in found.shifts:
        verdict = red(shift.verdict) if shift.verdict == DRIFT else shift.verdict
        most = "" if shift.psi <= shift.chance else ", ".join(name_most(shift))
        table.add_row(shift.what, f"{shift.psi:.3f}", f"{shift.chance:.3f}", str(shift.photos), verdict, most)
    out.print(table)
