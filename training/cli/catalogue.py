"""The verbs of a catalogue folder: demo-data, check."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from service.errors import VitrineError
from service.files import replacing
from training.cli.console import AsJson, CataloguePath, app, out


@app.command(epilog="Example: vitrine demo-data demo")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    items: Annotated[int, typer.Option(min=24, help="Garments to draw")] = 1320,
    shoppers: Annotated[int, typer.Option(min=10, help="Users who click")] = 2000,
    seed: Annotated[int, typer.Option(help="Same seed, same boutique")] = 0,
) -> None:
    """Draw a small boutique: pictures of garments, and users whose tastes are known."""
    from training.demo import boutique

    if folder.exists():
        raise VitrineError(f"{folder} exists already; name a new folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as aside:
        boutique.write(aside, items=items, shoppers=shoppers, seed=seed)
    print(folder)


@app.command(epilog="Example: vitrine check demo")
def check(
    catalogue: CataloguePath,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(help="Rows to list of each reason")] = 5,
    max_unusable: Annotated[float, typer.Option(help="Share of a table's rows that may be unusable")] = 0.05,
) -> None:
    """Say what of a catalogue folder is usable, and what is not, by reason. Exit code 1 past --max-unusable."""
    from training.data.catalogue_reader import inspect
    from training.data.pictures import examine

    found = inspect(catalogue)
    examined = examine(found)
    found = found.with_pictures(examined.unreadable, examined.same)
    summary: dict[str, Any] = {
        "rows": found.rows,
        "items": len(found.items),
        "pictures": len(found.pictured()),
        "interactions": 0 if found.interactions is None else len(found.interactions),
        "users": 0 if found.users is None else len(found.users),
        "columns": [asdict(column) for column in found.columns],
        "notes": list(found.notes),
        "near_duplicates": found.near_duplicates(),
        "unusable": [{"table": t, "reason": r, "rows": n} for (t, r), n in found.unusable_by_reason().items()],
    }
    if as_json:
        print(json.dumps({**summary, "listed": [asdict(u) for u in found.unusable]}, indent=1))
    else:
        _print_check(summary, found.unusable, limit)
    problem = found.problem(max_unusable)
    if problem:
        raise VitrineError(problem)


def _print_check(summary: dict[str, Any], unusable: tuple[Any, ...], limit: int) -> None:
    table = Table("", "rows", "usable", title="Catalogue")
    usable = {"items": summary["items"], "interactions": summary["interactions"], "users": summary["users"]}
    for name, rows in summary["rows"].items():
        table.add_row(name, str(rows), str(usable[name]))
    table.add_row("pictures", "", str(summary["pictures"]))
    out.print(table)
    for of in summary["rows"]:
        if own := [column for column in summary["columns"] if column["table"] == of]:
            out.print(f"columns of {of}: " + ", ".join(f"{c['name']} ({c['kind']})" for c in own), soft_wrap=True)
        for column in (column for column in own if column["why"]):
            out.print(f"  {column['name']} is {column['kind']}: {column['why']}", soft_wrap=True)
    for note in summary["notes"]:
        out.print(note, soft_wrap=True)
    if groups := summary["near_duplicates"]:
        out.print(
            f"{sum(map(len, groups))} items have nearly the same picture as another: {len(groups)} in place of them; "
            "they are kept on one side of every split, and `distinct` answers with one of each",
            soft_wrap=True,
        )
        for ids in groups[:limit]:
            out.print(f"  {', '.join(ids[:limit])}" + (" ..." if len(ids) > limit else ""), soft_wrap=True)
        if len(groups) > limit:
            out.print(f"  and {len(groups) - limit} more; --limit lists them")
    for reason in summary["unusable"]:
        out.print(Text(f"{reason['table']}: {reason['rows']} x {reason['reason']}", style="bold"), soft_wrap=True)
        same = [u for u in unusable if (u.table, u.reason) == (reason["table"], reason["reason"])]
        for row in same[:limit]:
            out.print(f"  row {row.row}: {row.value}", soft_wrap=True)
        if len(same) > limit:
            out.print(f"  and {len(same) - limit} more; --limit lists them")
    if not summary["unusable"]:
        out.print("every row is usable")
