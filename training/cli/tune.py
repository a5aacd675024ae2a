"""The verb that searches the ranker's parameters: tune."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from training.cli.console import AsJson, CataloguePath, app, out


@app.command(epilog="Example: vitrine tune shop --releases releases --trials 40")
def tune(
    catalogue: CataloguePath,
    releases: Annotated[Path, typer.Option(help="Folder of releases; tuned.json is written there")] = Path("releases"),
    trials: Annotated[int, typer.Option(min=1, help="Trials of the study, those of earlier runs included")] = 40,
    test_from: Annotated[
        str | None, typer.Option(help="Hold out interactions from this date (default: last tenth)")
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="As for train")] = None,
    release: Annotated[
        Path | None, typer.Option(help="A release of this catalogue, whose picture vectors are the items' features")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed and inputs, same search")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search the ranker's parameters on the last tenth of the training period; `vitrine train` uses what is found.

    Broken off, it goes on where it was when it is started again."""
    from training.data.catalogue_reader import read
    from training.data.split import read_cut
    from training.ranker.tuning import happened, save, tune_ranker

    found = read(catalogue)
    parameters, reached, before = tune_ranker(
        found,
        releases,
        trials=trials,
        test_from=read_cut(test_from),
        split_column=split_column,
        release=release,
        seed=seed,
    )
    path = save(parameters, reached, releases, happened(found))
    if as_json:
        print(
            json.dumps({"path": str(path), "ndcg_at_20": reached, "before": before, "parameters": asdict(parameters)})
        )
        return
    table = Table("parameter", "value", title=f"nDCG@20 {before:.4f} -> {reached:.4f} on the validation period")
    for name, value in asdict(parameters).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    out.print(table)
    print(path)
