"""A release with changes answers as one made from the changed catalogue would."""

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import BadQuery, NotFound
from service.live.operations import (
    PatchItem,
    Picture,
    PutItem,
    WithdrawItem,
)
from service.live.overlay import Overlay
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, SimilarQuery
from tests.service.live.live_shop import USERS, Shop, ids

MOVED = [f"{number:04d}" for number in range(100, 144)]
PHOTOS = [f"{number:04d}" for number in (4, 17, 101, 126, 140)]


def test_items_under_other_ids_with_the_same_pictures_are_answered_alike(shop: Shop, recommender: Recommender) -> None:
    """A third of the catalogue is withdrawn and comes anew: same order, likeness and kind, whatever is shown."""
    for item_id in MOVED:
        values = shop.described(item_id)
        shop.change(WithdrawItem(item_id, known=True))
        shop.put(f"new-{item_id}", values, shop.photo(item_id))
    for item_id in PHOTOS:
        photo = shop.photo(item_id)
        now, before = shop.similar(image=photo, k=100), recommender.similar([SimilarQuery(image=photo, k=100)])[0]
        assert [each.removeprefix("new-") for each in ids(now)] == ids(before)
        np.testing.assert_allclose([i.score for i in now.items], [i.score for i in before.items], atol=1e-4)
        assert now.query is not None
        assert before.query is not None
        assert now.query["category"] == before.query["category"]
        assert now.query["in_catalogue"] == before.query["in_catalogue"]
        assert now.query["confidence"] == pytest.approx(before.query["confidence"], abs=1e-4)
        ranked, ranked_before = shop.ask(image=photo, k=100), shop.ask(recommender, image=photo, k=100)
        expected = {item.item_id: item for item in ranked_before.items}
        both = [item for item in ranked.items if item.item_id.removeprefix("new-") in expected]
        assert len(both) >= 80
        for item in both:
            was = expected[item.item_id.removeprefix("new-")]
            assert item.terms["likeness"] == pytest.approx(was.terms["likeness"], abs=1e-3)
            assert (item.title, item.category, item.attributes) == (was.title, was.category, was.attributes)


def test_a_photo_shows_an_item_that_came_since(shop: Shop) -> None:
    """It is named as the match and comes first, and the item that had the picture before is not."""
    before = shop.ask(image=shop.photo("0004")).match
    assert before is not None
    assert before["item_id"] == "0004"
    shop.change(WithdrawItem("0004", known=True))
    assert shop.ask(image=shop.photo("0004")).match is None
    shop.put("anew", {}, shop.photo("0004"))
    answer = shop.ask(image=shop.photo("0004"))
    assert answer.match is not None
    assert answer.match["item_id"] == ids(answer)[0] == "anew"


@pytest.mark.parametrize("item_id", ["0004", "anew"])
def test_an_item_that_is_put_again_and_again_is_still_recognised(shop: Shop, item_id: str) -> None:
    """A feed sends the same pictures every night."""
    for _ in range(6):
        shop.put(item_id, {}, shop.photo("0016"))
        answer = shop.ask(image=shop.photo("0016"))
        assert answer.match is not None
        assert answer.match["item_id"] in ("0016", item_id)
    shop.change(WithdrawItem("0016", known=True))
    answer = shop.ask(image=shop.photo("0016"))
    assert answer.match is not None
    assert answer.match["item_id"] == item_id


def test_an_item_that_was_withdrawn_is_in_no_answer(shop: Shop) -> None:
    """Of no tier, no reason, no match, no profile; by no filter; named as unknown among events."""
    gone = {f"{number:04d}" for number in range(0, 144, 2)} | {"came"}
    shop.put("came", {"category": "dress"}, shop.photo("0004"))
    before = [shop.recommender.profile(user) for user in USERS]
    assert any(gone & set(profile.items) for profile in before)
    assert any(profile.segment is not None and gone & set(profile.segment.items) for profile in before)
    shop.change(*[WithdrawItem(item_id, known=True) for item_id in sorted(gone)])
    events = (Event("0004", "purchase"), Event("0005", "view"), Event("came", "like"))
    answers = []
    for number, user in enumerate(USERS[:8]):
        photo = shop.photo(f"{7 * number % 144:04d}")
        answers += [
            shop.ask(user_id=user, k=100, exclude_seen=False),
            shop.ask(user_id=user, image=photo, k=100),
            shop.ask(image=photo, k=100),
            shop.ask(image=photo, relation="complements", k=50),
            shop.similar(image=photo, k=100),
        ]
    answers += [
        shop.ask(k=100),
        shop.ask(events=events, k=100),
        shop.ask(k=100, filter={"category": ["dress", "skirt"]}),
        shop.similar(item_id="0005", k=100),
        shop.ask(item_id="0005", relation="complements", k=100),
        shop.ask(item_id="0005", user_id=USERS[0], k=100),
    ]
    for answer in answers:
        assert not gone & set(ids(answer))
        assert not gone & {reason for item in answer.items for reason in item.because}
        assert answer.match is None or answer.match["item_id"] not in gone
    assert any(item.because for answer in answers for item in answer.items)
    assert {"0004", "came"} == set(shop.ask(events=events).unknown_items)
    for user in USERS:
        profile = shop.recommender.profile(user)
        assert not gone & set(profile.items)
        assert profile.segment is None or not gone & set(profile.segment.items)
    for item_id in ("0004", "came"):
        with pytest.raises(NotFound):
            shop.similar(item_id=item_id)


def test_a_patch_counts_in_filters_and_answers_at_once(shop: Shop) -> None:
    """Also in a filter that was asked before; what was not named stays, and null takes away."""
    cheap = {"price": {"max": 5}}
    assert ids(shop.ask(filter=cheap)) == []
    before = shop.described("0007")
    shop.change(PatchItem("0007", {"price": 3, "title": "For sale"}, known=True))
    [item] = shop.ask(filter=cheap).items
    assert (item.item_id, item.title, item.attributes["price"]) == ("0007", "For sale", 3.0)
    assert shop.described("0007") == before | {"price": 3.0, "title": "For sale"}
    shop.change(PatchItem("0007", {"price": None}, known=True))
    assert ids(shop.ask(filter=cheap)) == []
    assert "price" not in shop.described("0007")
    photo = shop.photo("0007")
    assert ids(shop.similar(image=photo, filter={"available": True}))[0] == "0007"
    shop.change(PatchItem("0007", {"available": False}, known=True))
    assert "0007" not in ids(shop.similar(image=photo, filter={"available": True}, k=100))
    assert "0007" in ids(shop.similar(image=photo, filter={"available": False}, k=100))


def test_an_item_is_found_by_each_of_its_pictures(shop: Shop) -> None:
    """And by none that it has no more."""
    one, other = shop.photo("0003"), shop.photo("0010")
    shop.change(WithdrawItem("0003", known=True), WithdrawItem("0010", known=True))
    shop.put("pair", {}, one, other)
    for photo in (one, other):
        found = shop.similar(image=photo, k=100)
        assert ids(found)[0] == "pair"
        assert found.items[0].score == pytest.approx(1, abs=1e-3)
        assert ids(found).count("pair") == 1
    shop.put("pair", {}, other)
    assert shop.similar(image=other).items[0].item_id == "pair"
    scores = {item.item_id: item.score for item in shop.similar(image=one, k=100).items}
    assert scores.get("pair", 0) < 0.999


def test_an_item_that_is_put_without_pictures_keeps_its_own(shop: Shop) -> None:
    """Those of the release, or those that it got; after its withdrawal it begins without."""
    shop.put("0005", {"category": "coat"})
    assert ids(shop.similar(image=shop.photo("0005")))[0] == "0005"
    assert shop.described("0005") == {"category": "coat", "title": ""}
    shop.put("0005", {}, shop.photo("0010"))
    shop.put("0005", {"category": "coat"})
    assert {"0005", "0010"} == set(ids(shop.similar(image=shop.photo("0010"), k=2)))
    shop.change(WithdrawItem("0005", known=True))
    shop.put("0005", {"category": "coat"})
    with pytest.raises(BadQuery, match="has no picture"):
        shop.similar(item_id="0005")


def test_variants_of_one_product_count_as_one(shop: Shop) -> None:
    """Also where no item of the release has a group."""
    pictures = [shop.photo("0004"), shop.photo("0016"), shop.photo("0028")]
    for number, picture in enumerate(pictures):
        shop.put(f"v{number}", {"group": "g", "category": "dress"}, picture)
    variants = {"v0", "v1", "v2"}
    assert len(variants & set(ids(shop.similar(image=pictures[0], k=100)))) == 1
    assert len(variants & set(ids(shop.ask(image=pictures[0], k=100)))) == 1
    assert len(variants & set(ids(shop.similar(image=pictures[0], k=100, per_group=2)))) == 2


def test_an_attribute_that_no_item_had_can_be_filtered_by(shop: Shop) -> None:
    """Its kind is that of its first value; who has none passes no filter."""
    with pytest.raises(BadQuery, match="no column"):
        shop.ask(filter={"sleeves": ["long"]})
    shop.put("a", {"sleeves": ["long", "wide"], "weight": 3})
    shop.put("b", {"sleeves": ["short"]})
    assert ids(shop.ask(filter={"sleeves": ["long"]})) == ["a"]
    assert set(ids(shop.ask(filter={"sleeves": ["long", "short"]}))) == {"a", "b"}
    assert ids(shop.ask(filter={"weight": {"min": 2}})) == ["a"]
    with pytest.raises(BadQuery, match="weight is a number"):
        shop.ask(filter={"weight": ["heavy"]})
    assert shop.described("0005").get("sleeves") is None


def test_a_value_of_another_kind_than_the_release_has_is_left_out(shop: Shop) -> None:
    """Another pod's release may have had no such column when it was accepted."""
    shop.put("a", {"price": "cheap", "category": "dress"})
    assert shop.described("a") == {"category": "dress", "title": ""}


def test_a_picture_that_another_encoder_has_seen_is_looked_at_again(shop: Shop) -> None:
    """From its bytes, which are kept; what is found stays in the store for others."""
    content = shop.photo("0004")
    digest = hashlib.sha256(content).hexdigest()
    shop.change(PutItem("a", {}, [Picture(digest, content, {("another", "fp32"): b"\0" * 16})]))
    assert {"a", "0004"} == set(ids(shop.similar(image=content, k=2)))
    encoder = shop.recommender.release.manifest.encoder
    assert encoder is not None
    assert digest in shop.store.seen([digest], encoder=encoder["fingerprint"], precision="fp32")


def test_a_picture_that_cannot_be_read_any_more_is_left_out(shop: Shop) -> None:
    """The item is there without it, and everything after it is applied."""
    shop.change(PutItem("a", {"category": "dress"}, [Picture("0" * 64, b"none", {})]), PutItem("b", {}))
    assert shop.overlay.holds("b")
    with pytest.raises(BadQuery, match="has no picture"):
        shop.similar(item_id="a")


def test_what_a_release_holds_already_is_not_applied_again(shop: Shop) -> None:
    """It says so by the store's id and a number."""
    shop.put("a", {})
    data = shop.recommender.release.manifest.data
    data |= {"store": shop.store.id, "sequence": shop.store.position()}
    assert Overlay(shop.recommender, shop.store).position == shop.store.position()
    data["store"] = "another"
    assert Overlay(shop.recommender, shop.store).position == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_who_followed_every_change_answers_as_who_comes_afterwards(shop: Shop, seed: int) -> None:
    """And filters pass what the changes say, whatever came after what."""
    rng = random.Random(seed)
    truth = {item_id: shop.described(item_id) for item_id in shop.recommender.release.items.ids}
    asked: Sequence[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({"category": ["dress"]}, lambda values: values.get("category") == "dress"),
        ({"price": {"min": 40}}, lambda values: values.get("price", 0) >= 40),
        ({"available": True}, lambda values: values.get("available") is True),
        ({"sale": True, "category": "hat"}, lambda v: v.get("sale") is True and v.get("category") == "hat"),
    ]
    shop.put("x0", {"sale": True})
    truth["x0"] = {"sale": True, "title": ""}
    for turn in range(60):
        item_id = rng.choice([*sorted(truth), f"x{rng.randrange(12)}"])
        values = {
            "category": rng.choice(["dress", "hat"]),
            "price": float(rng.randrange(100)),
            "sale": rng.random() < 0.5,
        }
        doing = rng.choice(["put", "put with picture", "patch", "withdraw"])
        if doing.startswith("put"):
            pictures = [shop.photo(f"{rng.randrange(144):04d}")] if "picture" in doing else []
            shop.put(item_id, values, *pictures)
            truth[item_id] = {"title": "", **values}
        elif item_id in truth and doing == "patch":
            shop.change(PatchItem(item_id, values, known=True))
            truth[item_id] |= values
        elif item_id in truth:
            shop.change(WithdrawItem(item_id, known=True))
            del truth[item_id]
        if turn % 10 == 9:
            for filter, passes in asked:
                mask = shop.recommender.release.items.mask(filter)
                assert mask is not None
                there = {shop.recommender.release.items.ids[row] for row in np.flatnonzero(mask)}
                assert there == {each for each, said in truth.items() if passes(said)}
    assert {each: shop.described(each) for each in truth} == truth
    later, _ = shop.open()
    for item_id in PHOTOS:
        photo = shop.photo(item_id)
        for fields in ({}, {"filter": {"category": ["hat"]}}):
            now = shop.recommender.similar([SimilarQuery(image=photo, k=100, **fields)])[0]
            then = later.similar([SimilarQuery(image=photo, k=100, **fields)])[0]
            assert {i.item_id: round(i.score, 3) for i in now.items} == {
                i.item_id: round(i.score, 3) for i in then.items
            }
            assert (now.match is None) == (then.match is None)
