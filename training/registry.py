"""The registry: MLflow holds every release, and which of them has which alias. Release N is version N of `vitrine`.

A number is taken before its release is written, and the version is a release once it carries the digest of its
manifest: a command that was killed in between leaves a version that nobody sees, which the next one completes or
removes.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its seven take minutes to say that nobody answers

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from service.errors import RegistryError, ReleaseDamaged
from service.release import MANIFEST, Manifest, Release, digest, verify
from training.numbers import claim
from training.progress import console, say
from training.samples import write_samples

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

MODEL = "vitrine"
TRAINING, PROMOTIONS = "vitrine-training", "vitrine-promotions"
STAGING, CANARY, PRODUCTION = ALIASES = ("staging", "canary", "production")
SEAL = "vitrine.manifest"  # sha256 of manifest.json
IMAGE = "vitrine.image"  # digest of the image in its registry
ARTEFACT = "release"  # the release's folder among the artefacts of its run
OWNER = ("vitrine.host", "vitrine.pid")
LONGEST = 250  # characters of a parameter, as older servers take it


@dataclass(frozen=True, slots=True)
class Registered:
    """A release that the registry holds. manifest: sha256 of its manifest.json, by which a copy is known."""

    number: int
    run_id: str
    manifest: str
    created: datetime


class Registry:
    """Releases by their numbers, and aliases. Raises RegistryError where MLflow cannot be asked."""

    def __init__(self, uri: str, *, artefacts: Path | None = None, trusted: Sequence[Ed25519PublicKey] = ()) -> None:
        """uri: as MLFLOW_TRACKING_URI; artefacts: where a new registry keeps files, None for what the server says;
        trusted: keys of which one must have signed what is fetched; none: whoever."""
        self.uri = uri
        self._artefacts = artefacts
        self._trusted = trusted
        with _first_use(uri):
            self.mlflow_client: Any = _Client(uri)
            self._experiments = {name: self._experiment(name) for name in (TRAINING, PROMOTIONS)}
            if not self.mlflow_client.search_registered_models(f"name = '{MODEL}'"):
                try:
                    self.mlflow_client.create_registered_model(MODEL, description="Releases of Vitrine, whole")
                except RegistryError:  # made by another one meanwhile
                    self.mlflow_client.get_registered_model(MODEL)

    def experiment(self, name: str) -> str:
        """The id of TRAINING or PROMOTIONS."""
        return self._experiments[name]

    def releases(self) -> list[Registered]:
        """All whole ones, oldest first."""
        found = [_registered(version) for version in self._versions() if SEAL in version.tags]
        return sorted(found, key=lambda each: each.number)

    def get(self, number: int) -> Registered:
        """Raises RegistryError where there is no such release."""
        there = {each.number: each for each in self.releases()}
        if number not in there:
            raise RegistryError(
                f"the registry {self.uri} holds no release {number}; it holds {', '.join(map(str, there)) or 'none'}"
            )
        return there[number]

    def aliases(self) -> dict[str, int]:
        """The release behind each alias that points to one."""
        return {name: int(number) for name, number in self.mlflow_client.get_registered_model(MODEL).aliases.items()}

    def point(self, alias: str, number: int | None) -> None:
        """Have an alias name a release, or none."""
        if number is None:
            self.mlflow_client.delete_registered_model_alias(MODEL, alias)
        else:
            self.mlflow_client.set_registered_model_alias(MODEL, alias, str(number))

    def image(self, number: int) -> str:
        """The digest of a release's image, such as sha256:..., or "" where nobody has said it."""
        return str(self.mlflow_client.get_model_version(MODEL, str(number)).tags.get(IMAGE, ""))

    def note_image(self, number: int, digest: str) -> None:
        """Remember the digest of a release's image, for overlays. Raises RegistryError where it is none."""
        if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            raise RegistryError(f"the digest of an image is sha256: and 64 hexadecimal digits; got {digest!r}")
        self.mlflow_client.set_model_version_tag(MODEL, str(number), IMAGE, digest)

    def reserve(self, releases: Path) -> int:
        """Take the next number for a release that is about to be written: no other packaging gets it."""
        while True:
            run = self.mlflow_client.create_run(self.experiment(TRAINING), tags=owner())
            source = f"{run.info.artifact_uri}/{ARTEFACT}"
            version = self.mlflow_client.create_model_version(MODEL, source, run.info.run_id, tags=owner())
            number = int(version.version)
            if claim(releases, number):
                self.mlflow_client.update_run(run.info.run_id, name=f"release {number}")
                return number
            self._forget(number, run.info.run_id)  # a release from before the registry has it

    def add(self, release: Path) -> Registered:
        """Log a release that was written under a reserved number, and seal its version. Again does nothing."""
        manifest = Manifest.read(release)
        version = self.mlflow_client.get_model_version(MODEL, str(manifest.release))
        if SEAL not in version.tags:
            self._log(version.run_id, release, manifest)
            self.mlflow_client.set_model_version_tag(MODEL, version.version, SEAL, digest(release / MANIFEST))
            self.mlflow_client.set_terminated(version.run_id)
            say(f"registry: release {manifest.release} is version {manifest.release} of {MODEL} in {self.uri}")
        return self.get(manifest.release)

    def fetch(self, number: int, releases: Path) -> Path:
        """The folder of a release, verified: the one that is here, or a copy from the registry's artefacts.

        Raises RegistryError, ReleaseError."""
        registered = self.get(number)
        folder = releases / str(number)
        if not folder.exists():
            self._download(registered, folder)
        self._require_same(folder, registered)
        verify(folder, trusted=self._trusted)
        return folder

    def reconcile(self, releases: Path) -> None:
        """Complete or remove what a packaging on this machine left when it was killed."""
        for version in self._versions():
            number = int(version.version)
            if SEAL in version.tags or not is_abandoned(version.tags):
                continue
            if (releases / str(number)).is_dir():
                say(f"registry: release {number} was written and not registered; registering it")
                self.add(releases / str(number))
            else:
                say(f"registry: the packaging of release {number} was broken off; its number stays unused")
                shutil.rmtree(releases / f".writing-{number}", ignore_errors=True)
                self._forget(number, version.run_id)

    def _experiment(self, name: str) -> str:
        found = self.mlflow_client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = None if self._artefacts is None else (self._artefacts / name).resolve().as_uri()
        try:
            return str(self.mlflow_client.create_experiment(name, artifact_location=place))
        except RegistryError:  # made by another one meanwhile
            return str(self.mlflow_client.get_experiment_by_name(name).experiment_id)

    def _versions(self) -> list[Any]:
        found, token = [], None
        while True:
            page = self.mlflow_client.search_model_versions(f"name = '{MODEL}'", max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _forget(self, number: int, run_id: str) -> None:
        self.mlflow_client.delete_model_version(MODEL, str(number))
        self.mlflow_client.set_terminated(run_id, status="KILLED")

    def _log(self, run_id: str, release: Path, manifest: Manifest) -> None:
        """Parameters, figures, learning curve, the release, and pictures of what it answers."""
        made = {"preprocessing": manifest.preprocessing, "rows": manifest.rows, "data": manifest.data}
        parameters = dict(_flat(manifest.training | made))
        tags = {"data": manifest.data["fingerprint"], **manifest.code}
        now = int(datetime.now(UTC).timestamp() * 1000)
        numbers = [(name, value) for name, value in _flat(manifest.metrics) if isinstance(value, int | float)]
        figures = [Metric(name, float(value), now, 0) for name, value in numbers]
        figures += [
            Metric(f"encoder.{name}", value, now, step)
            for step, epoch in enumerate(learning_curve(release), start=1)
            for name, value in epoch.items()
        ]
        for start in range(0, len(figures), 1000):
            self.mlflow_client.log_batch(run_id, metrics=figures[start : start + 1000])
        texts = [Param(name, str(value)[:LONGEST]) for name, value in parameters.items()]
        for start in range(0, len(texts), 100):
            self.mlflow_client.log_batch(run_id, params=texts[start : start + 100])
        for name, value in tags.items():
            self.mlflow_client.set_tag(run_id, f"vitrine.{name}", value)
        with console.status(f"registry: copying release {manifest.release}"):
            self.mlflow_client.log_artifacts(run_id, str(release), ARTEFACT)
            with tempfile.TemporaryDirectory() as folder:
                write_samples(Release.open(release), Path(folder))
                self.mlflow_client.log_artifacts(run_id, folder, "samples")

    def _download(self, registered: Registered, folder: Path) -> None:
        aside = folder.with_name(f".pulling-{registered.number}")
        shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
        aside.mkdir(parents=True)
        try:
            with console.status(f"fetching release {registered.number} from {self.uri}"):
                self.mlflow_client.download_artifacts(registered.run_id, ARTEFACT, str(aside))
            fetched = aside / ARTEFACT
            self._require_same(fetched, registered)
            Release.open(fetched, trusted=self._trusted)
            claim(folder.parent, registered.number)
            fetched.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _require_same(self, folder: Path, registered: Registered) -> None:
        try:
            same = digest(folder / MANIFEST) == registered.manifest
        except OSError as error:
            raise ReleaseDamaged(f"{folder} has no {MANIFEST} ({error})") from error
        if not same:
            raise ReleaseDamaged(
                f"{folder} is not the release {registered.number} that {self.uri} holds: its manifest is another; "
                f"remove the folder and fetch it again: vitrine pull {registered.number}"
            )


class _Client:
    """MlflowClient, whose errors are ours."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(uri, registry_uri=uri)
        self._uri = uri

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            try:
                return method(*arguments, **named)
            except (MlflowException, OSError) as error:
                raise RegistryError(f"the registry {self._uri} says: {str(error).splitlines()[0]}") from error

        return ask


def local(releases: Path, *, begin: bool = True, trusted: Sequence[Ed25519PublicKey] = ()) -> Registry:
    """The registry beside the releases, where no server is named. begin: also where there is none yet; trusted: as
    `Registry` has it.

    Raises RegistryError."""
    place = releases.resolve() / ".registry"
    if not begin and not place.exists():
        raise RegistryError(
            f"{releases} has no registry: vitrine train begins one; or name one by --releases or MLFLOW_TRACKING_URI"
        )
    place.mkdir(parents=True, exist_ok=True)
    return Registry(f"sqlite:///{place / 'mlflow.db'}", artefacts=place / "artefacts", trusted=trusted)


def owner() -> dict[str, str]:
    """Tags by which the work of a process that was killed is known."""
    return dict(zip(OWNER, (socket.gethostname(), _process(os.getpid())), strict=True))


def is_abandoned(tags: dict[str, str]) -> bool:
    """Whether these are the tags of a process of this machine that has ended. Of another machine's nothing is known."""
    host, process = (tags.get(name, "") for name in OWNER)
    return host == socket.gethostname() and process != _process(int(process.split(".")[0] or 0))


def learning_curve(release: Path) -> list[dict[str, float]]:
    """What the encoder's training measured after each epoch."""
    path = release / "report" / "training.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _process(pid: int) -> str:
    """The process id and when it began: ids are given again."""
    try:
        return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid}."


def _registered(version: Any) -> Registered:
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Registered(int(version.version), version.run_id, version.tags[SEAL], created)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in f"{prefix}{name}")
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        elif isinstance(value, list) and name.endswith("_interval"):
            yield from ((f"{key}.{end}", number) for end, number in zip(("low", "high"), value, strict=False))
        elif not isinstance(value, list):
            yield key, value


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """MLflow makes the tables of an SQLite file at first use, which two at once spoil."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with Path(f"{uri.removeprefix('sqlite:///')}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
