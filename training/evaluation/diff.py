"""Two releases side by side: what their manifests say, and the same queries answered by both."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from service.recommender.agreement import overlap, rank_correlation
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query
from service.recommender.release import Manifest, Release
from training.data.catalogue import Catalogue
from training.encoder import precisions
from training.evaluation.held_out_questions import draw_questions, last_cutoff
from training.evaluation.pages import write_page
from training.evaluation.report import picture_of
from training.evaluation.users_by_key import for_catalogue
from training.measures import interval
from training.progress import track

PHOTOS, USERS, SHOWN = 60, 60, 40  # queries of each kind, and how many of them are on the page
LAST_EVENTS = 4
# figures of a manifest were measured on what that release's log held out: of two logs they say nothing together
IGNORED = ("files", "created", "release", "metrics")
PAGE = Path(__file__).with_name("diff.html.j2")


@dataclass(frozen=True, slots=True)
class Change:
    """A value of the manifest that is not the same."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure of both releases over the same questions. difference: the second's less the first's; interval: of it,
    paired, 95 %; questions: how many."""

    name: str
    first: float
    second: float
    difference: float
    interval: list[float]
    questions: int


@dataclass(frozen=True, slots=True)
class Answered:
    """One query, and the ten items of both. asked: what is shown of it, a picture in base64 or None, and a title."""

    asked: list[tuple[str | None, str]]
    items: tuple[list[str], list[str]]
    correlation: float


@dataclass(frozen=True, slots=True)
class Diff:
    """What is different. figures: of held-out questions, where there was a catalogue to ask about; overlap: mean share
    of ten items that are the same; queries: that were asked."""

    changes: list[Change]
    figures: list[Figure]
    overlap: float
    queries: int


@dataclass(frozen=True, slots=True)
class _Asked:
    query: Query
    shown: list[tuple[str | None, str]] = field(default_factory=list)


def compare(first: Path, second: Path, page: Path, *, user_key: str, catalogue: Catalogue | None = None) -> Diff:
    """Compare two release folders, and write the page. catalogue: with what happened after both were trained.

    Raises ReleaseError."""
    releases = [Release.open(folder) for folder in (first, second)]
    recommenders = [Recommender(release, user_key=user_key) for release in releases]
    answered = []
    for asked in track(list(_queries(releases[0], releases[1])), "asking both"):
        a, b = (precisions.answered(each, asked.query) for each in recommenders)
        answered.append(Answered(asked.shown, (a, b), rank_correlation(a, b)))
    answered.sort(key=lambda each: each.correlation)
    shares = [overlap(*sorted(each.items, key=len, reverse=True)) for each in answered]
    changes = list(_changes(releases[0].manifest, releases[1].manifest))
    figures = [] if catalogue is None else _figures(recommenders, catalogue)
    found = Diff(changes, figures, float(np.mean(shares)) if shares else 1.0, len(answered))
    shown = answered[:SHOWN]
    write_page(
        PAGE,
        page,
        diff=found,
        numbers=[release.number for release in releases],
        answered=shown,
        pictures=_pictures(releases, shown),
        titles=_titles(releases, shown),
    )
    return found


def _figures(recommenders: list[Recommender], catalogue: Catalogue) -> list[Figure]:
    """Both are asked what neither was taught, as the gate asks."""
    recommenders = [for_catalogue(recommender, catalogue) for recommender in recommenders]
    questions = draw_questions(catalogue, last_cutoff(recommenders))
    a, b = (questions.ask(recommender).each for recommender in recommenders)
    return [
        Figure(
            name, float(a[name].mean()), float(b[name].mean()), float((b[name] - a[name]).mean()),
            interval(b[name] - a[name]), len(a[name]),
        )
        for name in a if name in b
    ]  # fmt: skip


def _queries(first: Release, second: Release) -> Iterator[_Asked]:
    """Photos of items, and events of users whose history both know: what a release holds suffices to ask."""
    common = [row for row, item in enumerate(first.items.ids) if second.items.find(item) is not None]
    pictured = [row for row in common if first.items.pictured[row]] if first.encoders and second.encoders else []
    for row in _spread(pictured, PHOTOS):
        jpeg = first.thumbnails.jpeg(row)
        yield _Asked(Query(image=jpeg), [(base64.b64encode(jpeg).decode(), "a photo")])
    if first.ranker is None or second.ranker is None:
        return
    for user in _spread(range(first.ranker.users), USERS):
        liked = first.ranker.user(user).history[-LAST_EVENTS:].tolist()
        rows = [row for row in liked if second.items.find(first.items.ids[row]) is not None]
        if rows:
            events = tuple(Event(first.items.ids[row]) for row in rows)
            yield _Asked(Query(events=events), [(picture_of(first, row), _title(first, row)) for row in rows])


def _changes(first: Manifest, second: Manifest) -> Iterator[Change]:
    flat = [
        dict(_flat({n: getattr(m, n) for n in m.__dataclass_fields__ if n not in IGNORED})) for m in (first, second)
    ]
    for name in sorted(flat[0].keys() | flat[1].keys()):
        values = [each.get(name) for each in flat]
        if values[0] != values[1]:
            yield Change(name, *(round(value, 4) if isinstance(value, float) else value for value in values))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):  # curves and intervals
            yield f"{prefix}{name}", value


def _spread(found: Any, count: int) -> list[Any]:
    places = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    return [found[at] for at in np.unique(places)]


def _where(releases: list[Release], item: str) -> tuple[Release, int]:
    for release in releases:
        if (row := release.items.find(item)) is not None:
            return release, row
    raise AssertionError(f"no release holds {item}")


def _pictures(releases: list[Release], shown: list[Answered]) -> dict[str, str | None]:
    return {item: picture_of(*_where(releases, item)) for each in shown for items in each.items for item in items}


def _titles(releases: list[Release], shown: list[Answered]) -> dict[str, str]:
    return {item: _title(*_where(releases, item)) for each in shown for items in each.items for item in items}


def _title(release: Release, row: int) -> str:
    return str(release.items.describe(row)["title"] or release.items.ids[row])
