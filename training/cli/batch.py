"""The verb that answers every user at once: recommend-all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.batch import run
from service.batch.options import DEFAULT_K, Options, Source, read_filter
from service.batch.run import Job, Progress, Summary
from service.encoder.selection import available_cpus
from service.settings import Settings
from training.cli.console import AsJson, Releases, app
from training.progress import bar, say

SHOWN_ROWS = 10  # of those without an id


@app.command(
    epilog="Examples: vitrine recommend-all releases/1 --out recommendations.parquet\n\n"
    'vitrine recommend-all releases/1 --out dresses.parquet --users users.csv -k 5 --filter \'{"category": ["dress"]}\''
)
def recommend_all(
    release: Annotated[Path, typer.Argument(metavar="N", help="Folder of one release, or its number in --releases")],
    out_file: Annotated[Path, typer.Option("--out", help="Parquet file to write; in a folder: N.parquet")],
    users: Annotated[
        Path | None, typer.Option(help="CSV or Parquet with user_id; default: every user of the release, by keyed hash")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items each, 1 to 100")] = DEFAULT_K,
    filter: Annotated[str | None, typer.Option(help='As JSON: {"category": ["dress"]}')] = None,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user has touched")] = True,
    diversity: Annotated[float, typer.Option(help="0 (none) to 1")] = 0.0,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Also write the terms of each score, as JSON, and because")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default: a core each")] = None,
    releases: Releases = Path("releases"),
    as_json: AsJson = False,
) -> None:
    """Answer every user with the items that the service gives them, in one Parquet file.

    Where a run was broken off, the same command goes on."""
    settings = Settings.read()
    if not release.exists() and release.name.isdigit() and release == Path(release.name):
        release = releases / release
    source = Source(release, settings.user_key, settings.trusted_keys)
    options = Options(k, read_filter(filter), exclude_seen, diversity, reasons)
    processes = (settings.threads or available_cpus()) if workers is None else workers
    with _progress() as progress:
        made = run.recommend_all(Job(source, options, out_file, users, processes), say=say, progress=progress)
    _say(made)
    print(json.dumps(asdict(made)) if as_json else made.out)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar of users, drawn once some are to be answered."""
    drawn = bar()
    task = drawn.add_task("answering users", total=None, note="")

    def progress(done: int, users: int) -> None:
        drawn.start()
        drawn.update(task, completed=done, total=users)
        pace = drawn.tasks[task].speed
        drawn.update(task, note="" if pace is None else f"{pace:,.0f} users/s")

    try:
        yield progress
    finally:
        drawn.stop()


def _say(made: Summary) -> None:
    """What a person wants to know of it."""
    if made.repeated:
        say(f"rows of users that repeat an earlier one: {made.repeated:,}")
    if made.unusable:
        rows = ", ".join(map(str, made.unusable[:SHOWN_ROWS])) + (", ..." if len(made.unusable) > SHOWN_ROWS else "")
        say(f"rows of users without a user_id: {len(made.unusable):,} (rows {rows})")
    if made.without_items:
        say(f"users without a row in the file, since no item passes for them: {made.without_items:,}")
    tiers = ", ".join(f"{tier} {users:,}" for tier, users in made.tiers.items())
    say(f"release {made.release}: {made.users:,} users ({tiers or 'none with an item'}), {made.rows:,} rows")
    if made.answered:
        say(f"{made.answered:,} users in {made.seconds:.1f} s: {made.users_per_second:,.0f} users/s")
