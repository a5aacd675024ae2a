"""The store: catalogue changes and events that outlive a process, in SQLite or PostgreSQL.

Every change has a sequence number. Numbers become visible in their order and without gaps, so whoever has read up to
one has missed nothing before it. Of an item the present state is kept, not each change of it.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Table, and_, create_engine, delete, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from service.errors import StoreAway, UnsafeSettings
from service.live import schema
from service.live.deadline import Deadline
from service.live.unit_of_work import ItemState, Operation, UnitOfWork, item_state

CONNECT, STATEMENT = 3, 5  # seconds within which PostgreSQL must let us in, and answer
ANSWER = 2.0 * STATEMENT  # ... in all, even if it hangs; what is one transaction
LOOK_AGAIN = 1.0  # seconds between attempts to reach a store at start
PART = 500  # digests asked for at once
WINDOW = 50_000  # changes that are read at once
PRUNING = 60  # seconds that forgetting what is old may take

Observe = Callable[[str, float], None]  # what was done, and the seconds that it took


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event. user_key: keyed hash; event: view, like, cart, purchase, dismiss, or rated; timestamp: seconds."""

    sequence: int
    user_key: str
    item_id: str
    event: str
    value: float | None
    timestamp: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out of a picture. vector: (dim,) float32; landmarks: as `Landmarks.packed`, or None."""

    vector: np.ndarray
    landmarks: bytes | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a store holds beyond a sequence number. links: (session key, user key); erased: marks of users.

    upto: the number up to which this is everything."""

    upto: int
    items: Sequence[ItemState]
    events: Sequence[StoredEvent]
    links: Sequence[tuple[str, str]]
    erased: Sequence[str]


class Store:
    """One store, for one process. Safe to call from several threads."""

    def __init__(self, engine: Engine, observe: Observe = lambda what, seconds: None) -> None:
        """observe: told how long reads and writes took, also those that failed."""
        self._engine, self._observe = engine, observe
        self._deadline = Deadline(ANSWER) if engine.dialect.name == "postgresql" else None
        try:
            with self._connected("open") as connection:
                self.id: str = connection.execute(select(schema.log.c.store)).scalar_one()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, url: str, *, wait: float = 0.0, observe: Observe = lambda what, seconds: None) -> "Store":
        """Open a store, make it where it is not there, and bring it to the newest version.

        url: sqlite:///FILE, a path, or postgresql+psycopg://...; wait: seconds to wait for one that is away.
        Raises UnsafeSettings where the URL is none, StoreTooNew, StoreAway."""
        engine = _engine(url)
        deadline = time.monotonic() + wait
        try:
            while True:
                try:
                    schema.upgrade(engine)
                    return cls(engine, observe)
                except SQLAlchemyError as error:
                    if time.monotonic() >= deadline:
                        raise StoreAway(f"the store cannot be reached: {_short(error)}") from error
                    time.sleep(LOOK_AGAIN)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """End every connection."""
        self._engine.dispose()
        if self._deadline is not None:
            self._deadline.close()

    def position(self) -> int:
        """The number of the last change. Raises StoreAway."""
        with self._connected("position") as connection:
            return int(connection.execute(select(schema.log.c.last)).scalar_one())

    def changes(self, after: int) -> Changes:
        """The first of what was changed since the number `after`, in order, of at most WINDOW numbers.

        Where `upto` is `after`, there is nothing more. Raises StoreAway."""
        with self._connected("read") as connection:
            last = int(connection.execute(select(schema.log.c.last)).scalar_one())
            if last <= after:
                return Changes(after, (), (), (), ())
            upto = min(last, after + WINDOW)

            def since(table: Table, *columns: Any, upto: int | None = upto) -> list[Any]:
                number = table.c.sequence
                which = number > after if upto is None else and_(number > after, number <= upto)
                return list(connection.execute(select(*columns).where(which).order_by(number)))

            # an item that is changed again at this moment comes with its later state, and once more with the next ones
            latest = None if upto == last else upto

            links, erased = schema.links, schema.erased
            return Changes(
                upto,
                [item_state(row) for row in since(schema.items, schema.items, upto=latest)],
                [StoredEvent(*row) for row in since(schema.events, schema.events)],
                [(row[0], row[1]) for row in since(links, links.c.session_key, links.c.user_key)],
                [row[0] for row in since(erased, erased.c.mark)],
            )

    def write(self, operations: Sequence[Operation]) -> list[Any]:
        """Do all of these in one transaction, in order -> what each replies, or the error that it alone has.

        Once this returns, they outlive the process. Raises StoreAway: then none was done, or it is not known."""
        with self._connected("write", commit=True) as connection:
            return UnitOfWork(connection).do(operations)

    def picture(self, digest: str) -> bytes | None:
        """The bytes of a picture. Raises StoreAway."""
        wanted = select(schema.pictures.c.content).where(schema.pictures.c.digest == digest)
        with self._connected("read") as connection:
            found: bytes | None = connection.execute(wanted).scalar_one_or_none()
            return found

    def seen(self, digests: Sequence[str], *, encoder: str, precision: str) -> dict[str, Seen]:
        """What somebody has found out already of pictures, by digest. Raises StoreAway."""
        pictures, vectors = schema.pictures, schema.vectors
        found: dict[str, Seen] = {}
        with self._connected("read") as connection:
            for start in range(0, len(digests), PART):
                wanted = (
                    select(vectors.c.digest, vectors.c.vector, pictures.c.landmarks)
                    .join(pictures, pictures.c.digest == vectors.c.digest)
                    .where(
                        and_(
                            vectors.c.digest.in_(digests[start : start + PART]),
                            vectors.c.encoder == encoder,
                            vectors.c.precision == precision,
                        )
                    )
                )
                for digest, vector, landmarks in connection.execute(wanted):
                    found[digest] = Seen(np.frombuffer(vector, np.float32), landmarks)
        return found

    def prune(self, *, events_before: float, requests_before: float) -> dict[str, int]:
        """Forget what is too old: events, replies to idempotency keys, pictures of no item. times: seconds since 1970.

        -> how many of each. Raises StoreAway."""
        events, requests, pictures = schema.events, schema.requests, schema.pictures
        with self._connected("prune", commit=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL statement_timeout = '{PRUNING}s'"))
            lists = connection.execute(select(schema.items.c.pictures).where(schema.items.c.pictures.is_not(None)))
            shown = {digest for row in lists for digest in json.loads(row[0])}
            there = connection.execute(select(pictures.c.digest).where(pictures.c.at < requests_before))
            orphans = [row[0] for row in there if row[0] not in shown]
            for start in range(0, len(orphans), PART):
                part = orphans[start : start + PART]
                connection.execute(delete(schema.vectors).where(schema.vectors.c.digest.in_(part)))
                connection.execute(delete(pictures).where(pictures.c.digest.in_(part)))
            old = connection.execute(delete(events).where(events.c.timestamp < events_before)).rowcount
            done = connection.execute(delete(requests).where(requests.c.at < requests_before)).rowcount
        return {"events": old, "requests": done, "pictures": len(orphans)}

    def held(self, user_key: str) -> dict[str, Any]:
        """All that is held of a user: events, and how many sessions are joined to them. Raises StoreAway."""
        events, links = schema.events, schema.links
        wanted = select(events).where(events.c.user_key == user_key).order_by(events.c.sequence)
        with self._connected("read") as connection:
            found = [StoredEvent(*row) for row in connection.execute(wanted)]
            sessions = len(list(connection.execute(select(links.c.session_key).where(links.c.user_key == user_key))))
        told = [
            {"item_id": each.item_id, "event": each.event, "value": each.value, "timestamp": each.timestamp}
            for each in found
        ]
        return {"events": told, "sessions": sessions}

    def is_erased(self, mark: str) -> bool:
        """Whether the user with this mark was erased. Raises StoreAway."""
        wanted = select(schema.erased.c.sequence).where(schema.erased.c.mark == mark)
        with self._connected("read") as connection:
            return connection.execute(wanted).first() is not None

    def compact(self) -> None:
        """Have nothing of what was deleted stand in a file of SQLite's any more. Raises StoreAway."""
        if self._engine.dialect.name == "sqlite":
            with self._connected("prune") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _connected(self, what: str, *, commit: bool = False) -> Iterator[Connection]:
        began = time.perf_counter()
        try:
            with ExitStack() as ended:
                connection = self._engine.connect()
                ended.enter_context(self._within(connection))  # also for its end
                ended.enter_context(connection)
                yield connection
                if commit:
                    connection.commit()
        except DBAPIError as error:
            self._observe(f"{what} failed", time.perf_counter() - began)
            raise StoreAway(f"the store cannot be reached: {_short(error)}") from error
        except SQLAlchemyError as error:  # no connection within the time allowed
            self._observe(f"{what} failed", time.perf_counter() - began)
            raise StoreAway(f"the store does not answer: {_short(error)}") from error
        self._observe(what, time.perf_counter() - began)

    def _within(self, connection: Connection) -> AbstractContextManager[None]:
        if self._deadline is None:
            return nullcontext()
        driver: Any = connection.connection.dbapi_connection
        return self._deadline.on(driver.fileno())


def _engine(url: str) -> Engine:
    """Raises UnsafeSettings; the URL itself is not repeated, since it may hold a password."""
    if "://" not in url:
        url = f"sqlite:///{Path(url)}"
    expected = "expected sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
            limits = (
                f"-c statement_timeout={STATEMENT * 1000} -c idle_in_transaction_session_timeout={STATEMENT * 2000}"
            )
            asked = {"connect_timeout": CONNECT, "options": limits}
            return create_engine(parsed, connect_args=asked, pool_timeout=STATEMENT, pool_size=4)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(parsed, connect_args={"timeout": STATEMENT}, pool_timeout=STATEMENT)
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
    except (ArgumentError, NoSuchModuleError, OSError, ValueError) as error:  # ValueError: a port that is no number
        raise UnsafeSettings(f"VITRINE_STORE: {type(error).__name__}: {expected}") from None
    raise UnsafeSettings(f"VITRINE_STORE: {expected}")


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Readers do not wait for the writer; what is committed is on the disk; what is deleted is overwritten."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _short(error: Exception) -> str:
    """The first line, without the statement and its parameters, which may hold what nobody should read in a log."""
    original = getattr(error, "orig", None)
    return str(original or error).strip().partition("\n")[0][:200]
