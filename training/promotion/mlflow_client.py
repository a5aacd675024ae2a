"""MLflow's client for what is written: opened at the first write, since its import takes longer than most commands."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import func, select, update

from service.errors import RegistryError
from training.progress import say
from training.promotion import records
from training.sqlite import sqlite_path

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its seven take minutes to say that nobody answers
FIRST_USE = 30.0  # seconds for which another process that makes the tables is waited for
# its user interface shows an experiment of this kind as a table of runs with their figures
CLASSIC = {"mlflow.experimentKind": "custom_model_development"}
NOTE = "mlflow.note.content"  # the tag that it shows as a description
# every column of its tables that says where artefacts lie
PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"),
          ("model_versions", "storage_location"))  # fmt: skip


class Client:
    """MlflowClient, whose errors are ours. Raises RegistryError from every method."""

    def __init__(self, uri: str, shown: str) -> None:
        """shown: what to call the registry."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._errors = (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError)
        self._shown = shown
        try:
            self._client = MlflowClient(uri, registry_uri=uri)
        except self._errors as error:
            raise self._ours(error) from error

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            try:
                return method(*arguments, **named)
            except self._errors as error:
                raise self._ours(error) from error

        return ask

    def _ours(self, error: Exception) -> RegistryError:
        return RegistryError(f"the registry {self._shown} says: {str(error).splitlines()[0]}")


def open_client(uri: str, shown: str, *, model: str, experiments: Mapping[str, str], artefacts: Path | None) -> Any:
    """A client of a registry that has the model and the experiments from now on. experiments: name -> description;
    artefacts: folder of those of a new registry, and where they are looked for if the registry has been moved; None:
    what the server says.

    Raises RegistryError."""
    with _first_use(uri):
        client = Client(uri, shown)
        for name, note in experiments.items():
            place = None if artefacts is None else (artefacts / name).resolve().as_uri()
            if client.get_experiment_by_name(name) is None:
                try:
                    client.create_experiment(name, artifact_location=place, tags=CLASSIC | {NOTE: note})
                except RegistryError:  # made by another one meanwhile
                    client.get_experiment_by_name(name)
        if not client.search_registered_models(f"name = '{model}'"):
            try:
                client.create_registered_model(model, description="Releases of Vitrine, whole")
            except RegistryError:
                client.get_registered_model(model)
        if artefacts is not None:
            try:
                _follow(uri, artefacts, next(iter(experiments)))
            except sqlalchemy.exc.SQLAlchemyError as error:
                said = str(getattr(error, "orig", None) or error).splitlines()[0]
                raise RegistryError(
                    f"the registry {shown} was moved, which cannot be written into it: {said}"
                ) from error
    return client


def _follow(uri: str, artefacts: Path, experiment: str) -> None:
    """A folder of releases that was moved or copied goes on with its own artefacts: MLflow keeps their places as they
    were when the folder had another name."""
    here = artefacts.resolve().as_uri()
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        known = records.EXPERIMENTS.c
        said = connection.scalar(select(known.artifact_location).where(known.name == experiment)) or ""
        was = said.removesuffix(f"/{experiment}")
        if was in (here, said):
            return
        for name, column in PLACES:
            table = sqlalchemy.table(name, sqlalchemy.column(column))
            place = table.c[column]
            moved = here + func.substr(place, len(was) + 1)
            connection.execute(
                update(table).where(place.startswith(f"{was}/", autoescape=True)).values({column: moved})
            )
    say(f"registry: it was at {was} before; its artefacts are those at {here} now")


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """MLflow makes the tables of an SQLite file at first use, which two at once spoil. Raises RegistryError."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        if path.exists():  # one that can only be read needs no making
            yield
            return
        raise RegistryError(f"no registry can be made at {path}: {error.strerror}") from error
    with file:
        _lock(file.fileno(), path)
        yield


def _lock(file: int, path: Path) -> None:
    began = time.monotonic()
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > began + FIRST_USE:
                raise RegistryError(f"another process has held the registry {path} for {FIRST_USE:g} s") from error
            time.sleep(0.05)
