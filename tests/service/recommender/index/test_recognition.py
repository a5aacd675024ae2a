"""A photo of an item is told from a photo of something like it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.recommender.index.landmarks import Landmarks, agreement, find, mirrored
from service.recommender.index.recognition import Certainty
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery
from tests.hostile import encode
from training.demo.boutique import PATTERNS
from training.demo.garments import CATEGORIES, Garment, draw


def pixels(garment: Garment) -> np.ndarray:
    """As the encoder sees it: (224, 224, 3) uint8."""
    return np.asarray(draw(garment).convert("RGB").resize((224, 224)))


def garment(seed: int, **changes: object) -> Garment:
    """One of many."""
    fields: dict = {
        "category": CATEGORIES[seed % 12], "colour": "teal", "pattern": PATTERNS[seed % 6], "background": "wood",
        "scale": 0.8, "angle": 4.0, "light": 1.0, "seed": 8_000_000 + seed,
    }  # fmt: skip
    return Garment(**(fields | changes))


def test_landmarks_of_a_turned_darker_cut_picture_lie_as_they_do_in_the_picture() -> None:
    """Thirty at least of two hundred, where it was cut, turned by 5 degrees and darkened; few of another picture."""
    picture = draw(garment(1)).convert("RGB")
    photo = picture.rotate(5).crop((20, 20, 240, 240)).resize((224, 224)).point([int(0.8 * v) for v in range(256)] * 3)
    own = find(np.asarray(picture.resize((224, 224))))
    assert agreement(find(np.asarray(photo)), own) >= 30
    assert agreement(find(pixels(garment(2))), own) < 10


def test_the_same_thing_in_another_colour_is_another_thing() -> None:
    """The corners of a teal and of a red hat of one shape lie alike; their tints do not."""
    one = garment(7, pattern="plain", background="studio")
    teal, red = (find(pixels(replace(one, colour=colour))) for colour in ("teal", "red"))
    assert agreement(teal, teal) > 100
    assert agreement(teal, red) < 0.5 * agreement(teal, teal)


def test_a_mirrored_photo_is_recognised_by_its_mirror_image() -> None:
    """Corners of a mirrored photo have no like; those of its mirror image have."""
    own = pixels(garment(3))
    photo = np.ascontiguousarray(own[:, ::-1])
    assert agreement(find(photo), find(own)) < 20
    assert agreement(mirrored(photo), find(own)) > 150


def test_landmarks_come_back_as_they_were_kept() -> None:
    """A flat picture has none, and nothing agrees with it."""
    flat, rich = find(np.full((224, 224, 3), 90, np.uint8)), find(pixels(garment(4)))
    assert len(flat.points) == len(Landmarks.unpacked(flat.packed()).points) == 0
    kept = Landmarks.unpacked(rich.packed())
    assert np.array_equal(kept.descriptions, rich.descriptions)
    assert np.abs(kept.points - rich.points).max() <= 0.5
    assert np.abs(kept.tints - rich.tints).max() <= 0.5 / 255 + 1e-6
    assert agreement(flat, rich) == agreement(rich, flat) == 0


def test_more_agreement_is_more_certain() -> None:
    """The confidence grows from 0 to 1, and no number is too large for it."""
    sure = Certainty(agreement=2.0, bias=-4.0, at=0.9)
    grows = [sure.of(corners) for corners in range(0, 200, 10)]
    assert grows == sorted(grows)
    assert 0 < grows[0] < 0.1 < 0.99 < grows[-1] < 1
    assert Certainty(1e6, 0, 0).of(200) == 1.0


def test_an_item_comes_first_whatever_the_weights_say(recommender: Recommender, boutique_folder: Path) -> None:
    """Photographed as the catalogue has it, it is said to be the item, also for a user who saw it already."""
    [history] = recommender.recommend([Query(user_id="00007", k=1, exclude_seen=False)])
    for item_id in ("0004", "0021", "0077", history.items[0].item_id):
        photo = (boutique_folder / "images" / f"{item_id}.jpg").read_bytes()
        for fields in ({}, {"user_id": "00007", "personalization": 1.0}, {"diversity": 0.7}):
            [answer] = recommender.recommend([Query(image=photo, **fields)])  # type: ignore[arg-type]
            assert answer.match is not None
            assert answer.match["item_id"] == item_id
            assert answer.match["confidence"] > 0.5
            assert answer.items[0].item_id == item_id
            assert answer.query is not None
            assert answer.query["in_catalogue"] is True
        [alike] = recommender.similar([SimilarQuery(image=photo)])
        assert alike.match == answer.match
        assert alike.items[0].item_id == item_id


def test_a_filter_that_the_item_fails_leaves_it_out_of_the_answer(
    recommender: Recommender, boutique_folder: Path
) -> None:
    """It is still said which item the photo shows."""
    photo = (boutique_folder / "images" / "0004.jpg").read_bytes()
    category = recommender.release.items.describe(4)["category"]
    others = [name for name in CATEGORIES if name != category]
    [answer] = recommender.recommend([Query(image=photo, filter={"category": others})])
    assert answer.match is not None
    assert answer.match["item_id"] == "0004"
    assert "0004" not in [item.item_id for item in answer.items]


def test_what_the_catalogue_does_not_have_is_no_item_of_it(recommender: Recommender) -> None:
    """Of forty garments drawn anew, of the same kinds and patterns, two at most are taken for an item."""
    photos = [encode(draw(garment(seed, colour="coral", angle=-3.0)), "JPEG") for seed in range(40)]
    answers = recommender.recommend([Query(image=photo) for photo in photos])
    assert sum(answer.match is not None for answer in answers) <= 2


@pytest.mark.parametrize("field", ["found", "mistaken", "at"])
def test_the_manifest_says_how_sure_it_is(recommender: Recommender, field: str) -> None:
    """What was measured on augmented pictures: how many items are found, and how many others are taken for one."""
    assert recommender.release.manifest.index is not None
    match = recommender.release.manifest.index["match"]
    assert 0 <= match[field] <= 1
    assert match["mistaken"] <= 0.02
