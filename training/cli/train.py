"""The verbs that make a release: demo-data, check, tune, train."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from service.encoder.selection import PRECISIONS
from service.errors import VitrineError
from service.files import replacing
from service.settings import Settings
from service.signing import read_key
from training.cli.console import AsJson, CataloguePath, app, open_registry, out
from training.cli.groups import grouped


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


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How the encoder is trained."""

    backbone: Annotated[str, typer.Option(help="Any torchvision classifier, or convnet")] = "mobilenet_v2"
    weights: Annotated[str, typer.Option(help="imagenet, none, or a file (.safetensors, .pt)")] = "imagenet"
    dim: Annotated[int, typer.Option(min=2, help="Dimensions of a vector")] = 128
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the encoder")] = 16
    batch_size: Annotated[int, typer.Option(min=2, help="Pictures in a step, over all processes")] = 64
    image_size: Annotated[int, typer.Option(min=32, help="Side of the crops that the encoder trains on")] = 160
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the encoder")] = 1e-3
    last_layer_steps: Annotated[int, typer.Option(min=1, help="Steps of fitting the last layer anew")] = 2000


@dataclass(frozen=True, slots=True)
class RankerOptions:
    """How the ranker is trained; None: as tuned, or chosen, or its default."""

    factors: Annotated[int | None, typer.Option(min=1, help="Factors of the ranker; default 128, or as tuned")] = None
    sweeps: Annotated[int | None, typer.Option(min=1, help="Sweeps of the factorization; default 12")] = None
    regularisation: Annotated[
        float | None, typer.Option(help="Of the factorization; default: as tuned, or chosen of a few")
    ] = None
    unobserved: Annotated[
        float | None, typer.Option(help="Weight of pairs that were not observed; default: as tuned, or chosen")
    ] = None
    confidence: Annotated[
        str | None, typer.Option(help="By event, such as view=1,like=2,purchase=4,dismiss=1; others stay as they are")
    ] = None
    half_life: Annotated[float | None, typer.Option(help="Days after which an event counts half; 0 for never")] = None


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """What the release holds beside encoder and ranker."""

    precision: Annotated[
        list[str] | None, typer.Option(help="Also export the encoder in int8 (CPUs) or fp16 (GPUs); may be repeated")
    ] = None
    least_overlap: Annotated[
        float, typer.Option(help="Share of float32's top 10 that int8 and fp16 must give at the median query")
    ] = 0.98
    index_recall: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="recall@10 for which a large catalogue's index is searched")
    ] = 0.99
    model_repository: Annotated[
        Path | None, typer.Option(help="Also install the encoder for Triton: a model repository")
    ] = None
    register: Annotated[
        bool, typer.Option(help="Number and keep the release in the registry (MLFLOW_TRACKING_URI, or beside it)")
    ] = True


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What is held out, and how much may be unusable."""

    split_column: Annotated[str | None, typer.Option(help="Column of items: train, validation, test")] = None
    test_from: Annotated[
        str | None, typer.Option(help="Hold out interactions from this date (default: last tenth)")
    ] = None
    max_unusable: Annotated[float, typer.Option(help="Share of a table's rows that may be unusable")] = 0.05


@app.command(
    epilog="Examples: vitrine train demo --releases releases --backbone convnet --weights none\n\n"
    "vitrine train catalogue --releases releases --split-column split --weights mobilenet.safetensors\n\n"
    "torchrun --nproc-per-node 2 -m training train catalogue --releases releases"
)
@grouped
def train(
    catalogue: CataloguePath,
    encoder: EncoderOptions,
    ranker: RankerOptions,
    release: ReleaseOptions,
    data: DataOptions,
    releases: Annotated[Path, typer.Option(help="Folder that releases are written to")] = Path("releases"),
    only: Annotated[str | None, typer.Option(help="One stage alone: encoder, export, index, ranker or package")] = None,
    seed: Annotated[int, typer.Option(help="Same seed and inputs, same release")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train all stages on a catalogue, and package the result as the next release. Prints its path last."""
    from training.data.catalogue_reader import require_folder
    from training.stage_cache import STAGES

    if only is not None and only not in STAGES:
        raise VitrineError(f"--only {only}: no such stage; there are {', '.join(STAGES)}")
    if wrong := sorted(set(release.precision or ()) - set(PRECISIONS)):
        raise VitrineError(f"--precision {wrong[0]}: expected {', '.join(PRECISIONS)}")
    settings = Settings.read()
    if settings.signing_key is not None:
        read_key(settings.signing_key)  # said now, in place of after the training
    confidences = {} if ranker.confidence is None else _confidences(ranker.confidence)
    require_folder(catalogue)
    # torch and numba: seconds, which no mistake should have to wait for
    from training.pipeline import train as run

    # of torchrun's processes the first one packages
    packages = release.register and only in (None, "package") and os.environ.get("RANK", "0") == "0"
    path = run(
        _options(catalogue, releases, encoder, ranker, release, data, settings, confidences, only=only, seed=seed),
        open_registry(releases, begin=True) if packages else None,
    )
    if path is None:
        return
    print(json.dumps({"release": path.name, "path": str(path)}) if as_json else path)


def _options(
    catalogue: Path,
    releases: Path,
    encoder: EncoderOptions,
    ranker: RankerOptions,
    release: ReleaseOptions,
    data: DataOptions,
    settings: Settings,
    confidences: dict[str, float],
    *,
    only: str | None,
    seed: int,
) -> Any:
    """What the stages are told."""
    from training.data.catalogue_reader import read
    from training.data.split import read_cut
    from training.encoder.trainer import EncoderParameters
    from training.options import Options
    from training.ranker.tuning import defaults, happened

    tuned = defaults(releases, lambda: happened(read(catalogue)))
    given = asdict(ranker)
    given.pop("confidence")
    return Options(
        catalogue=catalogue,
        releases=releases,
        encoder=EncoderParameters(**asdict(encoder), seed=seed),
        ranker=ranker_parameters(tuned, **given, confidences=confidences, seed=seed),
        user_key=settings.user_key,
        signing_key=settings.signing_key,
        choose=ranker.regularisation is None and ranker.unobserved is None and not tuned,
        only=only,
        precisions=tuple(name for name in PRECISIONS[1:] if name in (release.precision or ())),
        least_overlap=release.least_overlap,
        split_column=data.split_column,
        test_from=read_cut(data.test_from),
        max_unusable=data.max_unusable,
        index_recall=release.index_recall,
        model_repository=release.model_repository,
    )


def ranker_parameters(
    tuned: dict[str, Any], *, confidences: dict[str, float], half_life: float | None, **given: float | int | None
) -> Any:
    """The defaults, then what `vitrine tune` found, then what was given."""
    from training.ranker.fitting import RankerParameters

    values = tuned | {name: value for name, value in given.items() if value is not None}
    if half_life is not None:
        values["half_life"] = half_life or None
    parameters = RankerParameters(**values)
    return replace(parameters, confidences=dict(parameters.confidences) | confidences)


def _confidences(text: str) -> dict[str, float]:
    """view=1,like=2 -> numbers by event. Raises VitrineError."""
    from service.recommender.query import EVENTS

    found = {}
    for part in text.split(","):
        event, _, number = part.partition("=")
        try:
            found[event.strip()] = float(number)
        except ValueError:
            found[event.strip()] = -1.0
        if event.strip() not in EVENTS or not 0 <= found[event.strip()] < 1e6:
            raise VitrineError(
                f"--confidence {text}: expected event=number pairs such as view=1,purchase=4; "
                f"events are {', '.join(EVENTS)}, numbers at least 0"
            )
    return found
