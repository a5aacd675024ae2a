"""One transaction of the store: operations look at what is there, and what they change is written together."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from service.errors import BadQuery
from service.live import schema

PART = 500  # rows asked for at once


@dataclass(frozen=True, slots=True)
class ItemState:
    """The present state of an item that was changed. complete: whether `attributes` are all that it has, or go over
    those of the release; None among them takes one away; pictures: digests, None for those of the release."""

    item_id: str
    sequence: int = 0
    withdrawn: bool = False
    complete: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may be sent again. key: of who sends it, and its Idempotency-Key; digest: of what it asks."""

    key: str
    digest: str


class Operation(Protocol):
    """One thing to be done. attempt: None where the request has no Idempotency-Key.

    item_ids, session_keys: what it has to know the present state of."""

    @property
    def attempt(self) -> Attempt | None: ...

    @property
    def item_ids(self) -> Sequence[str]: ...

    @property
    def session_keys(self) -> Sequence[str]: ...

    def do(self, work: "UnitOfWork") -> dict[str, Any]:
        """Do it; returns the reply. It raises BadQuery before it changes anything, or not at all."""


class UnitOfWork:
    """What one transaction has read, and what it will write."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.now = time.time()
        held = (
            update(schema.log).values(last=schema.log.c.last).where(schema.log.c.id == 1).returning(schema.log.c.last)
        )
        self._first = self.last = int(connection.execute(held).scalar_one())  # nobody else writes until the commit
        self.items: dict[str, ItemState] = {}
        self.links: dict[str, str] = {}  # session key -> user key
        self._stored: set[str] = set()  # item ids that have a row
        self._changed: dict[str, ItemState] = {}
        self._pictures: dict[str, tuple[bytes, bytes | None]] = {}
        self._vectors: dict[tuple[str, str, str], bytes] = {}
        self._events: list[dict[str, Any]] = []
        self._replies: dict[str, tuple[str, str]] = {}  # key -> digest, reply
        self._new_replies: list[str] = []

    def do(self, operations: Sequence[Operation]) -> list[Any]:
        """Do them in order and write -> the reply of each, or its error."""
        self._read(operations)
        replies = [self._do_once(operation) for operation in operations]
        self._write()
        return replies

    def next_number(self) -> int:
        """The number of one more change."""
        self.last += 1
        return self.last

    def put(self, state: ItemState) -> ItemState:
        """Give an item a new state; returns it with its number."""
        numbered = replace(state, sequence=self.next_number())
        self.items[state.item_id] = self._changed[state.item_id] = numbered
        return numbered

    def add_picture(self, digest: str, content: bytes, landmarks: bytes | None) -> None:
        """Keep a picture, and its landmarks where they are known."""
        self._pictures[digest] = content, landmarks

    def add_vector(self, digest: str, encoder: str, precision: str, vector: bytes) -> None:
        """Keep what an encoder made of a picture."""
        self._vectors[digest, encoder, precision] = vector

    def add_event(self, user_key: str, item_id: str, event: str, value: float | None, timestamp: float) -> int:
        """Keep an event; returns its number."""
        number = self.next_number()
        self._events.append(
            {
                "sequence": number,
                "user_key": user_key,
                "item_id": item_id,
                "event": event,
                "value": value,
                "timestamp": timestamp,
            }
        )
        return number

    def join(self, session_key: str, user_key: str) -> int:
        """Have a session be a user's; returns the number."""
        self._flush_events()
        number, links, events = self.next_number(), schema.links, schema.events
        self._connection.execute(delete(links).where(links.c.session_key == session_key))
        self._connection.execute(insert(links).values(session_key=session_key, user_key=user_key, sequence=number))
        self._connection.execute(update(events).where(events.c.user_key == session_key).values(user_key=user_key))
        self.links[session_key] = user_key
        return number

    def erase(self, user_key: str, mark: str) -> dict[str, int]:
        """Take away all that is held of a user -> the number, and how many events and sessions there were."""
        self._flush_events()
        links, events, erased = schema.links, schema.events, schema.erased
        gone = self._connection.execute(delete(events).where(events.c.user_key == user_key)).rowcount
        sessions = self._connection.execute(delete(links).where(links.c.user_key == user_key)).rowcount
        self._connection.execute(delete(erased).where(erased.c.mark == mark))
        number = self.next_number()
        self._connection.execute(insert(erased).values(mark=mark, sequence=number, at=self.now))
        self.links = {session: user for session, user in self.links.items() if user != user_key}
        return {"sequence": number, "events": gone, "sessions": sessions}

    def _read(self, operations: Sequence[Operation]) -> None:
        """What the operations have to know, in one question a table."""
        wanted = dict.fromkeys(item_id for each in operations for item_id in each.item_ids)
        for part in _parts(wanted):
            for row in self._connection.execute(select(schema.items).where(schema.items.c.item_id.in_(part))):
                self.items[row.item_id] = item_state(row)
        self._stored = set(self.items)
        links, requests = schema.links, schema.requests
        for part in _parts(dict.fromkeys(key for each in operations for key in each.session_keys)):
            found = select(links.c.session_key, links.c.user_key).where(links.c.session_key.in_(part))
            self.links |= {row[0]: row[1] for row in self._connection.execute(found)}
        for part in _parts(dict.fromkeys(each.attempt.key for each in operations if each.attempt is not None)):
            for row in self._connection.execute(select(requests).where(requests.c.key.in_(part))):
                self._replies[row.key] = row.digest, row.reply

    def _do_once(self, operation: Operation) -> Any:
        """Do it, or say again what was said when it was first sent."""
        attempt = operation.attempt
        try:
            if attempt is None:
                return operation.do(self)
            if (said := self._replies.get(attempt.key)) is None:
                reply = operation.do(self)
                self._replies[attempt.key] = attempt.digest, json.dumps(reply)
                self._new_replies.append(attempt.key)
                return reply
            if said[0] != attempt.digest:
                raise BadQuery(
                    "this Idempotency-Key came before with another request: a new request needs a new key",
                    field="Idempotency-Key",
                )
            return json.loads(said[1])
        except BadQuery as error:
            return error

    def _write(self) -> None:
        connection = self._connection
        self._write_pictures()
        rows = [_row(state, self.now) for state in self._changed.values()]
        if new := [row for row in rows if row["item_id"] not in self._stored]:
            connection.execute(insert(schema.items), new)
        if old := [{**row, "which": row["item_id"]} for row in rows if row["item_id"] in self._stored]:
            connection.execute(update(schema.items).where(schema.items.c.item_id == bindparam("which")), old)
        self._flush_events()
        if self._new_replies:
            connection.execute(
                insert(schema.requests),
                [
                    {"key": key, "digest": self._replies[key][0], "reply": self._replies[key][1], "at": self.now}
                    for key in self._new_replies
                ],
            )
        if self.last > self._first:
            connection.execute(update(schema.log).where(schema.log.c.id == 1).values(last=self.last))

    def _write_pictures(self) -> None:
        """Those that are not there already."""
        pictures, vectors = schema.pictures, schema.vectors
        for part in _parts(self._pictures):
            found = self._connection.execute(select(pictures.c.digest).where(pictures.c.digest.in_(part)))
            there = {row[0] for row in found}
            if new := [
                dict(
                    zip(
                        ("digest", "content", "landmarks", "at"),
                        (digest, *self._pictures[digest], self.now),
                        strict=True,
                    )
                )
                for digest in part
                if digest not in there
            ]:
                self._connection.execute(insert(pictures), new)
        for digest, encoder, precision in self._vectors:
            key = and_(vectors.c.digest == digest, vectors.c.encoder == encoder, vectors.c.precision == precision)
            if self._connection.execute(select(vectors.c.digest).where(key)).first() is None:
                vector = self._vectors[digest, encoder, precision]
                row = {"digest": digest, "encoder": encoder, "precision": precision, "vector": vector}
                self._connection.execute(insert(vectors).values(row))

    def _flush_events(self) -> None:
        if self._events:
            self._connection.execute(insert(schema.events), self._events)
            self._events = []


def item_state(row: Any) -> ItemState:
    """A row of the table of items."""
    pictures = None if row.pictures is None else tuple(json.loads(row.pictures))
    return ItemState(
        row.item_id, int(row.sequence), bool(row.withdrawn), bool(row.complete), json.loads(row.attributes), pictures
    )


def _row(state: ItemState, at: float) -> dict[str, Any]:
    return {
        "item_id": state.item_id,
        "sequence": state.sequence,
        "withdrawn": state.withdrawn,
        "complete": state.complete,
        "attributes": json.dumps(state.attributes),
        "pictures": None if state.pictures is None else json.dumps(state.pictures),
        "at": at,
    }


def _parts(keys: Iterable[str]) -> list[list[str]]:
    every = list(keys)
    return [every[start : start + PART] for start in range(0, len(every), PART)]
