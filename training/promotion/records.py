"""What the registry holds, read without MLflow, whose import takes longer than most commands: by SQL where MLflow's
tables are at hand, by its REST interface where a server has them. Nothing is written, locked or made.
"""

import base64
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy import column, select, table

from service.errors import RegistryError
from training.sqlite import sqlite_path, sqlite_url

PATIENCE = 5.0  # seconds for an answer of a server
PAGE = 1000
# of MLflow's tables, what is read here
ALIASES = table("registered_model_aliases", *map(column, ("name", "alias", "version")))
VERSIONS = table("model_versions", *map(column, ("name", "version", "run_id", "creation_time", "current_stage")))
VERSION_TAGS = table("model_version_tags", *map(column, ("name", "version", "key", "value")))
EXPERIMENTS = table("experiments", *map(column, ("experiment_id", "name", "artifact_location")))
RUNS = table("runs", *map(column, ("run_uuid", "experiment_id", "status", "start_time", "lifecycle_stage")))
TAGS = table("tags", *map(column, ("run_uuid", "key", "value")))


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the registered model, whole or not."""

    number: int
    run_id: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an experiment. status: as MLflow names it, such as RUNNING."""

    run_id: str
    status: str
    began: datetime
    tags: Mapping[str, str]


class Records(Protocol):
    """Each raises RegistryError where the registry cannot be asked."""

    def aliases(self, model: str) -> dict[str, int]:
        """The version behind each alias; empty also where there is no such model."""

    def versions(self, model: str) -> list[Version]:
        """All of them, oldest first."""

    def runs(self, experiment: str) -> list[Run]:
        """All that were not deleted, oldest first; empty also where there is no such experiment."""


def at(uri: str) -> Records:
    """The records at an address as MLFLOW_TRACKING_URI has it. Raises RegistryError."""
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https"):
        return _Server(uri)
    if path := sqlite_path(uri):
        if not path.exists():
            raise RegistryError(f"there is no registry at {path}")
        return _Tables(sqlite_url(path, reading=True), str(path))
    if scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        return _Tables(uri, uri.rpartition("@")[2])
    raise RegistryError(
        f"MLFLOW_TRACKING_URI: expected http(s)://, sqlite:///, postgresql://, mysql:// or mssql://; got {uri}"
    )


class _Tables:
    """MLflow's own tables."""

    def __init__(self, url: str, shown: str) -> None:
        """shown: the address without a password."""
        self._url, self._shown = url, shown

    def aliases(self, model: str) -> dict[str, int]:
        found = self._ask(select(ALIASES.c.alias, ALIASES.c.version).where(ALIASES.c.name == model))
        return {alias: int(version) for alias, version in found}

    def versions(self, model: str) -> list[Version]:
        tags: dict[int, dict[str, str]] = defaultdict(dict)
        of = VERSION_TAGS.c
        for number, key, value in self._ask(select(of.version, of.key, of.value).where(of.name == model)):
            tags[int(number)][key] = value
        of = VERSIONS.c
        there = (of.name == model) & (of.current_stage != "Deleted_Internal")
        found = self._ask(select(of.version, of.run_id, of.creation_time).where(there).order_by(of.version))
        return [Version(int(number), run, _moment(made), tags[int(number)]) for number, run, made in found]

    def runs(self, experiment: str) -> list[Run]:
        mine = (EXPERIMENTS.c.name == experiment) & (RUNS.c.lifecycle_stage == "active")
        own = RUNS.join(EXPERIMENTS, RUNS.c.experiment_id == EXPERIMENTS.c.experiment_id)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        tagged = own.join(TAGS, TAGS.c.run_uuid == RUNS.c.run_uuid)
        for run, key, value in self._ask(
            select(RUNS.c.run_uuid, TAGS.c.key, TAGS.c.value).select_from(tagged).where(mine)
        ):
            tags[run][key] = value
        found = self._ask(select(RUNS.c.run_uuid, RUNS.c.status, RUNS.c.start_time).select_from(own).where(mine))
        return _in_order(Run(run, status, _moment(began), tags[run]) for run, status, began in found)

    def _ask(self, query: Any) -> list[Any]:
        try:
            engine = sqlalchemy.create_engine(self._url, poolclass=sqlalchemy.NullPool)
            with engine.connect() as connection:
                return list(connection.execute(query))
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            said = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise RegistryError(f"the registry {self._shown} cannot be read: {said}") from error


class _Server:
    """An MLflow server. User and password, token, and certificates: by the variables that MLflow reads."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def aliases(self, model: str) -> dict[str, int]:
        found = self._ask("registered-models/get", name=model)
        return {each["alias"]: int(each["version"]) for each in found.get("registered_model", {}).get("aliases", [])}

    def versions(self, model: str) -> list[Version]:
        found = self._pages("model-versions/search", "model_versions", filter=f"name = '{model}'", max_results=PAGE)
        versions = [
            Version(int(each["version"]), each["run_id"], _moment(each["creation_timestamp"]), _tags(each))
            for each in found
        ]
        return sorted(versions, key=lambda version: version.number)

    def runs(self, experiment: str) -> list[Run]:
        named = self._ask("experiments/get-by-name", experiment_name=experiment)
        if not named:
            return []
        ids = [named["experiment"]["experiment_id"]]
        found = self._pages("runs/search", "runs", post=True, experiment_ids=ids, max_results=PAGE)
        return _in_order(
            Run(info["run_id"], info["status"], _moment(info["start_time"]), _tags(data))
            for info, data in ((each["info"], each["data"]) for each in found)
        )

    def _pages(self, route: str, name: str, *, post: bool = False, **asked: Any) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            page = self._ask(route, post=post, **asked, **({"page_token": token} if token else {}))
            yield from page.get(name, [])
            token = page.get("next_page_token")
            if not token:
                return

    def _ask(self, route: str, *, post: bool = False, **asked: Any) -> dict[str, Any]:
        """What the route answers, {} where there is no such thing."""
        url = f"{self._uri}/api/2.0/mlflow/{route}"
        body = json.dumps(asked).encode() if post else None
        request = urllib.request.Request(
            url if post else f"{url}?{urllib.parse.urlencode(asked)}",
            body,
            {"Content-Type": "application/json", **_authorization()},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=_certificates()) as came:
                read = json.load(came)
        except urllib.error.HTTPError as error:
            said = error.read()[:300].decode(errors="replace")
            if error.code == 404 and "RESOURCE_DOES_NOT_EXIST" in said:
                return {}
            raise RegistryError(f"the registry {self._uri} answers {error.code}: {_first_line(said)}") from error
        except OSError as error:
            raise RegistryError(
                f"the registry {self._uri} does not answer ({getattr(error, 'reason', error)}): is MLFLOW_TRACKING_URI "
                "right?"
            ) from error
        except ValueError as error:
            raise RegistryError(f"{self._uri} does not answer JSON: it is no MLflow server") from error
        if not isinstance(read, dict):
            raise RegistryError(f"{self._uri} answers what no MLflow server does")
        return read


def _authorization() -> dict[str, str]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if not user:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def _certificates() -> ssl.SSLContext | None:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        return ssl._create_unverified_context()
    own = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    return ssl.create_default_context(cafile=own) if own else None


def _in_order(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.began, run.run_id))


def _tags(of: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in of.get("tags", [])}


def _moment(milliseconds: int | str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]
