"""Events as somebody sends them, one or many -> the operation that keeps them."""

from collections.abc import Mapping
from typing import Any

from service.errors import BadQuery, is_number, shown
from service.live.operations import AddEvents, NewEvent
from service.live.requests.event_names import RATED, SILENT
from service.live.requests.event_names import meaning as meaning_of
from service.live.unit_of_work import Attempt
from service.recommender.query import check_id
from service.recommender.user_keys import hash_session, hash_user

MAX_EVENTS = 5000  # of one request
FIELDS = ("user_id", "session_id", "item_id", "event", "value", "timestamp")
FUTURE = 3600.0  # seconds by which a client's clock may be ahead


def parse_events(values: Any, *, user_key: str, now: float, attempt: Attempt | None = None) -> tuple[AddEvents, int]:
    """One event, or {"events": [...]} -> the operation, and how many were left out since they say nothing of liking.

    now: seconds since 1970. Raises BadQuery: then none is kept."""
    if not isinstance(values, Mapping):
        raise BadQuery(f'expected an event, or {{"events": [...]}}; got {shown(values)}', field="events")
    sent = values.get("events", values)
    if isinstance(sent, Mapping):
        sent = [sent]
    elif set(values) != {"events"}:
        raise BadQuery("beside `events` there is nothing else", field="events")
    if not isinstance(sent, list) or not 1 <= len(sent) <= MAX_EVENTS:
        raise BadQuery(f"events must be a list of 1 to {MAX_EVENTS}", field="events")
    sessions: dict[str, None] = {}
    events, ignored = [], 0
    for position, each in enumerate(sent):
        event = _event(each, f"events[{position}]", user_key, now, sessions)
        if event is None:
            ignored += 1
        else:
            events.append(event)
    return AddEvents(events, tuple(sessions), attempt), ignored


def _event(value: Any, name: str, user_key: str, now: float, sessions: dict[str, None]) -> NewEvent | None:
    if not isinstance(value, Mapping):
        raise BadQuery(f"{name} must be an object; got {shown(value)}", field="events")
    if unknown := sorted(set(value) - set(FIELDS)):
        raise BadQuery(f"{name}: unknown field {shown(unknown[0])}; there are {', '.join(FIELDS)}", field="events")
    value = {key: given for key, given in value.items() if given is not None}
    if ("user_id" in value) == ("session_id" in value):
        raise BadQuery(f"{name}: expected a user_id or a session_id, not both", field="events")
    if "item_id" not in value:
        raise BadQuery(f"{name}: item_id is needed", field="events")
    if "user_id" in value:
        who = hash_user(check_id(value["user_id"], f"{name}.user_id"), user_key)
    else:
        who = hash_session(check_id(value["session_id"], f"{name}.session_id"), user_key)
        sessions[who] = None
    item_id = check_id(value["item_id"], f"{name}.item_id")
    number = _number(value, "value", name)
    meaning = meaning_of(value.get("event", "view")) if isinstance(value.get("event", ""), str) else ""
    if not meaning:
        raise BadQuery(f"{name}: the event {shown(value.get('event'))} is not known; view, like, cart, purchase, "
                       "dismiss and the names that shops' logs have for them are", field="events")  # fmt: skip
    if meaning == RATED and number is None:
        raise BadQuery(f"{name}: a rating needs a value", field="events")
    return None if meaning == SILENT else NewEvent(who, item_id, meaning, number, _time(value, name, now))


def _time(value: Mapping[str, Any], name: str, now: float) -> float | None:
    timestamp = _number(value, "timestamp", name)
    if timestamp is not None and not 0 < timestamp < now + FUTURE:
        raise BadQuery(
            f"{name}: timestamp must be seconds since 1970 and not in the future; got {timestamp:g}", field="events"
        )
    return timestamp


def _number(value: Mapping[str, Any], field: str, name: str) -> float | None:
    given = value.get(field)
    if given is not None and not is_number(given):
        raise BadQuery(f"{name}: {field} must be a number; got {shown(given)}", field="events")
    return None if given is None else float(given)
