"""What is asked: plain values with their checks, the same for every protocol."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.encoder.decoding import Box
from service.encoder.preprocessing import check_box
from service.errors import BadQuery, half_character, is_number, shown

MAX_K, DEFAULT_K = 100, 10
MAX_EVENTS = 1000
MAX_ID = 512
MAX_DIM = 4096
FIELDS = (
    "user_id", "session_id", "item_id", "relation", "events", "k", "filter", "exclude_seen", "diversity",
    "personalization", "per_group", "distinct", "box", "remember",
)  # fmt: skip
SIMILAR, COMPLEMENTS = "similar", "complements"
EVENTS = ("view", "like", "cart", "purchase", "dismiss")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did: to an item, or the sending of a photo, which is known by its vector and by the
    fingerprint of the encoder that made it."""

    item_id: str | None
    event: str = "view"
    timestamp: float | None = None
    vector: tuple[float, ...] | None = None
    encoder: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One question for recommendations. A picture or an item, a user, events, any of them or none.

    relation: what the answer is to the picture or the item: like it, or what goes with it;
    user_key: in place of `user_id`, the name under which the release knows the user. No protocol takes one."""

    image: bytes | None = None
    user_id: str | None = None
    user_key: str | None = None
    session_id: str | None = None
    item_id: str | None = None
    relation: str = SIMILAR
    events: tuple[Event, ...] = ()
    k: int = DEFAULT_K
    filter: Mapping[str, Any] = field(default_factory=dict)
    exclude_seen: bool = True
    diversity: float = 0.0
    personalization: float | None = None  # None: what the release learned
    per_group: int | None = None  # variants of one product; None: one
    distinct: bool = False  # one of those that have nearly the same picture
    box: Box | None = None
    remember: bool = False


@dataclass(frozen=True, slots=True)
class SimilarQuery:
    """What looks like this picture, or like this item?"""

    image: bytes | None = None
    item_id: str | None = None
    k: int = DEFAULT_K
    filter: Mapping[str, Any] = field(default_factory=dict)
    per_group: int | None = None
    distinct: bool = False
    box: Box | None = None


def parse_query(values: Mapping[str, Any], *, image: bytes | None = None) -> Query:
    """Check the fields of a request for recommendations. Absent and null mean the default. Raises BadQuery."""
    values = _known(values, FIELDS)
    box = check_box(values["box"]) if "box" in values else None
    if box and image is None:
        raise BadQuery("box cuts a picture, and no image was sent", field="box")
    remember = _boolean(values.get("remember", False), "remember")
    if remember and image is None:
        raise BadQuery("remember asks for the event of a photo, and no image was sent", field="remember")
    if image is not None and "item_id" in values:
        raise BadQuery("expected an image or an item_id, not both", field="item_id")
    relation = values.get("relation", SIMILAR)
    if relation not in (SIMILAR, COMPLEMENTS):
        raise BadQuery(f"relation must be {SIMILAR} or {COMPLEMENTS}; got {shown(relation)}", field="relation")
    if relation == COMPLEMENTS and image is None and "item_id" not in values:
        raise BadQuery(f"{COMPLEMENTS} go with something: send an image or an item_id", field="relation")
    return Query(
        image=image,
        remember=remember,
        item_id=check_id(values["item_id"], "item_id") if "item_id" in values else None,
        relation=relation,
        user_id=check_id(values["user_id"], "user_id") if "user_id" in values else None,
        session_id=check_id(values["session_id"], "session_id") if "session_id" in values else None,
        events=_events(values.get("events", [])),
        k=_k(values.get("k", DEFAULT_K)),
        filter=_filter(values.get("filter", {})),
        exclude_seen=_boolean(values.get("exclude_seen", True), "exclude_seen"),
        diversity=_fraction(values.get("diversity", 0.0), "diversity"),
        personalization=_fraction(values["personalization"], "personalization")
        if "personalization" in values
        else None,
        per_group=_per_group(values),
        distinct=_boolean(values.get("distinct", False), "distinct"),
        box=box,
    )


def parse_similar(values: Mapping[str, Any], *, image: bytes | None = None) -> SimilarQuery:
    """Check the fields of a request for similar items: an image or an item_id, not both. Raises BadQuery."""
    values = _known(values, ("item_id", "k", "filter", "per_group", "distinct", "box"))
    if (image is None) == ("item_id" not in values):
        raise BadQuery("expected either an image or an item_id", field="image" if image is None else "item_id")
    return SimilarQuery(
        image=image,
        item_id=check_id(values["item_id"], "item_id") if "item_id" in values else None,
        k=_k(values.get("k", DEFAULT_K)),
        filter=_filter(values.get("filter", {})),
        per_group=_per_group(values),
        distinct=_boolean(values.get("distinct", False), "distinct"),
        box=check_box(values["box"]) if "box" in values else None,
    )


def check_id(value: Any, name: str) -> str:
    """Ids are strings, also when they are all digits; a bare whole number is taken as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadQuery(f"{name} must be a string; got {shown(value)}", field=name)
    if not value.strip() or len(value) > MAX_ID:
        raise BadQuery(f"{name} must have 1 to {MAX_ID} characters; got {len(value)}", field=name)
    if "\0" in value:  # which no text of PostgreSQL holds
        raise BadQuery(f"{name} holds the character of number 0: {shown(value)}", field=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadQuery(f"{name} is not valid text: {error.reason}", field=name) from error
    return value


def _known(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    for name, value in values.items():
        if (half := half_character(name) or half_character(value)) is not None:
            raise BadQuery(f"{shown(half)} is not valid text: it holds half of a surrogate pair", field=shown(name))
    if unknown := sorted(set(values) - set(names)):
        raise BadQuery(f"unknown field {shown(unknown[0])}; there are {', '.join(names)}", field=unknown[0][:80])
    return {name: value for name, value in values.items() if value is not None}


def _k(value: Any, name: str = "k") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_K:
        raise BadQuery(f"{name} must be a whole number from 1 to {MAX_K}; got {shown(value)}", field=name)
    return value


def _per_group(values: Mapping[str, Any]) -> int | None:
    return _k(values["per_group"], "per_group") if "per_group" in values else None


def _boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadQuery(f"{name} must be true or false; got {shown(value)}", field=name)
    return value


def _fraction(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise BadQuery(f"{name} must be a number from 0 to 1; got {shown(value)}", field=name)
    return float(value)


def _filter(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadQuery(f'filter must be an object, as {{"category": ["dress"]}}; got {shown(value)}', field="filter")
    return value


def _events(value: Any) -> tuple[Event, ...]:
    if not isinstance(value, list | tuple):
        raise BadQuery(f"events must be a list of objects; got {shown(value)}", field="events")
    if len(value) > MAX_EVENTS:
        raise BadQuery(f"at most {MAX_EVENTS} events are read; got {len(value)}: send the latest", field="events")
    parsed = [_event(event, position) for position, event in enumerate(value)]
    # oldest first; events without a time stay where they are said, after those with one
    return tuple(sorted(parsed, key=lambda e: math.inf if e.timestamp is None else e.timestamp))


def _event(value: Any, position: int) -> Event:
    name = f"events[{position}]"
    if isinstance(value, Mapping):  # null means absent, as everywhere
        value = {key: given for key, given in value.items() if given is not None}
    if not isinstance(value, Mapping) or ("item_id" in value) == ("vector" in value):
        raise BadQuery(f"{name} must be an object with an item_id or a vector; got {shown(value)}", field="events")
    if unknown := sorted(set(value) - {"item_id", "vector", "encoder", "event", "timestamp"}):
        raise BadQuery(
            f"{name}: unknown field {shown(unknown[0])}; there are item_id, vector, encoder, event, timestamp",
            field="events",
        )
    event = value.get("event") or "view"
    if event not in EVENTS:
        raise BadQuery(f"{name}: event must be one of {', '.join(EVENTS)}; got {shown(event)}", field="events")
    timestamp = value.get("timestamp")
    finite = timestamp is None or is_number(timestamp)
    if not finite:
        raise BadQuery(f"{name}: timestamp must be seconds since 1970; got {shown(timestamp)}", field="events")
    if "vector" in value:
        if not isinstance(encoder := value.get("encoder"), str):
            raise BadQuery(
                f"{name}: a vector comes with its `encoder`, as `remember` gave both; got {shown(encoder)}",
                field="events",
            )
        return Event(None, event, timestamp, _vector(value["vector"], name), encoder)
    return Event(check_id(value["item_id"], f"{name}.item_id"), event, timestamp)


def _vector(value: Any, name: str) -> tuple[float, ...]:
    """The vector of a photo, as an answer gave it: its length is checked where the release's is known."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DIM or not all(is_number(part) for part in value):
        raise BadQuery(f"{name}: vector must be a list of up to {MAX_DIM} numbers; got {shown(value)}", field="events")
    if not any(value):
        raise BadQuery(f"{name}: vector is all zeros, which no photo gives", field="events")
    return tuple(float(part) for part in value)
