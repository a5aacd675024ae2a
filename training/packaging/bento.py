"""A release as a Bento, and as an image: service, release, every dependency, pinned; and the list of what is in it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bentoml
import jinja2
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.errors import VitrineError
from service.files import digest, replacing
from service.recommender.release import MANIFEST, Manifest
from training.packaging import sbom
from training.progress import console, say
from training.source_code import HOME, code_revision, source_files

NAME = "vitrine"
ENGINES = ("podman", "docker")
DIGEST = "manifest"  # label of the model and the bento: sha256 of the release's manifest
CODE = "code"  # label of the bento: digest of the service's code and the lock
MADE_OF = "vitrine.made-of"  # label of the image: digest of all that it is made of
CONTAINERFILE = Path(__file__).with_name("Containerfile.j2")
SLIM = Path(__file__).with_name("slim.sh")
PINNED = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)(\[[a-z,]*\])?==")
VIA = re.compile(r"#\s+(via )?(?P<name>[a-z0-9][a-z0-9._-]*)")
ENTRY = '''"""The service with release {number} in it."""

import os

import bentoml

RELEASE = bentoml.models.BentoModel("{name}:{number}")
if "VITRINE_RELEASE" not in os.environ:
    os.environ["VITRINE_RELEASE"] = os.path.join(RELEASE.resolve().path, "{number}")

from service.app import Vitrine

Vitrine.models.append(RELEASE)
'''


@dataclass(frozen=True, slots=True)
class Packed:
    """What was made. tag: of the bento or the image; files: beside it, the SBOM first."""

    tag: str
    files: tuple[Path, ...]


def make_bento(release: Path, out: Path, *, flavour: str = "cpu") -> Packed:
    """Put the release into BentoML's store as the model `vitrine:N`, build the bento `vitrine:N`, and export it.

    out: folder for vitrine-N.bento and vitrine-N.cdx.json. What is in the store already is not made again.
    Raises VitrineError where the store has another release under the number."""
    with _locked(flavour) as lock:
        return _make_bento(release, out, lock)


def _make_bento(release: Path, out: Path, lock: Path) -> Packed:
    manifest = Manifest.read(release)
    tag, sealed = f"{NAME}:{manifest.release}", digest(release / MANIFEST)
    _import(release, tag, sealed)
    out = out.resolve()  # BentoML takes a path that is not absolute for one below the root
    out.mkdir(parents=True, exist_ok=True)
    _build(tag, sealed, manifest, lock)
    files = _files(out, manifest)
    sbom.write_for_lock(lock, HOME / "pyproject.toml", files[0])
    with replacing(files[1]) as aside:
        bentoml.bentos.export_bento(tag, str(aside))
    return Packed(tag, files)


def make_image(release: Path, out: Path, *, engine: str, flavour: str, base: str, name: str = NAME) -> Packed:
    """Build the image `name:N-<what it was made of>` around the bento, on the base image as it is now, by its digest.
    The wheels are fetched here, so that neither the address of a package index nor its credentials, nor a compiler,
    come near the image. One that was made of the same release, code, lock and base is not made again.

    Raises VitrineError where the engine has no base image and cannot fetch it, and where the build fails."""
    manifest, based_on = Manifest.read(release), _base(engine, base)
    with tempfile.TemporaryDirectory(prefix="vitrine-image-") as temporary, _locked(flavour) as lock:
        context, made_of = Path(temporary), _made_of(release, lock, based_on[1])
        # a release in mended code, or on a newer base, is another image: no tag ever means two
        tag = f"{name}:{manifest.release}-{made_of[:8]}"
        files = (out.resolve() / f"{NAME}-{manifest.release}.image.cdx.json", _files(out.resolve(), manifest)[1])
        noted = out.resolve() / f"{NAME}-{manifest.release}.image"  # which image these files are of, for who pushes it
        last = noted.read_text().strip() if noted.exists() else ""
        if last == tag and all(file.exists() for file in files) and _label(engine, tag, MADE_OF) == made_of:
            say(f"{tag} is there already")
            return Packed(tag, files)
        packed = _make_bento(release, out, lock)
        shutil.copy(lock, context / "requirements.txt")
        _run("fetching wheels", [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
            "--python-version=3.11", "--require-hashes", "--requirement", str(lock), "--dest", str(context / "wheels"),
        ])  # fmt: skip
        shutil.unpack_archive(packed.files[1], context / "bento", "gztar" if _is_gzip(packed.files[1]) else "tar")
        for path in (context / "bento").rglob("*"):  # whoever the container runs as may read it
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        shutil.copy(SLIM, context / SLIM.name)
        (context / "Containerfile").write_text(containerfile(release, manifest, flavour, made_of, based_on))
        build = [engine, "build", "--network=none", "--file", "Containerfile", "--tag", tag, "."]
        _run(f"building {tag} with {engine}", build, context)
    sbom.write_for_image(engine, tag, based_on, release, files[0])
    noted.write_text(f"{tag}\n")
    return Packed(tag, files)


def _base(engine: str, name: str) -> tuple[str, str]:
    """The base image by name and digest: what is built on it says which one it was, whatever its tag means later."""
    if shutil.which(engine) is None:
        raise VitrineError(f"{engine} cannot be run; is it installed?")
    inspect = [engine, "image", "inspect", "--format", "{{if .RepoDigests}}{{index .RepoDigests 0}}{{end}}", name]
    found = subprocess.run(inspect, capture_output=True, text=True, check=False)
    if found.returncode:
        _run(f"fetching {name}", [engine, "pull", name])
        found = subprocess.run(inspect, capture_output=True, text=True, check=True)
    digested = found.stdout.strip()
    if "@" not in digested:
        raise VitrineError(f"{name} has no digest: fetch it from a registry, {engine} pull {name}")
    return name, digested.rpartition("@")[2]


def _made_of(release: Path, lock: Path, base: str) -> str:
    """sha256 over all that an image is made of. base: digest of the image that it is built on."""
    found = hashlib.sha256((digest(release / MANIFEST) + _code(lock) + base).encode())
    for path in (CONTAINERFILE, SLIM):
        found.update(path.read_bytes())
    return found.hexdigest()[:32]


def _label(engine: str, tag: str, name: str) -> str:
    """Of an image; "" where it has none, or there is no such image, or no engine."""
    if shutil.which(engine) is None:
        return ""
    command = [engine, "image", "inspect", "--format", f'{{{{index .Config.Labels "{name}"}}}}', tag]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _import(release: Path, tag: str, sealed: str) -> None:
    try:
        there = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        # in a folder of its own: BentoML adds a file, and a release is what it was sealed as
        with bentoml.models.create(tag, labels={DIGEST: sealed}) as model:
            shutil.copytree(release, Path(model.path) / release.name)
        return
    _require_same(tag, "model", there.info.labels, sealed)


def _build(tag: str, sealed: str, manifest: Manifest, lock: Path) -> None:
    labels = {DIGEST: sealed, CODE: _code(lock)}
    try:
        there = bentoml.bentos.get(tag).info.labels
        if there.get(DIGEST) == sealed and there.get(CODE) != labels[CODE]:
            bentoml.bentos.delete(tag)  # the same release in other code: built again
            raise bentoml.exceptions.NotFound(tag)
        _require_same(tag, "bento", there, sealed)
    except bentoml.exceptions.NotFound:
        with tempfile.TemporaryDirectory(prefix="vitrine-bento-") as temporary:
            context = Path(temporary)
            shutil.copytree(HOME / "service", context / "service", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(lock, context / "requirements.txt")
            (context / "vitrine_bento.py").write_text(ENTRY.format(name=NAME, number=manifest.release))
            (context / "bentofile.yaml").write_text(json.dumps({  # JSON is YAML
                "service": "vitrine_bento:Vitrine", "labels": labels,
                "include": ["service/", "vitrine_bento.py"],
                "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
            }))  # fmt: skip
            # in a process of its own, so that no setting of this one goes into the bento
            environment = {name: value for name, value in os.environ.items() if not name.startswith("VITRINE_")}
            command = [sys.executable, "-m", "bentoml", "build", "--version", str(manifest.release), "--output", "tag"]
            _run(f"building bento {tag}", command, context, environment)


def _code(lock: Path) -> str:
    """sha256 over the service's code and the lock."""
    found = hashlib.sha256(lock.read_bytes())
    for path in source_files("service"):
        found.update(str(path.relative_to(HOME)).encode() + path.read_bytes())
    return found.hexdigest()[:32]


def _require_same(tag: str, what: str, labels: dict[str, str], sealed: str) -> None:
    if labels.get(DIGEST) != sealed:
        raise VitrineError(
            f"BentoML's store has another {what} {tag}, not made from this release; remove it first: "
            f"bentoml {'models ' if what == 'model' else ''}delete {tag}"
        )


@contextmanager
def _locked(flavour: str) -> Iterator[Path]:
    """A file with what the service needs, and nothing of what only training and tests need, each with its hashes."""
    path = HOME / f"requirements-{flavour}.txt"
    if not path.exists():
        raise VitrineError(f"{path} is not there: vitrine bento and vitrine image work in a checkout of the repository")
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.txt"
        project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
        wanted = [*project["dependencies"], *project["optional-dependencies"][flavour]]
        lock.write_text(service_lock(path.read_text(), {canonicalize_name(Requirement(each).name) for each in wanted}))
        yield lock


def service_lock(text: str, wanted: set[str]) -> str:
    """Of a lock as pip-compile writes it, the wanted packages, what is there via those, and so on. Raises VitrineError
    where one is not there."""
    blocks, needed_by = _blocks(text)
    if missing := wanted - blocks.keys():
        raise VitrineError(f"the lock does not hold {', '.join(sorted(missing))}; make lock writes it anew")
    taken: set[str] = set()
    fresh = set(wanted)
    while fresh:
        taken |= fresh
        fresh = {name for name, via in needed_by.items() if via & fresh} - taken
    return "".join(blocks[name] for name in sorted(taken))


def _blocks(text: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """name -> its lines, and name -> what it is there via."""
    blocks: dict[str, str] = {}
    via: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if found := PINNED.match(line):
            name = found["name"]
            blocks[name], via[name] = "", set()
        if name and (found := VIA.search(line)):
            via[name].add(found["name"])
        elif name:
            blocks[name] += line
    return blocks, via


def _files(out: Path, manifest: Manifest) -> tuple[Path, Path]:
    """The SBOM and the bento."""
    return out / f"{NAME}-{manifest.release}.cdx.json", out / f"{NAME}-{manifest.release}.bento"


def containerfile(release: Path, manifest: Manifest, flavour: str, made_of: str, base: tuple[str, str]) -> str:
    """What the image is built by. made_of: digest of all that goes into it; base: name and digest of what it is built
    on."""
    encoder = manifest.encoder or {}
    labels = {
        "org.opencontainers.image.title": "Vitrine",
        "org.opencontainers.image.version": str(manifest.release),
        "org.opencontainers.image.base.name": base[0],
        "org.opencontainers.image.base.digest": base[1],
        "org.opencontainers.image.revision": code_revision().get("revision", "unknown"),
        "vitrine.trained-by": manifest.code.get("revision", "unknown"),
        "vitrine.release": str(manifest.release),
        "vitrine.manifest": digest(release / MANIFEST),
        "vitrine.encoder": encoder.get("fingerprint", "none"),
        "vitrine.data": manifest.data["fingerprint"],
        "vitrine.flavour": flavour,
        MADE_OF: made_of,
    }
    template = CONTAINERFILE.read_text()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(template).render(
        base=f"{untagged(base[0])}@{base[1]}", number=manifest.release, name=NAME, labels=labels
    )


def untagged(image: str) -> str:
    """Its name without tag and digest; a colon before the last slash belongs to the port of a registry."""
    host, slash, last = image.partition("@")[0].rpartition("/")
    return host + slash + last.partition(":")[0]


def _run(what: str, command: list[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> None:
    with console.status(what):
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise VitrineError(f"{what}: {command[0]} cannot be run ({error.strerror}); is it installed?") from error
    if done.returncode:
        raise VitrineError(f"{what} failed with {done.returncode}:\n{(done.stdout + done.stderr).strip()[-3000:]}")
    say(what)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
