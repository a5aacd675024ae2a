"""Stores of several processes, of other versions, and that go away."""

import subprocess
import sys
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from service.errors import StoreAway, StoreTooNew, UnsafeSettings
from service.live import schema
from service.live.store import Store
from tests.postgres import Postgres
from tests.processes import HOME, wait_until
from tests.service.live.test_store import ANNA, view, write

WRITERS, THREADS, EACH = 2, 2, 21  # processes, threads of each, writes of each thread: of 1, 2 and 3 events in turn
WRITE = """
import sys, threading
from service.errors import StoreAway
from service.live.operations import AddEvents, NewEvent
from service.live.store import Store
from service.live.unit_of_work import Attempt
store = Store.open(sys.argv[1], wait=60)
def write(who):
    for number in range({each}):
        sent = [AddEvents([NewEvent(who, str(number), "view")], (), Attempt(f"{{who}}-{{number}}-{{part}}", ""))
                for part in range(1 + number % 3)]
        while True:
            try:
                store.write(sent)
                break
            except StoreAway:  # somebody else wrote for too long
                continue
threads = [threading.Thread(target=write, args=(f"{{sys.argv[2]}}-{{n}}",)) for n in range({threads})]
[each.start() for each in threads]
[each.join() for each in threads]
"""


def sqlalchemy_url(url: str) -> str:
    """As SQLAlchemy takes it."""
    return url.replace("postgresql:", "postgresql+psycopg:") if "://" in url else f"sqlite:///{url}"


def test_who_follows_several_writing_processes_sees_every_number_once_and_in_order(
    store: Store, store_url: str
) -> None:
    """Numbers become visible in order and without gaps, whoever else writes at the same time."""
    command = [sys.executable, "-c", WRITE.format(each=EACH, threads=THREADS), store_url]
    writers = [subprocess.Popen([*command, str(number)], cwd=HOME) for number in range(WRITERS)]
    seen: list[int] = []
    position = 0
    while any(each.poll() is None for each in writers) or store.position() > position:
        changes = store.changes(position)
        assert changes.upto >= position
        seen += [each.sequence for each in changes.events]
        position = changes.upto
        time.sleep(0.01)
    assert [each.returncode for each in writers] == [0] * WRITERS
    assert seen == list(range(1, 2 * EACH * WRITERS * THREADS + 1))


def test_the_migrations_make_what_the_code_says(store: Store, store_url: str) -> None:
    """Alembic finds nothing to add, take away or change."""
    engine = create_engine(sqlalchemy_url(store_url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_a_store_of_later_code_is_left_alone(store: Store, store_url: str) -> None:
    """The error says which version was found, and what to do."""
    engine = create_engine(sqlalchemy_url(store_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match=r"version 9999.*upgrade vitrine"):
        Store.open(store_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    engine.dispose()


def test_a_store_that_is_opened_again_is_the_same_one(store: Store, store_url: str) -> None:
    """Its id, its numbers and what it holds."""
    write(store, view(ANNA))
    again = Store.open(store_url)
    assert (again.id, again.position(), len(again.changes(0).events)) == (store.id, 1, 1)
    again.close()


def test_a_server_that_went_away_and_came_back_is_used_again(postgres_server: Postgres) -> None:
    """Meanwhile every call says that it is away."""
    store = Store.open(postgres_server.database())
    write(store, view(ANNA))
    postgres_server.stop()
    try:
        calls = (store.position, lambda: store.changes(0), lambda: write(store, view(ANNA)), lambda: store.held(ANNA))
        for call in calls:
            with pytest.raises(StoreAway, match="the store"):
                call()
    finally:
        postgres_server.start()
    write(store, view(ANNA))
    assert len(store.changes(0).events) == 2
    store.close()


def test_a_server_that_hangs_is_away_after_some_seconds(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, and does not end a connection either."""
    monkeypatch.setattr("service.live.store.ANSWER", 1.0)
    store = Store.open(postgres_server.database())
    write(store, view(ANNA))
    with postgres_server.hanging():
        began = time.monotonic()
        with pytest.raises(StoreAway):
            store.position()
        with pytest.raises(StoreAway):
            write(store, view(ANNA))
        assert time.monotonic() - began < 15
    wait_until(lambda: _answers(store), seconds=30)
    write(store, view(ANNA))
    assert len(store.held(ANNA)["events"]) in (2, 3)
    store.close()


def _answers(store: Store) -> bool:
    try:
        return store.position() > 0
    except StoreAway:
        return False


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter22@db/live",
        "sqlite://",
        "nonsense+driver://x:hunter22@y/z",
        "postgresql+psycopg://u:hunter22@h:port/d",
    ],
)
def test_a_url_that_names_no_store_is_refused_and_not_repeated(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(UnsafeSettings, match=r"VITRINE_STORE: .*expected sqlite:///FILE") as refused:
        Store.open(url)
    assert "hunter22" not in str(refused.value)
