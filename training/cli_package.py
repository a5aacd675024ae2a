"""The verbs that pack a release for other machines: bento, image."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import VitrineError
from training.cli_promote import Number
from training.console import AsJson, Releases, app, open_registry, out

Flavour = Annotated[str, typer.Option(help="cpu or gpu: which onnxruntime")]
Out = Annotated[Path, typer.Option("--out", help="Folder for what is written beside it")]


@app.command(epilog="Example: vitrine bento 7 --out dist, then on any machine: bentoml import dist/vitrine-7.bento")
def bento(
    number: Number,
    releases: Releases = Path("releases"),
    out_folder: Out = Path("dist"),
    flavour: Flavour = "cpu",
    as_json: AsJson = False,
) -> None:
    """Pack a release and the service as the bento vitrine:N, every dependency pinned by hash, with an SBOM beside."""
    from training.bento import make_bento

    _require(flavour, "--flavour", ("cpu", "gpu"))
    packed = make_bento(open_registry(releases).fetch(number, releases), out_folder, flavour=flavour)
    _say(packed, as_json)


@app.command(epilog="Example: vitrine image 7 --engine podman --flavour cpu")
def image(
    number: Number,
    engine: Annotated[str, typer.Option(help="podman or docker")] = "podman",
    flavour: Flavour = "cpu",
    repository: Annotated[str, typer.Option(help="Name of the image; its tag is the number")] = "vitrine",
    releases: Releases = Path("releases"),
    out_folder: Out = Path("dist"),
    as_json: AsJson = False,
) -> None:
    """Pack a release as a container image: no compiler, no root, no telemetry; with an SBOM beside it."""
    from training.bento import ENGINES, make_image

    _require(flavour, "--flavour", ("cpu", "gpu"))
    _require(engine, "--engine", ENGINES)
    release = open_registry(releases).fetch(number, releases)
    _say(make_image(release, out_folder, engine=engine, flavour=flavour, name=repository), as_json)


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
