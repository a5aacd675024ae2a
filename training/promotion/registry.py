"""The registry: MLflow holds every release, and which of them has which alias. Release N is version N of `vitrine`.

A number is taken before its release is written, and the version is a release once it carries the digest of its
manifest: a command that was killed in between leaves a version that nobody sees, which the next one completes or
removes.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.errors import RegistryError, ReleaseDamaged
from service.files import digest
from service.recommender.release import MANIFEST, Manifest, Release, verify
from training.packaging.release_numbers import claim
from training.progress import console, say
from training.promotion import records
from training.promotion.overlays import Image
from training.promotion.records import Run, Version
from training.sqlite import sqlite_path, sqlite_url

MODEL = "vitrine"
TRAINING, PROMOTIONS = "vitrine-training", "vitrine-promotions"
STAGING, CANARY, PRODUCTION = ALIASES = ("staging", "canary", "production")
SEAL = "vitrine.manifest"  # sha256 of manifest.json
IMAGE = "vitrine.image"  # name, tag and digest of its image
PROPOSAL = "vitrine.proposal"  # what the gate said when it was proposed for production
ARTEFACT = "release"  # the release's folder among the artefacts of its run
OWNER = ("vitrine.host", "vitrine.pid")
EXPERIMENTS = {
    TRAINING: "A run for each release: parameters, figures, learning curve, its report and every gate it was put to.",
    PROMOTIONS: "A run for each move of an alias: who, when, why, from what; the gate's result among its artefacts.",
}


@dataclass(frozen=True, slots=True)
class Registered:
    """A release that the registry holds. manifest: sha256 of its manifest.json, by which a copy is known."""

    number: int
    run_id: str
    manifest: str
    created: datetime


class Registry:
    """Releases by their numbers, and aliases. What is asked is read from MLflow's records; MLflow itself is loaded for
    what is written. Raises RegistryError where there is no registry, or it cannot be asked."""

    def __init__(
        self, uri: str, *, artefacts: Path | None = None, trusted: Sequence[Ed25519PublicKey] = (), begin: bool = True
    ) -> None:
        """uri: as MLFLOW_TRACKING_URI; artefacts: where a registry beside its releases keeps files, None for what the
        server says; trusted: keys of which one must have signed what is fetched; none: whoever; begin: also where
        there is none yet."""
        self.uri = uri
        self.shown = str(sqlite_path(uri) or uri.rpartition("@")[2])
        self._artefacts = artefacts
        self._trusted = trusted
        if begin:
            self.mlflow_client  # noqa: B018  makes it
        self._records = records.at(uri)

    @cached_property
    def mlflow_client(self) -> Any:
        """MLflow's own client, of a registry that has what is written here."""
        from training.promotion.mlflow_client import open_client

        return open_client(self.uri, self.shown, model=MODEL, experiments=EXPERIMENTS, artefacts=self._artefacts)

    def experiment(self, name: str) -> str:
        """The id of TRAINING or PROMOTIONS."""
        return str(self.mlflow_client.get_experiment_by_name(name).experiment_id)

    def runs(self, name: str) -> list[Run]:
        """Of TRAINING or PROMOTIONS, oldest first."""
        return self._records.runs(name)

    def releases(self) -> list[Registered]:
        """All whole ones, oldest first."""
        return [_registered(version) for version in self._records.versions(MODEL) if SEAL in version.tags]

    def get(self, number: int) -> Registered:
        """Raises RegistryError where there is no such release."""
        there = {each.number: each for each in self.releases()}
        if number not in there:
            raise RegistryError(
                f"the registry {self.shown} holds no release {number}; it holds {', '.join(map(str, there)) or 'none'}"
            )
        return there[number]

    def aliases(self) -> dict[str, int]:
        """The release behind each alias that points to one."""
        return self._records.aliases(MODEL)

    def point(self, alias: str, number: int | None) -> None:
        """Have an alias name a release, or none."""
        if number is None:
            self.mlflow_client.delete_registered_model_alias(MODEL, alias)
        else:
            self.mlflow_client.set_registered_model_alias(MODEL, alias, str(number))

    def image(self, number: int) -> Image | None:
        """The image of a release, or None where nobody has said it."""
        noted = self._noted(number, IMAGE)
        return Image.parse(noted) if "@" in noted else None  # earlier code noted the digest alone

    def note_image(self, number: int, image: Image) -> None:
        """Remember the image of a release, for overlays. Raises RegistryError where it is another release's."""
        if image.number != number:
            raise RegistryError(f"{image} is of release {image.number}, by its tag, and not of {number}")
        self.mlflow_client.set_model_version_tag(MODEL, str(number), IMAGE, str(image))

    def proposal(self, number: int) -> dict[str, Any] | None:
        """What the gate said of a release when it was proposed for production; None where it was not."""
        noted = self._noted(number, PROPOSAL)
        return json.loads(noted) if noted else None

    def note_proposal(self, number: int, *, refused: list[str], loosened: list[str]) -> None:
        """Remember that a release was proposed, and what the gate held against it."""
        said = json.dumps({"refused": refused, "loosened": loosened})
        self.mlflow_client.set_model_version_tag(MODEL, str(number), PROPOSAL, said)

    def forget_proposal(self, number: int) -> None:
        """It was agreed to, once."""
        if self._noted(number, PROPOSAL):
            self.mlflow_client.delete_model_version_tag(MODEL, str(number), PROPOSAL)

    def _noted(self, number: int, tag: str) -> str:
        there = {version.number: version.tags for version in self._records.versions(MODEL)}
        return there.get(number, {}).get(tag, "")

    def reserve(self, releases: Path, *, began: datetime | None = None) -> int:
        """Take the next number for a release that is about to be written: no other packaging gets it. began: when its
        training did, which its run tells."""
        milliseconds = None if began is None else int(began.timestamp() * 1000)
        while True:
            run = self.mlflow_client.create_run(self.experiment(TRAINING), start_time=milliseconds, tags=owner())
            source = f"{run.info.artifact_uri}/{ARTEFACT}"
            version = self.mlflow_client.create_model_version(MODEL, source, run.info.run_id, tags=owner())
            number = int(version.version)
            if claim(releases, number):
                self.mlflow_client.update_run(run.info.run_id, name=f"release {number}")
                return number
            self._forget(number, run.info.run_id)  # a release from before the registry has it

    def add(self, release: Path) -> Registered:
        """Log a release that was written under a reserved number, and seal its version. Again does nothing."""
        from training.promotion import run_log

        manifest = Manifest.read(release)
        number = str(manifest.release)
        version = self.mlflow_client.get_model_version(MODEL, number)
        if SEAL not in version.tags:
            with console.status(f"registry: copying release {number}"):
                run_log.log_release(self.mlflow_client, version.run_id, release, manifest, artefact=ARTEFACT)
            self.mlflow_client.update_model_version(MODEL, number, run_log.describe(manifest))
            self.mlflow_client.set_model_version_tag(MODEL, number, SEAL, digest(release / MANIFEST))
            self.mlflow_client.set_terminated(version.run_id)
            say(f"registry: release {number} is version {number} of {MODEL} in {self.shown}")
        return self.get(manifest.release)

    def add_pages(self, number: int, files: Sequence[Path], folder: str) -> None:
        """Keep files, such as the gate's, in a folder among the artefacts of a release's run."""
        run = self.get(number).run_id
        for file in files:
            self.mlflow_client.log_artifact(run, str(file), folder)

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
        for version in self._records.versions(MODEL):
            number = version.number
            if SEAL in version.tags or not is_abandoned(version.tags):
                continue
            if (releases / str(number)).is_dir():
                say(f"registry: release {number} was written and not registered; registering it")
                self.add(releases / str(number))
            else:
                say(f"registry: the packaging of release {number} was broken off; its number stays unused")
                shutil.rmtree(releases / f".writing-{number}", ignore_errors=True)
                self._forget(number, version.run_id)

    def _forget(self, number: int, run_id: str) -> None:
        self.mlflow_client.delete_model_version(MODEL, str(number))
        self.mlflow_client.set_terminated(run_id, status="KILLED")

    def _download(self, registered: Registered, folder: Path) -> None:
        aside = folder.with_name(f".pulling-{registered.number}")
        shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
        aside.mkdir(parents=True)
        try:
            with console.status(f"fetching release {registered.number} from {self.shown}"):
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
                f"{folder} is not the release {registered.number} that {self.shown} holds: its manifest is another; "
                f"remove the folder and fetch it again: vitrine pull {registered.number}"
            )


def local(releases: Path, *, begin: bool = True, trusted: Sequence[Ed25519PublicKey] = ()) -> Registry:
    """The registry beside the releases, where no server is named. begin: also where there is none yet; trusted: as
    `Registry` has it.

    Raises RegistryError."""
    place = releases.resolve() / ".registry"
    if not begin and not (place / "mlflow.db").exists():
        raise RegistryError(
            f"{releases} has no registry: vitrine train begins one; or name one by --releases or MLFLOW_TRACKING_URI"
        )
    uri = sqlite_url(place / "mlflow.db")
    return Registry(uri, artefacts=place / "artefacts", trusted=trusted, begin=begin)


def owner() -> dict[str, str]:
    """Tags by which the work of a process that was killed is known."""
    return dict(zip(OWNER, (socket.gethostname(), _process(os.getpid())), strict=True))


def is_abandoned(tags: Mapping[str, str]) -> bool:
    """Whether these are the tags of a process of this machine that has ended. Of another machine's nothing is known."""
    host, process = (tags.get(name, "") for name in OWNER)
    return host == socket.gethostname() and process != _process(int(process.split(".")[0] or 0))


def _process(pid: int) -> str:
    """The process id and when it began: ids are given again."""
    try:
        return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid}."


def _registered(version: Version) -> Registered:
    return Registered(version.number, version.run_id, version.tags[SEAL], version.created)
