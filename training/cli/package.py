"""The verbs that pack a release for other machines, and sign it: bento, image, sign-key, sign."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import VitrineError
from service.recommender.release import Manifest, verify
from service.recommender.user_keys import DEFAULT_USER_KEY, key_check
from service.settings import Settings
from service.signing import make_key
from service.signing import sign as sign_release
from training.cli.console import AsJson, ReleasePath, Releases, app, open_registry, out
from training.cli.promote import Number
from training.progress import console as err

Flavour = Annotated[str, typer.Option(help="cpu or gpu: which onnxruntime")]
DefaultKey = Annotated[bool, typer.Option(help="Pack it although user ids were hashed with the public default key")]
BASE_IMAGE = "docker.io/library/python:3.11-slim"
Out = Annotated[Path, typer.Option("--out", help="Folder for what is written beside it")]


@app.command(epilog="Example: vitrine bento 7 --out dist, then on any machine: bentoml import dist/vitrine-7.bento")
def bento(
    number: Number,
    releases: Releases = Path("releases"),
    out_folder: Out = Path("dist"),
    flavour: Flavour = "cpu",
    default_user_key: DefaultKey = False,
    as_json: AsJson = False,
) -> None:
    """Pack a release and the service as the bento vitrine:N, every dependency pinned by hash, with an SBOM beside."""
    from training.packaging.bento import make_bento

    _require(flavour, "--flavour", ("cpu", "gpu"))
    release = open_registry(releases).fetch(number, releases)
    _require_secret(release, default_user_key)
    packed = make_bento(release, out_folder, flavour=flavour)
    _say(packed, as_json)
    if not as_json:
        err.print(f"on any machine: bentoml import {packed.files[1].resolve()} && bentoml serve {packed.tag}")


@app.command(epilog="Example: vitrine image 7 --engine podman --flavour cpu")
def image(
    number: Number,
    engine: Annotated[str, typer.Option(help="podman or docker")] = "podman",
    flavour: Flavour = "cpu",
    repository: Annotated[
        str, typer.Option(help="Name of the image; its tag: the number, and of what it was made")
    ] = "vitrine",
    base: Annotated[
        str, typer.Option(help="Image to build on: Debian with Python 3.11; its digest is kept")
    ] = BASE_IMAGE,
    releases: Releases = Path("releases"),
    out_folder: Out = Path("dist"),
    default_user_key: DefaultKey = False,
    as_json: AsJson = False,
) -> None:
    """Pack a release as a container image: no compiler, no root, no telemetry; with an SBOM of what is in it beside."""
    from training.packaging.bento import ENGINES, make_image

    _require(flavour, "--flavour", ("cpu", "gpu"))
    _require(engine, "--engine", ENGINES)
    release = open_registry(releases).fetch(number, releases)
    _require_secret(release, default_user_key)
    _say(make_image(release, out_folder, engine=engine, flavour=flavour, name=repository, base=base), as_json)


@app.command("sign-key", epilog="Example: vitrine sign-key --out keys/team   (writes keys/team.key and keys/team.pub)")
def sign_key(
    out_path: Annotated[Path, typer.Option("--out", help="Path of the files, without .key and .pub")] = Path("vitrine"),
) -> None:
    """Make a pair of ed25519 keys: VITRINE_SIGNING_KEY=FILE.key has vitrine train sign releases, and
    VITRINE_TRUSTED_KEYS=FILE.pub has everything that opens one ask for the signature."""
    private, public = (out_path.with_name(out_path.name + ending) for ending in (".key", ".pub"))
    out_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        name = make_key(private, public)
    except FileExistsError as error:
        raise VitrineError(f"{error.filename} is there already; name another file, or remove it") from error
    err.print(f"key {name}; keep {private} secret, and give {public} to whoever serves")
    print(public)


@app.command(epilog="Example: vitrine sign releases/7 --key keys/team.key")
def sign(
    release: ReleasePath,
    key: Annotated[Path | None, typer.Option(help="Private key; default: VITRINE_SIGNING_KEY")] = None,
) -> None:
    """Sign a release that is there already, once it was found whole."""
    private = key or Settings.read().signing_key
    if private is None:
        raise VitrineError("say with which key: --key FILE, or VITRINE_SIGNING_KEY; vitrine sign-key makes one")
    verify(release)
    print(sign_release(release, private))


def _require_secret(release: Path, told: bool) -> None:
    """What leaves this machine should not hold user ids that anybody can find out by hashing them."""
    ranker = Manifest.read(release).ranker
    if ranker and ranker["user_key"] == key_check(DEFAULT_USER_KEY) and not told:
        raise VitrineError(
            f"release {release.name} holds user ids hashed with the default VITRINE_USER_KEY, which everybody knows: "
            "train it with a secret one, or pass --default-user-key where its users are not people"
        )


def _require(given: str, option: str, expected: tuple[str, ...]) -> None:
    if given not in expected:
        raise VitrineError(f"{option} {given}: expected {' or '.join(expected)}")


def _say(packed: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"tag": packed.tag, "files": [str(path) for path in packed.files]}))
        return
    for path in packed.files:
        out.print(str(path), highlight=False)
    print(packed.tag)
