"""What came in beside what a release expects: from a folder of photos or from running services, as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import BadQuery, VitrineError
from service.recommender.drift.reference import (
    CATEGORIES,
    EMBEDDINGS,
    IN_CATALOGUE,
    LIKENESS,
    SCORES,
    Observation,
    nearest,
    observe,
    why_not,
)
from service.recommender.drift.stability import CHANCE, DRIFT, NONE, UNCLEAR, Drift, Shift
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release
from training.evaluation.pages import write_page
from training.evaluation.report import picture_of
from training.progress import track

TEMPLATE = Path(__file__).with_name("drift.html.j2")
NAMED = 2  # bins that a sentence names
ASKS = {
    EMBEDDINGS: "Which cluster of the catalogue's vectors do photos lie in? Each is named by its most central item.",
    CATEGORIES: "Which category do they seem to be of?",
    IN_CATALOGUE: "Do they show anything of this kind of catalogue?",
    LIKENESS: "How near is the nearest item? The first tenth is the farthest.",
    SCORES: "Which score has the best item? The first tenth is the lowest.",
}


def look_at(recommender: Recommender, folder: Path) -> tuple[Drift, list[str]]:
    """Ask a release each photo below a folder -> its drift, and the files that are no photos.

    Raises VitrineError where there is no photo, or nothing to compare with."""
    release = recommender.release
    expected, index = release.expected_photos, release.index
    if expected is None or index is None:
        raise VitrineError(f"{release.path}: {why_not(expected, pictured=index is not None)}")
    observed: list[Observation] = []
    unreadable = []

    def listen(
        queries: Sequence[Query], vectors: Sequence[np.ndarray | None], answers: Sequence[Recommendation]
    ) -> None:
        for query, vector, answer in zip(queries, vectors, answers, strict=True):
            assert vector is not None, "each has a photo"
            observed.append(observe(query, vector, answer))

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in track(files, "looking at photos", total=len(files)):
        try:
            recommender.recommend([Query(image=path.read_bytes(), k=1)], listener=listen)
        except BadQuery:
            unreadable.append(str(path.relative_to(folder)))
    if not observed:
        raise VitrineError(f"{folder} holds no photo that can be read, among {len(files)} files")
    seen = expected.bins.count(observed, nearest(index, observed))
    return expected.compare(release.number, seen, seconds=None), unreadable


def merge(found: Sequence[Drift]) -> Drift:
    """What several services of one release saw, as if one had. Raises VitrineError where their releases differ."""
    releases = sorted({drift.release for drift in found})
    if len(releases) > 1:
        raise VitrineError(f"expected services of one release; they run releases {', '.join(releases)}")
    by_name: dict[str, list[Shift]] = {}
    for shift in (shift for drift in found for shift in drift.shifts):
        by_name.setdefault(shift.what, []).append(shift)
    shifts = tuple(
        Shift.measure(what, same[0].names, same[0].expected, np.sum([each.seen for each in same], axis=0))
        for what, same in by_name.items()
    )
    return Drift(releases[0], sum(drift.photos for drift in found), found[0].seconds, shifts)


def say(shift: Shift) -> str:
    """A verdict in words."""
    figures = f"PSI {shift.psi:.3f} over {shift.photos} photos; chance alone stays below {shift.chance:.3f}"
    said = f"{shift.verdict}: {figures} in {CHANCE:.0%} of samples"
    if shift.verdict in (NONE, UNCLEAR):
        return said
    return f"{said}. Most of it: {', '.join(name_most(shift))}"


def name_most(shift: Shift) -> list[str]:
    """The bins whose shares changed the most, with what was expected and seen in them."""
    expected, seen = _shares(shift.expected), _shares(shift.seen)
    order = np.argsort(-np.abs(seen - expected), kind="stable")[:NAMED]
    return [f"{shift.names[at]} ({expected[at]:.0%} expected, {seen[at]:.0%} seen)" for at in order.tolist()]


def write_drift(drift: Drift, path: Path, *, release: Release | None) -> None:
    """Write one self-contained page. release: gives pictures of the typical items; None: they are named alone."""
    write_page(
        TEMPLATE,
        path,
        drift=drift,
        asks=ASKS,
        worst=DRIFT,
        sections=[(shift, say(shift), _rows(shift)) for shift in drift.shifts],
        pictures={} if release is None else _pictures(drift, release),
    )


def _rows(shift: Shift) -> list[Mapping[str, Any]]:
    """Of each bin its name, both shares, and how long their bars are: 1 for the longest."""
    expected, seen = _shares(shift.expected), _shares(shift.seen)
    longest = max(expected.max(), seen.max())
    return [
        {"name": name, "expected": p, "seen": q, "expected_bar": p / longest, "seen_bar": q / longest}
        for name, p, q in zip(shift.names, expected.tolist(), seen.tolist(), strict=True)
    ]


def _shares(photos: Sequence[int]) -> np.ndarray:
    return np.array(photos) / sum(photos)


def _pictures(drift: Drift, release: Release) -> dict[str, str | None]:
    """Of the typical items, in base64."""
    names = [name for shift in drift.shifts if shift.what == EMBEDDINGS for name in shift.names]
    rows = {name: release.items.find(name) for name in names}
    return {name: picture_of(release, row) for name, row in rows.items() if row is not None}
