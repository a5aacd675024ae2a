"""The verbs that look at a release: evaluate, recommend, score, segments, serve."""

import json
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from service.errors import VitrineError
from service.files import replacing
from service.settings import Settings
from training.cli.console import AsJson, ReleasePath, app, open_recommender, out
from training.progress import say, track

# of what is measured, what is printed; the rest is in metrics.json and on the page
SHOWN = {"ndcg_at_10": "nDCG@10", "recall_at_20": "recall@20", "hit_rate_at_10": "hit rate@10", "mrr_at_10": "MRR@10",
         "auc": "AUC"}  # fmt: skip


@app.command(
    epilog="Examples: vitrine evaluate releases/1 --catalogue demo --out evaluation\n\n"
    "vitrine evaluate releases/1 --catalogue demo --out evaluation --retrain leave-one-out --negatives 99"
)
def evaluate(
    release: ReleasePath,
    catalogue: Annotated[Path, typer.Option(help="Catalogue folder with the held-out data")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and report.html")],
    split_column: Annotated[str | None, typer.Option(help="Default: the one that it was trained with")] = None,
    exclude_same: Annotated[
        str | None, typer.Option(help="Also count without neighbours that share this column")
    ] = None,
    retrain: Annotated[
        str | None,
        typer.Option(help="leave-one-out or cold-items: train anew under that split, measure that"),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(min=1, help="Also rank each held-out item among so many others, as older papers do")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --retrain: the file that the encoder started from, if it was one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a release on held-out data, as it will serve, against simple baselines."""
    from training.data.catalogue_reader import read
    from training.evaluation import evaluate as evaluation
    from training.evaluation.report import write_report
    from training.retrain import train_again

    recommender = open_recommender(release)
    found = read(catalogue)
    split_column = split_column or recommender.release.manifest.training["split_column"]
    _require_columns(found.items, {"--split-column": split_column, "--exclude-same": exclude_same})
    if list(found.items["item_id"]) != recommender.release.items.ids:
        raise VitrineError(f"{catalogue} is not the catalogue that {release} was made from: its items are others")
    out_folder.mkdir(parents=True, exist_ok=True)
    if retrain is not None:
        again = train_again(
            recommender.release.manifest,
            catalogue,
            out_folder / "releases",
            protocol=retrain,
            weights=weights,
            user_key=Settings.read().user_key,
        )
        recommender = open_recommender(again)
    measured = evaluation.evaluate(
        recommender, found, split_column=split_column, exclude_same=exclude_same, negatives=negatives
    )
    measured.metrics["stages"] = evaluation.stage_times(recommender, found)
    evaluation.write_metrics(measured.metrics, out_folder)
    write_report(measured, recommender.release, out_folder / "report.html")
    _show_metrics(measured.metrics, recommender.release.number, out_folder / "report.html", as_json=as_json)


def _show_metrics(metrics: dict[str, Any], number: str, page: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(metrics, indent=1, sort_keys=True))
        return
    _print_metrics(metrics, number)
    print(page)


def _require_columns(items: Any, columns: dict[str, str | None]) -> None:
    for option, column in columns.items():
        if column is not None and column not in items:
            raise VitrineError(f"{option}: items has no column {column!r}; there are {', '.join(items.columns)}")


@app.command(epilog="Example: vitrine segments releases/1 --out segments.html")
def segments(
    release: ReleasePath,
    out_file: Annotated[Path | None, typer.Option("--out", help="Also picture them: an HTML page to write")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the users of like taste that a release knows, by the items that stand for them."""
    from training.evaluation.report import write_segments

    opened = open_recommender(release).release
    if opened.segments is None or not opened.segments.segments:
        raise VitrineError(f"{release} has no segments: it knows too few users")
    found = opened.segments.segments
    if out_file is not None:
        write_segments(opened, out_file)
    if as_json:
        print(json.dumps([asdict(segment) for segment in found], indent=1))
        return
    table = Table("segment", "shoppers", "typical items", title=f"Release {opened.number}")
    for segment in found:
        typical = [str(opened.items.describe(opened.items.row(item))["title"] or item) for item in segment.items[:5]]
        table.add_row(str(segment.segment), str(segment.shoppers), ", ".join(typical))
    out.print(table)
    if out_file is not None:
        print(out_file)


def _print_metrics(metrics: dict[str, Any], release: str) -> None:
    """Models by measures, a table for each kind of question; the whole lies in metrics.json."""
    ranking = metrics.get("ranking", {})
    for title, found in (
        ("Users with a history", ranking),
        ("Items that nobody had touched", ranking.get("cold_items", {})),
        ("Users without a history", ranking.get("cold_users", {})),
    ):
        if not found.get("test_users"):
            continue
        table = Table(
            "",
            *(Column(called, justify="right") for called in SHOWN.values()),
            title=f"{title}: {found['test_users']} users, {found['candidate_items']} items",
        )
        models = {f"release {release}": found, **found.get("baselines", {})}
        if "best_possible" in found:
            models["best possible"] = found["best_possible"]
        for name, figures in models.items():
            table.add_row(name.replace("_", " "), *(_figure(figures.get(measure)) for measure in SHOWN))
        out.print(table)
    if "retrieval" in metrics:
        found = metrics["retrieval"]
        colours = found["colour_histogram_precision_at_10"]
        out.print(
            f"photos: {found['precision_at_10']:.4f} of the ten nearest are of the photo's category "
            f"(colours alone {colours:.4f}, chance {found['chance']:.4f}), over {found['queries']} photos",
            soft_wrap=True,
        )
    out.print("milliseconds: " + ", ".join(f"{n.removesuffix('_ms')} {v:.2f}" for n, v in metrics["stages"].items()))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


@app.command(
    epilog="Examples: vitrine recommend releases/1 --user 00007\n\n"
    "vitrine recommend releases/1 --image photo.jpg --user 00007 -k 5 --json"
)
def recommend(
    release: ReleasePath,
    image: Annotated[Path | None, typer.Option(help="A photo")] = None,
    user: Annotated[str | None, typer.Option(help="A user")] = None,
    k: Annotated[int, typer.Option("-k", help="How many items, 1 to 100")] = 10,
    filter: Annotated[str | None, typer.Option(help='As JSON: {"category": ["dress"]}')] = None,
    diversity: Annotated[float, typer.Option(help="0 (none) to 1")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Ask a release one question from the terminal."""
    from service.recommender.query import parse_query

    if image is not None and not image.is_file():
        raise VitrineError(f"--image {image}: no such file")
    try:
        passing = json.loads(filter) if filter else None
    except ValueError as error:
        raise VitrineError(f"--filter is not JSON ({error})") from error
    fields = {"user_id": user, "k": k, "filter": passing, "diversity": diversity}
    query = parse_query(fields, image=image.read_bytes() if image else None)
    answer = open_recommender(release).recommend([query])[0]
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
    pairs: Annotated[Path, typer.Option(help="CSV or Parquet with user_id and item_id")],
    out_file: Annotated[Path, typer.Option("--out", help="CSV to write: the pairs, factor_score, score")],
    as_json: AsJson = False,
) -> None:
    """Score pairs of users and items: the factor score, and the final score without a photo.

    Pairs that cannot be scored (an item that the release does not hold, an empty id) keep their line, without scores;
    they are counted, and their rows named."""
    from training.data.rows import ROW
    from training.data.tables import read_file

    if not pairs.is_file():
        raise VitrineError(f"--pairs {pairs}: no such file")
    table = read_file(pairs, pairs.name, required=("user_id", "item_id"), ids=("user_id", "item_id"))
    recommender = open_recommender(release)
    scored = table.frame.assign(factor_score=float("nan"), score=float("nan"))
    items = [None if item is None else recommender.release.items.find(item) for item in scored["item_id"]]
    scored["\0item"] = [-1 if item is None else item for item in items]
    known = scored[(scored["\0item"] >= 0) & scored["user_id"].notna()]
    for user, group in track(list(known.groupby("user_id", sort=False)), "scoring"):
        factor, final = recommender.score(str(user), group["\0item"].to_numpy())
        scored.loc[group.index, "factor_score"] = factor
        scored.loc[group.index, "score"] = final
    left = sorted({*scored.loc[scored.index.difference(known.index), ROW], *(row.row for row in table.unusable)})
    with replacing(out_file) as aside:
        scored.drop(columns=[ROW, "\0item"]).to_csv(aside, index=False)
    if left:
        shown = ", ".join(str(row) for row in left[:10]) + (", ..." if len(left) > 10 else "")
        say(f"{len(left)} of {table.rows} pairs are not scored (unknown item, or no id): rows {shown}")
    summary = {"pairs": table.rows, "scored": len(known), "not_scored": [int(row) for row in left]}
    print(json.dumps({**summary, "out": str(out_file)}) if as_json else out_file)


def _require_free(option: str, host: str, port: int) -> None:
    """Raises VitrineError where another program listens there, or the address is none of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise VitrineError(
            f"{option} {port}: {error.strerror} on {host}; name another, or end what listens there"
        ) from error


@app.command(epilog="Examples: vitrine serve releases/1 --port 3000 --grpc-port 3001\n\nvitrine serve releases/current")
def serve(
    release: Annotated[Path, typer.Argument(help="Folder of one release, or a file beside it with its number")],
    host: Annotated[str, typer.Option(help="Address to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port")] = 3000,
    grpc_port: Annotated[int, typer.Option(min=0, envvar="VITRINE_GRPC_PORT", help="gRPC port; 0: none")] = 3001,
    metrics_port: Annotated[
        int, typer.Option(min=0, envvar="VITRINE_METRICS_PORT", help="Port of /metrics, for Prometheus; 0: none")
    ] = 3002,
) -> None:
    """Serve a release over HTTP and gRPC until interrupted. The page at / tries the routes out."""
    for option, number in (("--port", port), ("--grpc-port", grpc_port), ("--metrics-port", metrics_port)):
        _require_free(option, host, number)
    os.environ |= {
        "VITRINE_RELEASE": str(release.resolve()), "VITRINE_GRPC_HOST": host, "VITRINE_GRPC_PORT": str(grpc_port),
        "VITRINE_METRICS_HOST": host, "VITRINE_METRICS_PORT": str(metrics_port),
    }  # fmt: skip
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(library, "1")  # service.app says why; here it stands before numpy is loaded
    # what a large picture took goes back to the system at once, in place of staying with the thread that decoded it
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2 * 2**20))
    home = Path(__file__).resolve().parents[2]  # where the package lies in a checkout, which need not be installed
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
    os.execv(sys.executable, [sys.executable, "-m", "service", "--host", host, "--port", str(port)])
