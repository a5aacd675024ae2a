"""A release: one immutable folder that holds everything that answers, and says what it holds.

    manifest.json   encoder.onnx   items.parquet   vectors.npy   index.faiss   thumbnails.bin   thumbnails.npy
    picture_rows.npy (the item of each picture, where one has several)
    landmarks.npy, landmarks.faiss (by which an item is recognised)   density.npy (by which something foreign is)
    encoder.int8.onnx, encoder.fp16.onnx (the encoder in fewer bits, where it was asked for and answers alike)
    drift.json (how the photos that are expected are distributed)
    ranker/ (item_factors, user_factors, gramian, history_indptr, history_items .npy, users.parquet,
             objective.json, blend.json; with features item_prior, user_prior, user_base; trend, segments;
             trend_late, trend_ever, from which later events go on with the trend)
    retraining/ (picture_digests, picture_vectors, colours, views, view_rows, strangers .npy: what a later training need
                 not make again)
    features.json   golden/   report/

Encoder, vectors, index are absent for a catalogue without pictures, arrays of ranker/ for one without interactions.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.encoder.preprocessing import Preprocessing, decode_all
from service.errors import ReleaseDamaged, ReleaseMismatch, ReleaseTooNew, shown
from service.files import digest, write_text
from service.recommender.catalogue.items import Items
from service.recommender.catalogue.thumbnails import Thumbnails
from service.recommender.drift import reference
from service.recommender.factors import Ranker
from service.recommender.index.in_catalogue import InCatalogue
from service.recommender.index.recognition import Recogniser
from service.recommender.index.vector_index import EF_SEARCH, Index
from service.recommender.item_prior import ItemPrior
from service.recommender.scoring.weights import Blend
from service.recommender.user_profile import Segments
from service.signing import MANIFEST as MANIFEST
from service.signing import SIGNATURE, require_trusted

FORMAT_VERSION = 1
PICTURE_ROWS, LANDMARKS, DESCRIPTIONS = "picture_rows.npy", "landmarks.npy", "landmarks.faiss"
DENSITY = "density.npy"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What manifest.json says. Every file of the release but itself is listed in `files`."""

    release: int
    created: str
    preprocessing: dict[str, Any]
    rows: dict[str, int]
    data: dict[str, Any]
    training: dict[str, Any]
    code: dict[str, str]
    encoder: dict[str, Any] | None = None
    index: dict[str, Any] | None = None
    ranker: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check manifest.json. Raises ReleaseDamaged, ReleaseTooNew."""
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text())
            version = values["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseDamaged(f"{folder} is not a release: {MANIFEST} cannot be read ({error})") from error
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ReleaseTooNew(
                f"{folder} has format version {version}; this code reads up to {FORMAT_VERSION}: upgrade vitrine"
            )
        try:
            return cls(**{f.name: values[f.name] for f in fields(cls)})
        except KeyError as error:
            raise ReleaseDamaged(f"{path} lacks {error}") from error

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        write_text(folder / MANIFEST, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """A query and what it must give. picture: file name in golden/, or None; events: item ids, oldest first."""

    picture: str | None
    events: list[str]
    items: list[str]


@dataclass(frozen=True, slots=True)
class Golden:
    """cases, and the vectors of those with a picture by the encoder's precision: (pictures, dim) float32."""

    cases: list[GoldenCase]
    vectors: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Release:
    """An opened release: verified, its parts memory-mapped. `index`, `ranker` may be None.
    encoders: precision -> ONNX file, empty for a catalogue without pictures."""

    path: Path
    manifest: Manifest
    items: Items
    thumbnails: Thumbnails
    blend: Blend
    golden: Golden
    preprocessing: Preprocessing
    encoders: Mapping[str, Path]
    index: Index | None
    ranker: Ranker | None
    segments: Segments | None = None
    recogniser: Recogniser | None = None
    familiarity: InCatalogue | None = None
    item_prior: ItemPrior | None = None
    expected_photos: reference.Reference | None = None

    @classmethod
    def open(cls, path: Path | str, *, trusted: Sequence[Ed25519PublicKey] = ()) -> "Release":
        """Verify and open. trusted: keys of which one must have signed it; none: whoever.

        Raises ReleaseDamaged, ReleaseMismatch, ReleaseTooNew, ReleaseUntrusted."""
        path = Path(path)
        manifest = verify(path, trusted=trusted)
        try:
            return cls._open_parts(path, manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseDamaged(f"{path}: a part cannot be opened ({error}); make a new release") from error

    @classmethod
    def _open_parts(cls, path: Path, manifest: Manifest) -> "Release":
        features = json.loads((path / "features.json").read_text())
        items = Items.open(path / "items.parquet", features["items"])
        thumbnails = Thumbnails(path / "thumbnails.bin", np.load(path / "thumbnails.npy", allow_pickle=False))
        blend = Blend.open(path / "ranker" / "blend.json")
        encoders: dict[str, Path] = {}
        index, ranker, segments, recogniser, familiarity = None, None, None, None, None
        if manifest.encoder is not None:
            precisions = ("fp32", *manifest.encoder.get("precisions", ()))
            encoders = {precision: path / encoder_file(precision) for precision in precisions}
            facts = manifest.index or {}
            rows = np.flatnonzero(items.pictured)
            if PICTURE_ROWS in manifest.files:
                rows = np.load(path / PICTURE_ROWS, allow_pickle=False)
            index = Index.open(
                path / "index.faiss", rows, items=len(items), ef_search=facts.get("ef_search", EF_SEARCH)
            )
            if facts.get("in_catalogue") is not None:
                familiarity = InCatalogue.open(path / DENSITY, facts["in_catalogue"])
            if facts.get("match") is not None:
                recogniser = Recogniser.open(path / LANDMARKS, path / DESCRIPTIONS, rows, facts["match"])
        if manifest.ranker is not None:
            ranker = Ranker.open(path / "ranker")
            segments = Segments.open(path / "ranker")
        release = cls(
            path,
            manifest,
            items,
            thumbnails,
            blend,
            _golden(path, encoders),
            Preprocessing.from_json(manifest.preprocessing),
            encoders,
            index,
            ranker,
            segments,
            recogniser,
            familiarity,
            None if ranker is None else ItemPrior.open(path),
            reference.Reference.open(path / reference.FILE) if reference.FILE in manifest.files else None,
        )
        release._require_fit()
        return release

    def golden_pixels(self) -> np.ndarray:
        """The golden pictures: (n, 224, 224, 3) uint8."""
        golden = [self.path / "golden" / case.picture for case in self.golden.cases if case.picture]
        return decode_all((path.read_bytes() for path in golden), preprocessing=self.preprocessing)

    def _require_fit(self) -> None:
        """Dimensions, row counts and fingerprints of the parts against each other and the manifest."""
        manifest, n = self.manifest, len(self.items)
        facts: list[tuple[str, Any, str, Any]] = [("items.parquet rows", n, "manifest", manifest.rows["items"])]
        if manifest.encoder is not None and manifest.index is not None and self.index is not None:
            own = manifest.files["encoder.onnx"]["sha256"]
            facts += [
                ("encoder.onnx sha256", own, "manifest's fingerprint", manifest.encoder["fingerprint"]),
                ("index fingerprint", manifest.index["fingerprint"], "encoder fingerprint", own),
                ("vectors.npy", _shape(self.path / "vectors.npy"), "items x encoder dim", (n, manifest.encoder["dim"])),
                ("index size", self.index.sealed_size, "pictures", len(self.index)),
                ("index dim", self.index.sealed_dim, "encoder dim", manifest.encoder["dim"]),
            ]
            if (expected := self.expected_photos) is not None:
                facts.append((f"{reference.FILE} dim", expected.dim, "encoder dim", manifest.encoder["dim"]))
            facts += [
                (f"parent of {precision}", made["parent"], "encoder.onnx sha256", own)
                for precision, made in manifest.encoder.get("precisions", {}).items()
            ]
        if self.ranker is not None:
            users, factors = self.ranker.user_factors.shape
            facts += [
                ("item_factors", self.ranker.item_factors.shape, "items x factors", (n, factors)),
                ("user_factors rows", users, "users", self.ranker.users),
                ("gramian", self.ranker.gramian.shape, "factors x factors", (factors, factors)),
            ]
        wrong = [
            f"{name} is {found}, {other} is {expected}" for name, found, other, expected in facts if found != expected
        ]
        if wrong:
            raise ReleaseMismatch(f"{self.path}: {'; '.join(wrong)}; make a new release: vitrine train")

    @property
    def number(self) -> str:
        """The release number as replies give it."""
        return str(self.manifest.release)


def resolve(path: Path) -> Path:
    """The folder of a release: `path` itself, or the one beside the file `path` whose number it holds.

    Raises ReleaseDamaged."""
    if not path.is_file():
        return path
    said = path.read_text(errors="replace").strip()
    if not re.fullmatch("[0-9]{1,18}", said):
        raise ReleaseDamaged(f"{path} must hold the number of a release beside it, such as 7; it holds {shown(said)}")
    return path.parent / said


def point(pointer: Path, text: str) -> None:
    """Write a pointer file, which `resolve` reads."""
    write_text(pointer, text)


def verify(folder: Path, *, trusted: Sequence[Ed25519PublicKey] = ()) -> Manifest:
    """The manifest of a release, once its signature and every file were found to be as they should. What the signature
    covers is looked at before anything is parsed; no file may be a link, which could lead out of the folder.

    Raises ReleaseUntrusted, ReleaseTooNew, ReleaseDamaged naming what is missing, extra and changed."""
    require_trusted(folder, trusted)
    manifest = Manifest.read(folder)
    if links := sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink()):
        raise ReleaseDamaged(f"{folder} holds links ({', '.join(links[:5])}); a release is plain files: copy them in")
    found = {str(path.relative_to(folder)): path for path in _files(folder)}
    missing = sorted(set(manifest.files) - set(found))
    extra = sorted(set(found) - set(manifest.files))
    changed = [
        name
        for name, facts in sorted(manifest.files.items())
        if name in found and (found[name].stat().st_size != facts["bytes"] or digest(found[name]) != facts["sha256"])
    ]
    if missing or extra or changed:
        lists = (("missing", missing), ("extra", extra), ("changed", changed))
        said = "; ".join(f"{what}: {', '.join(names)}" for what, names in lists if names)
        raise ReleaseDamaged(f"{folder} is not as it was sealed ({said}); fetch or make it again")
    return manifest


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Digest and size of every file below `folder`, for the manifest."""
    return {
        str(path.relative_to(folder)): {"sha256": digest(path), "bytes": path.stat().st_size}
        for path in sorted(_files(folder))
    }


def _files(folder: Path) -> Iterator[Path]:
    sealing = (folder / MANIFEST, folder / SIGNATURE)
    return (path for path in folder.rglob("*") if path.is_file() and path not in sealing)


def encoder_file(precision: str) -> str:
    """The name of the encoder's file in a release."""
    return "encoder.onnx" if precision == "fp32" else f"encoder.{precision}.onnx"


def golden_file(precision: str) -> str:
    """The name of the golden vectors of an encoder, below golden/."""
    return "vectors.npy" if precision == "fp32" else f"vectors.{precision}.npy"


def _shape(path: Path) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.load(path, mmap_mode="r", allow_pickle=False).shape
    return shape


def _golden(folder: Path, precisions: Iterable[str]) -> Golden:
    cases = [GoldenCase(**case) for case in json.loads((folder / "golden" / "cases.json").read_text())]
    files = {precision: folder / "golden" / golden_file(precision) for precision in precisions}
    return Golden(cases, {precision: np.load(file, allow_pickle=False) for precision, file in files.items()})
