"""What users do since a release counts as if it had been trained with it."""

import numpy as np
import pytest

from service.errors import NotFound
from service.live.operations import (
    AddEvents,
    EraseUser,
    LinkSession,
    NewEvent,
)
from service.recommender.pipeline import Recommender
from service.recommender.query import Event
from service.recommender.user_keys import DEFAULT_USER_KEY, erasure_mark, hash_session, hash_user
from tests.service.live.live_shop import USERS, Shop, ids


def test_an_item_that_nobody_has_touched_has_the_factor_that_its_features_let_expect(shop: Shop) -> None:
    """With picture and attributes of what a user likes best it scores above one with those of what they like least."""
    release, above = shop.recommender.release, 0
    assert release.ranker is not None
    assert release.item_prior is not None
    for user in USERS[:10]:
        found = ids(shop.ask(user_id=user, k=100))
        for name, item_id in (("like", found[0]), ("unlike", found[-1])):
            shop.put(name, shop.described(item_id), shop.photo(item_id))
        rows = [release.items.row(name) for name in ("like", "unlike")]
        like, unlike = shop.recommender.score(user, rows)[0]
        above += bool(like > unlike)
    assert above >= 8
    vector = shop.recommender.embed([shop.photo(item_id)])[0]
    expected = release.item_prior.factor(shop.described("unlike"), vector)
    np.testing.assert_allclose(release.ranker.factors_of(np.array(rows[1:]))[0], expected, rtol=1e-3, atol=1e-5)
    assert expected.any()


def test_what_users_touch_becomes_popular(shop: Shop) -> None:
    """Each user counts once; a dismissal, and who had touched it before, do not count."""
    shop.put("hit", {"category": "dress"})
    users = [hash_user(f"new {number}", DEFAULT_USER_KEY) for number in range(200)]
    shop.change(*[AddEvents([NewEvent(user, "hit", "view"), NewEvent(user, "hit", "cart")]) for user in users])
    shop.change(AddEvents([NewEvent(hash_user("x", DEFAULT_USER_KEY), "hit", "dismiss")]))
    items = shop.recommender.release.items
    assert items.popularity[items.row("hit")] == 200
    assert ids(shop.ask())[0] == "hit"
    seen = shop.recommender.profile(USERS[0]).items[0]
    before = items.popularity[items.row(seen)]
    shop.change(AddEvents([NewEvent(hash_user(USERS[0], DEFAULT_USER_KEY), seen, "view")]))
    assert items.popularity[items.row(seen)] == before


def test_who_followed_has_the_trend_of_who_comes_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of items that nobody touched, once the last event is some seconds old."""

    def trend(recommender: Recommender) -> dict[str, float]:
        return {item.item_id: item.terms["trend"] for item in shop.ask(recommender, k=100).items}

    monkeypatch.setattr("service.live.overlay.TREND_EVERY", 3600)
    view = NewEvent(hash_user("new", DEFAULT_USER_KEY), "0004", "view")
    shop.change(AddEvents([view]))
    before = trend(shop.recommender)
    shop.change(AddEvents([view] * 500))
    assert trend(shop.recommender) | {"0004": 0} == before | {"0004": 0}
    later, _ = shop.open()
    monkeypatch.setattr("service.live.overlay.TREND_EVERY", 0)
    shop.overlay.settle()
    assert trend(shop.recommender) == trend(later)
    assert all(trend(later)[item_id] < before[item_id] for item_id in before.keys() - {"0004"})


def test_events_of_a_user_whom_the_release_does_not_know_are_their_taste(shop: Shop) -> None:
    """As if they had been sent with the query; what they have seen is left out."""
    user = hash_user("new", DEFAULT_USER_KEY)
    assert shop.ask(user_id="new").tier == "popular"
    shop.change(AddEvents([NewEvent(user, "0004", "purchase", timestamp=1.0), NewEvent(user, "0016", "view")]))
    answer = shop.ask(user_id="new")
    sent = shop.ask(events=(Event("0004", "purchase"), Event("0016", "view")))
    assert answer.tier == "taste"
    assert ids(answer) == ids(sent)
    assert not {"0004", "0016"} & set(ids(answer))


def test_a_session_is_known_and_goes_over_to_its_user(shop: Shop) -> None:
    """What was done before signing in counts for the user from then on, and what the user did for the session."""
    session, user = hash_session("s", DEFAULT_USER_KEY), hash_user("new", DEFAULT_USER_KEY)
    shop.change(AddEvents([NewEvent(session, "0004", "purchase")], (session,)))
    assert shop.ask(session_id="s").tier == "taste"
    assert shop.ask(user_id="new").tier == "popular"
    shop.change(LinkSession(session, user))
    assert ids(shop.ask(user_id="new")) == ids(shop.ask(session_id="s"))
    assert shop.ask(user_id="new").tier == "taste"


def test_an_erased_user_is_unknown_to_the_release_as_well(shop: Shop) -> None:
    """Neither what was trained nor what came since answers; what comes afterwards does; nobody else notices."""
    user, other = hash_user(USERS[0], DEFAULT_USER_KEY), ids(shop.ask(user_id=USERS[1]))
    shop.change(AddEvents([NewEvent(user, "0004", "purchase")]))
    shop.change(EraseUser(user, erasure_mark(user)))
    for recommender, _ in (shop.open(), (shop.recommender, shop.overlay)):
        assert shop.ask(recommender, user_id=USERS[0]).tier == "popular"
        with pytest.raises(NotFound):
            recommender.profile(USERS[0])
    assert ids(shop.ask(user_id=USERS[1])) == other
    shop.change(AddEvents([NewEvent(user, "0016", "purchase")]))
    assert shop.recommender.profile(USERS[0]).items == ["0016"]
