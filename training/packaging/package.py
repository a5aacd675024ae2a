"""Put the products of all stages together into one release, prove it, evaluate it, seal it, give it its number."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from service.encoder import preprocessing
from service.errors import BadQuery
from service.files import digest
from service.recommender.catalogue.items import PICTURED, POPULARITY, SAME
from service.recommender.drift import reference
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query
from service.recommender.release import (  # fmt: skip
    DENSITY,
    DESCRIPTIONS,
    LANDMARKS,
    PICTURE_ROWS,
    GoldenCase,
    Manifest,
    Release,
    encoder_file,
    golden_file,
    list_files,
)
from service.signing import sign
from training.data.catalogue import Catalogue
from training.data.pictures import COLOURS
from training.encoder.precisions import answered, chain_overlaps, refusal
from training.evaluation.users_by_key import for_catalogue
from training.packaging import expected_photos
from training.previous.release import DIGESTS, FOLDER, STRANGERS, VECTORS, VIEW_ROWS, VIEWS, Previous
from training.progress import say, track
from training.ranker.calibration import calibrate
from training.ranker.fitting import at_end

GOLDEN_PICTURES, GOLDEN_USERS, GOLDEN_K = 6, 4, 10
COMPARED = 200  # photos that another precision is asked
ARROW_TYPES = {"number": pa.float64(), "boolean": pa.bool_(), "category": pa.string(), "tags": pa.list_(pa.string())}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the stages left. encoder: folder with encoder.onnx; index: folder with vectors.npy and index.faiss;
    ranker: folder with the arrays; each None where the catalogue has no pictures or no interactions."""

    catalogue: Catalogue
    seen: pd.DataFrame | None  # the interactions of the training period
    encoder: Path | None
    precisions: Mapping[str, Path]  # precision -> folder with the encoder in it, beside float32
    least_overlap: float  # of the top 10 that each of them must share with float32's, at the median query
    index: Path | None
    ranker: Path | None
    blend: Path
    manifest: Manifest
    colours: Path | None = None  # colours.npy of the pictures
    previous: Previous | None = None  # a release that may have the thumbnails already


def package(
    parts: Parts,
    releases: Path,
    *,
    number: int,
    user_key: str,
    signing_key: Path | None = None,
    report: Callable[[Recommender, Path], dict[str, Any]],
) -> Path:
    """Write a release aside, prove and evaluate it, and rename it to its number. Returns its path.

    number: one that nobody else has, as `numbers.take` gives it; signing_key: PEM file of the key that signs it;
    report: evaluates the release into a folder and returns the metrics for the manifest."""
    aside = releases / f".writing-{number}"
    try:
        _assemble(parts, aside)
        manifest = replace(parts.manifest, release=number, created=datetime.now(UTC).isoformat(timespec="seconds"))
        _write_golden(aside, [])
        _write_golden_vectors(aside, dict.fromkeys(["fp32", *parts.precisions], np.empty((0, 0), np.float32)))
        seal(aside, manifest)
        learned = Recommender(Release.open(aside), user_key=user_key)
        calibrate(learned, seed=0).save(aside / "ranker" / "blend.json")
        seal(aside, manifest)
        recommender = Recommender(Release.open(aside), user_key=user_key, encoder=learned.encoder)
        _write_expected_photos(parts, recommender, aside)
        others = {
            name: Recommender(recommender.release, precision=name, user_key=user_key) for name in parts.precisions
        }
        for name, other in others.items():
            _compare(parts, manifest, name, recommender, other)
        cases, pictures = _golden_cases(parts, recommender, aside)
        _write_golden(aside, cases)
        if pictures:
            asked = {"fp32": recommender, **others}
            _write_golden_vectors(aside, {name: each.embed(pictures) for name, each in asked.items()})
        (aside / "report").mkdir()
        metrics = report(recommender, aside / "report")
        seal(aside, replace(manifest, metrics=metrics))
        for name in ("fp32", *others):
            prove(Recommender(Release.open(aside), precision=name, user_key=user_key))
        if signing_key is not None:
            say(f"signed with key {sign(aside, signing_key)}")
        finished = releases / str(number)
        aside.replace(finished)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return finished


def _assemble(parts: Parts, folder: Path) -> None:
    """Everything but golden cases, report and manifest."""
    folder.mkdir()
    catalogue = parts.catalogue
    _write_items(catalogue, parts.seen, folder)
    _write_thumbnails(catalogue, folder, parts.previous)
    features: dict[str, object] = {"items": catalogue.kinds}
    if parts.ranker:
        features |= json.loads((parts.ranker / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(features, indent=1, sort_keys=True))
    if parts.encoder and parts.index:
        shutil.copy(parts.encoder / "encoder.onnx", folder)
        for precision, made in parts.precisions.items():
            shutil.copy(made / encoder_file(precision), folder)
        for name in ("vectors.npy", "index.faiss", LANDMARKS, DESCRIPTIONS, DENSITY, PICTURE_ROWS):
            if (parts.index / name).exists():
                shutil.copy(parts.index / name, folder)
        _write_for_retraining(parts, folder / FOLDER)
    (folder / "ranker").mkdir()
    shutil.copy(parts.blend, folder / "ranker" / "blend.json")
    if parts.ranker:
        for name in ("*.npy", "users.parquet", "objective.json", "segments.json"):
            for file in parts.ranker.glob(name):
                shutil.copy(file, folder / "ranker")


def _write_for_retraining(parts: Parts, folder: Path) -> None:
    """What a later training with the same encoder need not make again."""
    assert parts.index is not None
    assert parts.colours is not None
    folder.mkdir()
    shutil.copy(parts.colours, folder / COLOURS)
    for name in (DIGESTS, VECTORS, VIEWS, VIEW_ROWS, STRANGERS):
        if (parts.index / name).exists():
            shutil.copy(parts.index / name, folder)


def _write_items(catalogue: Catalogue, seen: pd.DataFrame | None, folder: Path) -> None:
    items = catalogue.items
    # without interactions nothing is popular
    popularity = np.zeros(len(items), np.int64) if seen is None else at_end(seen, items=len(items)).popularity
    columns: dict[str, pa.Array] = {
        "item_id": pa.array(items["item_id"], pa.string()),
        "title": pa.array(items["title"], pa.string()),
    }
    for name, kind in catalogue.kinds.items():
        values = items[name]
        if kind == "number":  # absent numbers are NaN, which no range contains
            columns[name] = pa.array(values.to_numpy(np.float64), pa.float64())
        else:
            columns[name] = pa.array(values.tolist(), ARROW_TYPES[kind], from_pandas=True)
    columns[POPULARITY] = pa.array(popularity)
    columns[PICTURED] = pa.array(items["image"].notna().to_numpy())
    if catalogue.same is not None:
        columns[SAME] = pa.array(catalogue.same, pa.int32())
    pq.write_table(pa.table(columns), folder / "items.parquet")


def _write_thumbnails(catalogue: Catalogue, folder: Path, previous: Previous | None) -> None:
    digests = catalogue.digests_by_row() if previous is not None else {}
    lengths = np.zeros(len(catalogue.items), np.int64)
    with (folder / "thumbnails.bin").open("wb") as file:
        rows = catalogue.pictured()
        for row in track(rows, "thumbnails", total=len(rows)):
            known = None if previous is None else previous.thumbnail(digests[int(row)][0])
            jpeg = preprocessing.thumbnail(catalogue.picture(row)) if known is None else known
            lengths[row] = len(jpeg)
            file.write(jpeg)
    np.save(folder / "thumbnails.npy", np.concatenate([[0], np.cumsum(lengths)]))


def _write_expected_photos(parts: Parts, recommender: Recommender, folder: Path) -> None:
    """Write drift.json, where there are pictures."""
    rows = expected_photos.rows_to_ask(parts.catalogue, split_column=parts.manifest.training["split_column"])
    users = [] if parts.seen is None else parts.seen["user_id"].unique().tolist()
    if (learned := expected_photos.learn(recommender, rows, users=users, seed=0)) is not None:
        learned.save(folder / reference.FILE)


def _compare(parts: Parts, manifest: Manifest, precision: str, recommender: Recommender, other: Recommender) -> None:
    """Ask both the same photos, and note in the manifest how far they answer alike. Raises ReleaseMismatch."""
    rows = parts.catalogue.pictured()
    chosen = rows[np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).astype(int)]
    users = [None] if parts.seen is None else [None, *sorted(parts.seen["user_id"].unique())[:COMPARED]]
    queries = [
        Query(image=parts.catalogue.picture(row), user_id=users[at % len(users)], k=GOLDEN_K)
        for at, row in enumerate(track(chosen, f"comparing {precision} with float32"))
    ]
    own, compared = (for_catalogue(each, parts.catalogue) for each in (recommender, other))
    overlap = chain_overlaps(own, compared, queries)
    figures = {"overlap_median": float(np.median(overlap)), "overlap_mean": float(overlap.mean())}
    assert manifest.encoder is not None
    manifest.encoder["precisions"][precision]["whole_chain"] = figures
    say(f"{precision}: top-{GOLDEN_K} overlap with float32 through the whole chain {overlap.mean():.3f} on average")
    if figures["overlap_median"] < parts.least_overlap:
        raise refusal(precision, f"through the whole chain {figures}", parts.least_overlap)


def _golden_cases(parts: Parts, recommender: Recommender, folder: Path) -> tuple[list[GoldenCase], list[bytes]]:
    """Pictures spread over the catalogue, and events of a few users, with what the release answers now -> the
    cases, and the pictures of those that have one."""
    catalogue = parts.catalogue
    cases: list[GoldenCase] = []
    pictures: list[bytes] = []
    if parts.encoder:
        rows = catalogue.pictured()
        chosen = rows[np.linspace(0, len(rows) - 1, min(GOLDEN_PICTURES, len(rows))).astype(int)]
        pictures = [catalogue.picture(row) for row in chosen]
        for place, picture in enumerate(pictures):
            (folder / "golden" / f"{place}.picture").write_bytes(picture)
            cases.append(GoldenCase(f"{place}.picture", [], answered(recommender, Query(image=picture, k=GOLDEN_K))))
    if parts.seen is not None:
        ids = catalogue.items["item_id"]
        for _, items in list(parts.seen.groupby("user_id", sort=True)["item"])[:GOLDEN_USERS]:
            events = [str(ids.iloc[item]) for item in items.iloc[-10:]]
            query = Query(events=tuple(Event(item) for item in events), k=GOLDEN_K)
            cases.append(GoldenCase(None, events, answered(recommender, query)))
    if not cases:
        raise BadQuery("the catalogue has neither pictures nor interactions: there is nothing to recommend by")
    return cases, pictures


def _write_golden(folder: Path, cases: list[GoldenCase]) -> None:
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "golden" / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=1))


def _write_golden_vectors(folder: Path, vectors: Mapping[str, np.ndarray]) -> None:
    for precision, found in vectors.items():
        np.save(folder / "golden" / golden_file(precision), found)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of what lies in the folder."""
    files = list_files(folder)
    encoder, index = manifest.encoder, manifest.index
    if encoder is not None and index is not None:
        fingerprint = digest(folder / "encoder.onnx")
        encoder, index = {**encoder, "fingerprint": fingerprint}, {**index, "fingerprint": fingerprint}
        precisions = {name: {**made, "parent": fingerprint} for name, made in encoder["precisions"].items()}
        encoder = {**encoder, "precisions": precisions}
    replace(manifest, files=files, encoder=encoder, index=index).write(folder)
