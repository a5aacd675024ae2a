"""The `vitrine` command: demo-data, check, train, evaluate, recommend, score, serve."""

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import typer
from rich.console import Console
from rich.table import Table

from service.errors import VitrineError
from service.settings import Settings

app = typer.Typer(
    help="Visual recommendation: train a release, look at it, serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()

CataloguePath = Annotated[Path, typer.Argument(help="Catalogue folder: items.csv or .parquet, images/, ...")]
ReleasePath = Annotated[Path, typer.Argument(help="Folder of one release, such as releases/1")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


def main() -> None:
    """Run the command line; errors of ours are one line on standard error, and exit code 1."""
    try:
        app()
    except VitrineError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, markup=True, soft_wrap=True)
        sys.exit(1)


@app.command(epilog="Example: vitrine demo-data demo")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    items: Annotated[int, typer.Option(min=24, help="Garments to draw")] = 1320,
    shoppers: Annotated[int, typer.Option(min=10, help="Shoppers who click")] = 2000,
    seed: Annotated[int, typer.Option(help="Same seed, same boutique")] = 0,
) -> None:
    """Draw a small boutique: pictures of garments, and shoppers whose tastes are known."""
    from training import boutique

    if folder.exists():
        raise VitrineError(f"{folder} exists already; name a new folder, or remove it")
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    boutique.write(aside, items=items, shoppers=shoppers, seed=seed)
    aside.replace(folder)
    print(folder)


@app.command(epilog="Example: vitrine check demo")
def check(
    catalogue: CataloguePath,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(help="Rows to list of each reason")] = 5,
    max_unusable: Annotated[float, typer.Option(help="Share of a table's rows that may be unusable")] = 0.05,
) -> None:
    """Say what of a catalogue folder is usable, and what is not, by reason. Exit code 1 past --max-unusable."""
    from training.catalogue import read
    from training.pictures import find_unreadable

    found = read(catalogue)
    found = found.with_unreadable(find_unreadable(found))
    summary: dict[str, Any] = {
        "rows": found.rows,
        "items": len(found.items),
        "pictures": len(found.pictured()),
        "interactions": 0 if found.interactions is None else len(found.interactions),
        "users": 0 if found.users is None else len(found.users),
        "columns": found.kinds,
        "unusable": [{"table": t, "reason": r, "rows": n} for (t, r), n in found.unusable_by_reason().items()],
    }
    if as_json:
        print(json.dumps({**summary, "listed": [asdict(u) for u in found.unusable]}, indent=1))
    else:
        _print_check(summary, found.unusable, limit)
    found.require_usable(max_unusable)


def _print_check(summary: dict[str, Any], unusable: tuple[Any, ...], limit: int) -> None:
    table = Table("", "rows", "usable", title="Catalogue")
    usable = {"items": summary["items"], "interactions": summary["interactions"], "users": summary["users"]}
    for name, rows in summary["rows"].items():
        table.add_row(name, str(rows), str(usable[name]))
    table.add_row("pictures", "", str(summary["pictures"]))
    out.print(table)
    out.print("columns: " + ", ".join(f"{name} ({kind})" for name, kind in summary["columns"].items()), highlight=False)
    for reason in summary["unusable"]:
        out.print(f"[bold]{reason['table']}: {reason['rows']} x {reason['reason']}[/bold]", highlight=False)
        same = [u for u in unusable if (u.table, u.reason) == (reason["table"], reason["reason"])]
        for row in same[:limit]:
            out.print(f"  row {row.row}: {row.value}", highlight=False, markup=False)
    if not summary["unusable"]:
        out.print("every row is usable")


@app.command(
    epilog="Examples: vitrine train demo --releases releases --backbone convnet --weights none\n\n"
    "vitrine train catalogue --releases releases --split-column split --weights mobilenet.safetensors\n\n"
    "torchrun --nproc-per-node 2 -m training train catalogue --releases releases"
)
def train(
    catalogue: CataloguePath,
    releases: Annotated[Path, typer.Option(help="Folder that releases are written to")] = Path("releases"),
    only: Annotated[str | None, typer.Option(help="One stage alone: encoder, export, index, ranker or package")] = None,
    backbone: Annotated[str, typer.Option(help="Any torchvision classifier, or convnet")] = "mobilenet_v2",
    weights: Annotated[str, typer.Option(help="imagenet, none, or a file (.safetensors, .pt)")] = "imagenet",
    dim: Annotated[int, typer.Option(min=2, help="Dimensions of a vector")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the encoder")] = 16,
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures in a step, over all processes")] = 64,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the crops that the encoder trains on")] = 160,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the encoder")] = 1e-3,
    factors: Annotated[int, typer.Option(min=1, help="Factors of the ranker")] = 64,
    sweeps: Annotated[int, typer.Option(min=1, help="Sweeps of the factorization")] = 12,
    regularisation: Annotated[float, typer.Option(help="Of the factorization")] = 0.003,
    unobserved: Annotated[float, typer.Option(help="Weight of pairs that were not observed")] = 1.0,
    split_column: Annotated[str | None, typer.Option(help="Column of items: train, validation, test")] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Hold out interactions from this date (default: last tenth)")
    ] = None,
    max_unusable: Annotated[float, typer.Option(help="Share of a table's rows that may be unusable")] = 0.05,
    seed: Annotated[int, typer.Option(help="Same seed and inputs, same release")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train all stages on a catalogue, and package the result as the next release. Prints its path last."""
    from training.encoder import EncoderParameters
    from training.ranker import RankerParameters
    from training.train import STAGES, Options, read_cut
    from training.train import train as run

    if only is not None and only not in STAGES:
        raise VitrineError(f"--only {only}: no such stage; there are {', '.join(STAGES)}")
    path = run(
        Options(
            catalogue=catalogue,
            releases=releases,
            encoder=EncoderParameters(
                backbone=backbone, weights=weights, dim=dim, epochs=epochs, batch_size=batch_size,
                image_size=image_size, learning_rate=learning_rate, seed=seed,
            ),
            ranker=RankerParameters(
                factors=factors, sweeps=sweeps, regularisation=regularisation, unobserved=unobserved, seed=seed
            ),
            user_key=Settings().user_key,
            only=only,
            split_column=split_column,
            test_from=None if test_from is None else read_cut(test_from),
            max_unusable=max_unusable,
        )
    )  # fmt: skip
    if path is None:
        return
    print(json.dumps({"release": path.name, "path": str(path)}) if as_json else path)


@app.command(epilog="Example: vitrine evaluate releases/1 --catalogue demo --out evaluation")
def evaluate(
    release: ReleasePath,
    catalogue: Annotated[Path, typer.Option(help="Catalogue folder with the held-out data")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and report.html")],
    split_column: Annotated[str | None, typer.Option(help="Default: the one that it was trained with")] = None,
    exclude_same: Annotated[
        str | None, typer.Option(help="Also count without neighbours that share this column")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a release on held-out data, as it will serve, against simple baselines."""
    from training import evaluate as evaluation
    from training.catalogue import read
    from training.report import write_report

    recommender = _open(release)
    found = read(catalogue)
    split_column = split_column or recommender.release.manifest.training["split_column"]
    for name, column in (("--split-column", split_column), ("--exclude-same", exclude_same)):
        if column is not None and column not in found.items:
            raise VitrineError(f"{name}: items has no column {column!r}; there are {', '.join(found.items.columns)}")
    if list(found.items["item_id"]) != recommender.release.items.ids:
        raise VitrineError(f"{catalogue} is not the catalogue that {release} was made from: its items are others")
    measured = evaluation.evaluate(recommender, found, split_column=split_column, exclude_same=exclude_same)
    measured.metrics["stages"] = evaluation.stage_times(recommender, found)
    out_folder.mkdir(parents=True, exist_ok=True)
    evaluation.write_metrics(measured.metrics, out_folder)
    write_report(measured, recommender.release, out_folder / "report.html")
    if as_json:
        print(json.dumps(measured.metrics, indent=1, sort_keys=True))
    else:
        _print_metrics(measured.metrics)
        print(out_folder / "report.html")


def _print_metrics(metrics: dict[str, Any]) -> None:
    table = Table("measure", "value", title="Evaluation")

    def add(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            elif isinstance(value, list):
                table.add_row(f"{prefix}{name}", " to ".join(f"{v:.4f}" for v in value))
            else:
                table.add_row(f"{prefix}{name}", f"{value:.4f}" if isinstance(value, float) else str(value))

    add("", metrics)
    out.print(table)


@app.command(
    epilog="Examples: vitrine recommend releases/1 --user 00007\n\n"
    "vitrine recommend releases/1 --image photo.jpg --user 00007 -k 5 --json"
)
def recommend(
    release: ReleasePath,
    image: Annotated[Path | None, typer.Option(help="A photo")] = None,
    user: Annotated[str | None, typer.Option(help="A shopper")] = None,
    k: Annotated[int, typer.Option("-k", help="How many items, 1 to 100")] = 10,
    filter: Annotated[str | None, typer.Option(help='As JSON: {"category": ["dress"]}')] = None,
    diversity: Annotated[float, typer.Option(help="0 (none) to 1")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Ask a release one question from the terminal."""
    from service.queries import parse_query

    if image is not None and not image.is_file():
        raise VitrineError(f"--image {image}: no such file")
    try:
        passing = json.loads(filter) if filter else None
    except ValueError as error:
        raise VitrineError(f"--filter is not JSON ({error})") from error
    fields = {"user_id": user, "k": k, "filter": passing, "diversity": diversity}
    query = parse_query(fields, image=image.read_bytes() if image else None)
    answer = _open(release).recommend([query])[0]
    if as_json:
        print(json.dumps(asdict(answer), indent=1))
        return
    table = Table(
        "", "item", "title", "score", "terms", "because", title=f"release {answer.release}, tier {answer.tier}"
    )
    for place, item in enumerate(answer.items, start=1):
        terms = ", ".join(f"{name} {part:.3f}" for name, part in item.terms.items())
        table.add_row(str(place), item.item_id, item.title, f"{item.score:.3f}", terms, ", ".join(item.because))
    out.print(table)
    if answer.query:
        seems = "looks like" if answer.query["in_catalogue"] else "looks like nothing here; nearest is"
        out.print(
            f"the photo {seems} {answer.query['category']} ({100 * answer.query['confidence']:.0f} % of the votes)"
        )


@app.command(epilog="Example: vitrine score releases/1 --pairs pairs.csv --out scores.csv")
def score(
    release: ReleasePath,
    pairs: Annotated[Path, typer.Option(help="CSV with user_id and item_id")],
    out_file: Annotated[Path, typer.Option("--out", help="CSV to write: the pairs, factor_score, score")],
    as_json: AsJson = False,
) -> None:
    """Score pairs of shoppers and items: the factor score, and the final score without a photo."""
    import pandas as pd

    if not pairs.is_file():
        raise VitrineError(f"--pairs {pairs}: no such file")
    table = pd.read_csv(pairs, dtype=str, keep_default_na=False)
    if missing := [c for c in ("user_id", "item_id") if c not in table.columns]:
        raise VitrineError(f"{pairs} lacks {', '.join(missing)}; the columns are {', '.join(table.columns)}")
    recommender = _open(release)
    scored = table.assign(factor_score=float("nan"), score=float("nan"))
    for user, group in table.groupby("user_id", sort=False):
        rows = [recommender.release.items.row(item) for item in group["item_id"]]
        factor, final = recommender.score(str(user), rows)
        scored.loc[group.index, "factor_score"] = factor
        scored.loc[group.index, "score"] = final
    aside = out_file.with_name(out_file.name + ".part")
    scored.to_csv(aside, index=False)
    aside.replace(out_file)
    print(json.dumps({"pairs": len(scored), "out": str(out_file)}) if as_json else out_file)


@app.command(epilog="Example: vitrine serve releases/1 --port 3000")
def serve(
    release: ReleasePath,
    host: Annotated[str, typer.Option(help="Address to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port")] = 3000,
) -> None:
    """Serve a release over HTTP until interrupted. The page at / tries the routes out."""
    _open(release)  # what cannot be served is said here, before a server starts
    os.environ["VITRINE_RELEASE"] = str(release.resolve())
    home = Path(__file__).resolve().parent.parent
    arguments = [
        "bentoml",
        "serve",
        "service.app:Vitrine",
        "--host",
        host,
        "--port",
        str(port),
        "--working-dir",
        str(home),
    ]
    os.execv(sys.executable, [sys.executable, "-m", *arguments])


def _open(release: Path) -> Any:
    from service.pipeline import Recommender
    from service.release import Release

    recommender = Recommender(Release.open(release), user_key=Settings().user_key)
    recommender.prove()
    return recommender
