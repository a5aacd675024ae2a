"""The verb that makes a release: train."""

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from service.encoder.selection import PRECISIONS
from service.errors import VitrineError
from service.settings import Settings
from service.signing import read_key
from training.cli.console import AsJson, StoreUrl, app, grouped, open_registry
from training.cli.going_on import go_on_from
from training.cli.live import folder_of
from training.watch import read_duration, watch


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
        Path | None, typer.Option(help="Also install the encoder into this model repository of Triton")
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
    store: StoreUrl = None


@dataclass(frozen=True, slots=True)
class AgainOptions:
    """How a training goes on from an earlier one, and when."""

    encoder_from: Annotated[
        str | None,
        typer.Option(
            help="Release to go on from, by number or path: its encoder and vectors are kept; none: train anew "
            "(default: production, while its encoder holds on new pictures)"
        ),
    ] = None
    watch: Annotated[
        str | None,
        typer.Option(help="Train whenever folder or store have changed, looking this often, such as 30m, 6h or 1d"),
    ] = None


@app.command(
    epilog="Examples: vitrine train demo --releases releases --backbone convnet --weights none\n\n"
    "vitrine train shop --store sqlite:///live.db --encoder-from 7\n\n"
    "vitrine train shop --store postgresql://db/vitrine --watch 6h\n\n"
    "vitrine train catalogue --releases releases --split-column split --weights mobilenet.safetensors\n\n"
    "torchrun --nproc-per-node 2 -m training train catalogue --releases releases"
)
@grouped
def train(
    context: typer.Context,
    encoder: EncoderOptions,
    ranker: RankerOptions,
    release: ReleaseOptions,
    data: DataOptions,
    again: AgainOptions,
    catalogue: Annotated[
        Path | None, typer.Argument(help="Catalogue folder; may be left out where the store holds every item")
    ] = None,
    releases: Annotated[Path, typer.Option(help="Folder that releases are written to")] = Path("releases"),
    only: Annotated[str | None, typer.Option(help="One stage alone: encoder, export, index, ranker or package")] = None,
    seed: Annotated[int, typer.Option(help="Same seed and inputs, same release")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train all stages on a catalogue, and package the result as the next release. Prints its path last."""
    from training.stage_cache import STAGES

    if only is not None and only not in STAGES:
        raise VitrineError(f"--only {only}: no such stage; there are {', '.join(STAGES)}")
    if wrong := sorted(set(release.precision or ()) - set(PRECISIONS)):
        raise VitrineError(f"--precision {wrong[0]}: expected {', '.join(PRECISIONS)}")
    settings = Settings.read()
    if settings.signing_key is not None:
        read_key(settings.signing_key)  # said now, in place of after the training
    confidences = {} if ranker.confidence is None else _confidences(ranker.confidence)
    store = data.store or settings.store
    if again.watch is not None:
        watch(catalogue, store, every=read_duration(again.watch), command=_without_watch())
    folder = folder_of(catalogue, store, releases)
    # torch and numba: seconds, which no mistake should have to wait for
    from training.pipeline import train as run

    # of torchrun's processes the first one packages
    packages = release.register and only in (None, "package") and os.environ.get("RANK", "0") == "0"
    registry = open_registry(releases, begin=True) if packages else None
    # a log is known again by the ids of its users, which the exported folder does not have
    told = _options(
        catalogue or folder, releases, encoder, ranker, release, data, settings, confidences, only=only, seed=seed
    )
    path = run(go_on_from(replace(told, catalogue=folder), again.encoder_from, _given(context, encoder)), registry)
    if path is None:
        return
    print(json.dumps({"release": path.name, "path": str(path)}) if as_json else path)


def _without_watch() -> list[str]:
    """The command that does once what this one does again and again."""
    words = sys.argv[1:]
    at = next(place for place, word in enumerate(words) if word.partition("=")[0] == "--watch")
    return [sys.executable, "-m", "training", *words[:at], *words[at + (1 if "=" in words[at] else 2) :]]


def _given(context: typer.Context, encoder: EncoderOptions) -> dict[str, Any]:
    """The options of the encoder that somebody named."""
    sources = {name: context.get_parameter_source(name) for name in asdict(encoder)}
    return {
        name: value for name, value in asdict(encoder).items()
        if (source := sources[name]) is not None and source.name == "COMMANDLINE"
    }  # fmt: skip


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
