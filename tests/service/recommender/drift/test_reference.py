"""A release knows which photos it expects, and tells those of another kind from them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.errors import ReleaseMismatch, ReleaseTooNew
from service.recommender.drift.reference import (
    CATEGORIES,
    EMBEDDINGS,
    FILE,
    IN_CATALOGUE,
    LIKENESS,
    SCORES,
    WHAT,
    Observation,
    Reference,
    nearest,
    observe,
)
from service.recommender.drift.stability import DRIFT, NONE, UNCLEAR, Drift
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from service.recommender.release import Release
from tests import colours
from tests.processes import FIXTURES
from tests.service.recommender.test_release import reseal
from training.demo.boutique import write


@pytest.fixture(scope="module")
def shop(colour_release: Path) -> Recommender:
    """The pipeline over coloured squares."""
    return Recommender(Release.open(colour_release))


def ask(recommender: Recommender, photos: Sequence[bytes], **fields: object) -> list[Observation]:
    """What is answered about photos."""
    observed: list[Observation] = []
    for photo in photos:
        recommender.recommend(
            [Query(image=photo, k=1, **fields)],  # type: ignore[arg-type]
            listener=lambda *told: observed.extend(observe(*each) for each in zip(*told, strict=True)),
        )
    return observed


def compare(recommender: Recommender, observed: Sequence[Observation]) -> Drift:
    """Beside what the release expects."""
    reference, index = recommender.release.expected_photos, recommender.release.index
    assert reference is not None
    assert index is not None
    return reference.compare("1", reference.bins.count(observed, nearest(index, observed)), seconds=None)


def verdicts(drift: Drift) -> dict[str, str]:
    """what -> verdict."""
    return {shift.what: shift.verdict for shift in drift.shifts}


@pytest.fixture(scope="module")
def like_the_catalogues(shop: Recommender) -> list[Observation]:
    """Photos drawn as the catalogue's were, of nothing that is in it."""
    return ask(shop, colours.photos(600, rng=np.random.default_rng(9)))


def test_photos_like_the_catalogues_are_no_drift(shop: Recommender, like_the_catalogues: list[Observation]) -> None:
    """Of none of the five distributions."""
    drift = compare(shop, like_the_catalogues)
    assert verdicts(drift) == dict.fromkeys(WHAT, NONE)
    assert drift.photos == 600


def test_of_samples_without_drift_few_are_called_drift(
    shop: Recommender, like_the_catalogues: list[Observation]
) -> None:
    """One in a hundred is promised, over all references; this one has its own share of luck."""
    rng = np.random.default_rng(2)
    found = [compare(shop, [like_the_catalogues[at] for at in rng.choice(600, 120, replace=False)]) for _ in range(60)]
    passed = [shift.psi > shift.chance for drift in found for shift in drift.shifts]
    assert len(passed) == 60 * len(WHAT)
    assert np.mean(passed) <= 0.03


def test_photos_of_one_category_move_categories_and_embeddings(shop: Recommender) -> None:
    """They are as near to the items as others are, and as much of this catalogue."""
    drift = compare(shop, ask(shop, colours.photos(300, rng=np.random.default_rng(3), colours=["red"])))
    assert {what for what, verdict in verdicts(drift).items() if verdict == DRIFT} == {EMBEDDINGS, CATEGORIES}
    assert verdicts(drift)[IN_CATALOGUE] == NONE


def test_pictures_of_something_else_are_far_and_not_in_the_catalogue(shop: Recommender) -> None:
    """Their best item is one that is popular: its score says nothing of the photo, and is not counted."""
    drift = compare(shop, ask(shop, colours.noise(100, rng=np.random.default_rng(4))))
    assert {IN_CATALOGUE, LIKENESS} <= {what for what, verdict in verdicts(drift).items() if verdict == DRIFT}
    assert SCORES not in verdicts(drift)


def test_few_photos_are_no_drift_and_no_all_clear(shop: Recommender, like_the_catalogues: list[Observation]) -> None:
    """Chance alone gives as much as a large drift would."""
    assert compare(shop, like_the_catalogues[:20]).verdict == UNCLEAR


def test_what_a_request_limits_is_no_score_of_its_photo(shop: Recommender) -> None:
    """A filter leaves worse items, and what only looks alike has no score; the photos count all the same."""
    photos = colours.photos(8, rng=np.random.default_rng(5))
    filtered = ask(shop, photos, filter={"category": ["red"]})
    alike: list[Observation] = []
    shop.similar(
        [SimilarQuery(image=photo) for photo in photos],
        listener=lambda *told: alike.extend(observe(*each) for each in zip(*told, strict=True)),
    )
    for observed in (filtered, alike):
        seen = {shift.what: shift.photos for shift in compare(shop, observed).shifts}
        assert seen[EMBEDDINGS] == 8
        assert SCORES not in seen


def test_a_photo_of_an_item_says_nothing_of_likeness(recommender: Recommender, photo: bytes) -> None:
    """It is nearer to that item than any other photo is to anything, and that is no drift."""
    [observed] = ask(recommender, [photo])
    assert observed.is_match
    seen = {shift.what: shift.photos for shift in compare(recommender, [observed]).shifts}
    assert seen == {EMBEDDINGS: 1, CATEGORIES: 1, IN_CATALOGUE: 1}


def test_garments_that_are_drawn_anew_are_no_drift(recommender: Recommender, tmp_path: Path) -> None:
    """Other garments than those of the boutique, by the same hand; half are asked about by its users."""
    write(tmp_path / "others", items=96, shoppers=10, seed=8)
    pictures = [path.read_bytes() for path in sorted((tmp_path / "others" / "images").iterdir())]
    observed = ask(recommender, pictures[::2])
    for user, picture in enumerate(pictures[1::2]):
        observed += ask(recommender, [picture], user_id=f"{user:05d}")
    assert compare(recommender, observed).verdict in (NONE, UNCLEAR)


def test_a_release_without_the_part_opens_and_says_nothing_of_drift(release_folder: Path) -> None:
    """One of format 1 as it was first, beside one that has it."""
    assert Release.open(FIXTURES / "release-format-1").expected_photos is None
    assert Release.open(release_folder).expected_photos is not None


def test_the_part_reads_as_it_was_written(colour_release: Path, tmp_path: Path) -> None:
    """Every bin and every count."""
    Reference.open(colour_release / FILE).save(tmp_path / FILE)
    assert (tmp_path / FILE).read_text() == (colour_release / FILE).read_text()


@pytest.mark.parametrize(
    ("change", "refused"),
    [({"version": 2}, ReleaseTooNew), ({"centroids": [[1.0, 0.0]]}, ReleaseMismatch)],
)
def test_a_part_that_does_not_fit_is_refused(
    colour_release: Path, tmp_path: Path, change: dict[str, object], refused: type[Exception]
) -> None:
    """Of a later version, or of another encoder."""
    folder = Path(shutil.copytree(colour_release, tmp_path / "1"))
    said = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(said | change))
    reseal(folder)
    with pytest.raises(refused, match=FILE):
        Release.open(folder)
