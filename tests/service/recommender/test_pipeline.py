"""The whole request: which tier answers, what is left out, and that reasons add up."""

import io

import numpy as np
import pytest
from PIL import Image

from service.errors import BadQuery, NotFound
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query, SimilarQuery, parse_query
from service.recommender.recommendation import Recommendation
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.hostile import encode

EVENTS = (Event("0004", "purchase"), Event("0016", "view"))


def ask(recommender: Recommender, **fields: object) -> Recommendation:
    return recommender.recommend([Query(**fields)])[0]  # type: ignore[arg-type]


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


def test_the_tier_says_what_the_answer_rests_on(recommender: Recommender, photo: bytes) -> None:
    """Photo and user: ranked; photo: visual; user or events: taste; neither: popular."""
    assert ask(recommender, image=photo, user_id="00007").tier == "ranked"
    assert ask(recommender, image=photo, events=EVENTS).tier == "ranked"
    assert ask(recommender, image=photo).tier == "visual"
    assert ask(recommender, image=photo, user_id="nobody").tier == "visual"
    assert ask(recommender, user_id="00007").tier == "taste"
    assert ask(recommender, user_id="nobody", events=EVENTS).tier == "taste"
    assert ask(recommender, user_id="nobody").tier == "popular"
    assert ask(recommender).tier == "popular"


def test_a_photo_of_something_else_is_answered_as_if_it_had_not_been_sent(recommender: Recommender) -> None:
    """Flat colours are near nothing: the user's taste, or what is popular, answers, and the reply says why."""
    assert recommender.release.manifest.index is not None
    vectors = recommender.release.index.vectors(np.arange(144)) if recommender.release.index else np.empty((0, 32))
    away = -vectors.mean(axis=0)
    away /= np.linalg.norm(away)
    for fields, tier in (({"user_id": "00007"}, "taste"), ({}, "popular")):
        [answer] = recommender.recommend([Query(**fields)], vectors=[away])  # type: ignore[arg-type]
        assert answer.tier == tier
        assert answer.query is not None
        assert answer.query["in_catalogue"] is False
        assert ids(answer) == ids(ask(recommender, **fields))


def test_a_photo_of_an_item_finds_the_item(recommender: Recommender, photo: bytes) -> None:
    """The item on the photo comes first, and the photo is recognised as one of this catalogue."""
    answer = ask(recommender, image=photo, k=5)
    assert ids(answer)[0] == "0004"
    assert answer.query is not None
    assert answer.query["in_catalogue"] is True
    assert 0 < answer.query["confidence"] <= 1


@pytest.mark.parametrize("fields", [{"user_id": "00007"}, {"user_id": "00007", "image": True}, {"events": EVENTS}, {}])
def test_the_terms_of_each_item_add_up_to_its_score(recommender: Recommender, photo: bytes, fields: dict) -> None:
    """Scores fall from first to last, after the item that the photo shows, and each is the sum of its terms."""
    if "image" in fields:
        fields = {**fields, "image": photo}
    answer = ask(recommender, **fields, k=30)
    scores = [item.score for item in answer.items][1 if answer.match else 0 :]
    assert scores == sorted(scores, reverse=True)
    for item in answer.items:
        assert sum(item.terms.values()) == pytest.approx(item.score, abs=1e-4)


def test_seen_items_are_left_out_unless_asked_for(recommender: Recommender) -> None:
    """What the user touched is no news; exclude_seen=false brings it back."""
    history = set(ids(ask(recommender, user_id="00007", k=100, exclude_seen=False))) - set(
        ids(ask(recommender, user_id="00007", k=100))
    )
    assert history
    assert "0004" not in ids(ask(recommender, events=EVENTS, k=100))
    assert "0004" in ids(ask(recommender, events=EVENTS, k=100, exclude_seen=False))


def test_reasons_are_the_users_own_items(recommender: Recommender) -> None:
    """`because` names items that the user touched."""
    for item in ask(recommender, events=EVENTS, k=5).items:
        assert item.because
        assert set(item.because) <= {"0004", "0016"}


@pytest.mark.parametrize("fields", [{}, {"user_id": "00007"}, {"image": True}, {"image": True, "user_id": "00007"}])
def test_k_items_come_back_whenever_k_pass_the_filter(recommender: Recommender, photo: bytes, fields: dict) -> None:
    """Whatever the tier, a filter is filled as far as it can be, and never broken."""
    if "image" in fields:
        fields = {**fields, "image": photo}
    answer = ask(recommender, **fields, k=6, filter={"category": ["hat"]}, exclude_seen=False)
    assert [item.category for item in answer.items] == ["hat"] * 6
    everything = ask(recommender, **fields, k=100, exclude_seen=False)
    assert len(set(ids(everything))) == 100


def test_diversity_changes_what_is_shown_together(recommender: Recommender, photo: bytes) -> None:
    """More diversity, less likeness among the answers."""
    index = recommender.release.index
    assert index is not None

    def likeness(diversity: float) -> float:
        rows = [recommender.release.items.row(i) for i in ids(ask(recommender, image=photo, k=10, diversity=diversity))]
        vectors = index.vectors(np.array(rows))
        return float((vectors @ vectors.T).mean())

    assert likeness(0.9) < likeness(0.0)


def test_personalization_goes_from_the_photo_to_the_user(recommender: Recommender, photo: bytes) -> None:
    """0 answers as tier visual does; the more, the better the user likes what is shown, and the less it is alike."""
    nobody = ids(ask(recommender, image=photo, exclude_seen=False))
    steps = [0.0, 0.5, 1.0]
    asked = [ask(recommender, image=photo, user_id="00007", personalization=p, exclude_seen=False, k=10) for p in steps]
    assert ids(asked[0]) == nobody
    index, ranker = recommender.release.index, recommender.release.ranker
    assert index is not None
    assert ranker is not None
    rows = [[recommender.release.items.row(item) for item in ids(answer)] for answer in asked]
    alike = [float((index.vectors(np.array(each)) @ recommender.embed([photo])[0]).mean()) for each in rows]
    liked = [float(recommender.score("00007", each)[1].mean()) for each in rows]
    assert alike == sorted(alike, reverse=True)
    assert liked == sorted(liked)
    assert liked[2] > liked[0]


def test_the_default_is_the_trade_that_was_learned(recommender: Recommender, photo: bytes) -> None:
    """It stands in the manifest, and asking for it gives the same answer; without a user it means nothing."""
    default = recommender.release.manifest.training["trade"]["default"]
    learned = ask(recommender, image=photo, user_id="00007")
    assert ids(ask(recommender, image=photo, user_id="00007", personalization=default)) == ids(learned)
    assert ids(ask(recommender, image=photo, personalization=1.0)) == ids(ask(recommender, image=photo))


def test_queries_in_a_batch_do_not_touch_each_other(recommender: Recommender, photo: bytes) -> None:
    """A batch gives what its queries give alone, in their order."""
    queries = [Query(user_id="00007"), Query(image=photo, k=3), Query(), Query(image=photo, user_id="00011")]
    together = recommender.recommend(queries)
    for query, answer in zip(queries, together, strict=True):
        alone = recommender.recommend([query])[0]
        assert (alone.tier, ids(alone)) == (answer.tier, ids(answer))


def test_a_user_is_the_same_by_key_as_by_id(recommender: Recommender) -> None:
    """The release knows users by keyed hashes, which say who they are as well; no protocol takes one."""
    ranker = recommender.release.ranker
    assert ranker is not None
    user_key = hash_user("00007", DEFAULT_USER_KEY)
    assert user_key in ranker.user_keys
    assert len(ranker.user_keys) == ranker.users
    assert ask(recommender, user_key=user_key) == ask(recommender, user_id="00007")
    assert ask(recommender, user_key=user_key, events=EVENTS) == ask(recommender, user_id="00007", events=EVENTS)
    assert ask(recommender, user_key="0" * 32).tier == "popular"
    with pytest.raises(BadQuery, match="unknown field 'user_key'"):
        parse_query({"user_key": user_key})


def test_items_of_events_that_the_release_does_not_hold_are_passed_over(recommender: Recommender) -> None:
    """A client may know newer items than the release; the others still count."""
    known = ask(recommender, events=EVENTS)
    assert ids(ask(recommender, events=(*EVENTS, Event("not-yet-here")))) == ids(known)
    assert ask(recommender, events=(Event("not-yet-here"),)).tier == "popular"


def test_similar_items_leave_the_item_itself_out(recommender: Recommender) -> None:
    """Nearest first, by cosine, without the item that was asked with."""
    answer = recommender.similar([SimilarQuery(item_id="0004", k=10)])[0]
    assert "0004" not in ids(answer)
    assert len(answer.items) == 10
    assert answer.items[0].score == max(item.score for item in answer.items)
    with pytest.raises(NotFound):
        recommender.similar([SimilarQuery(item_id="none")])


def test_score_agrees_with_what_is_recommended(recommender: Recommender) -> None:
    """`vitrine score` gives the scores that a recommendation shows."""
    answer = ask(recommender, user_id="00007", k=5)
    rows = [recommender.release.items.row(item) for item in ids(answer)]
    factor, final = recommender.score("00007", rows)
    np.testing.assert_allclose(final, [item.score for item in answer.items], rtol=1e-5)
    assert np.isfinite(factor).all()
    assert np.isnan(recommender.score("nobody", rows)[0]).all()


def test_embedding_gives_unit_vectors(recommender: Recommender, photo: bytes) -> None:
    """(n, dim) float32 of length 1."""
    vectors = recommender.embed([photo, photo])
    assert vectors.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_boxed_part_is_looked_at_alone(recommender: Recommender, photo: bytes) -> None:
    """As if it had been cut out: what lies around it may be anything, and what lies within it counts."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB").resize((320, 320))
    sides = (80, 80, 240, 240)
    part = picture.crop(sides)
    elsewhere = Image.new("RGB", picture.size, (255, 0, 255))
    elsewhere.paste(part, sides)
    changed = picture.copy()
    changed.paste((255, 0, 255), sides)
    sent = [encode(each, "PNG") for each in (picture, elsewhere, changed, part)]
    box = (0.25, 0.25, 0.75, 0.75)
    boxed, around, within, cut = recommender.embed(sent, boxes=[box, box, box, None])
    np.testing.assert_allclose(around, boxed, atol=1e-6)
    np.testing.assert_allclose(cut, boxed, atol=1e-6)
    assert within @ boxed < 0.9
    assert recommender.embed(sent[:1])[0] @ boxed < 0.999


def test_an_unreadable_picture_is_the_askers_error(recommender: Recommender) -> None:
    """The pipeline raises errors that say what came."""
    with pytest.raises(BadQuery, match="not a picture"):
        ask(recommender, image=b"text")
