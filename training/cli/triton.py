"""The verbs about Triton: install-encoder, lint-repository, prune-repository, export-tensorrt."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from service.errors import VitrineError
from service.settings import Settings
from training.cli.console import AsJson, ReleasePath, app, open_registry, out

RepositoryPath = Annotated[Path, typer.Argument(help="Triton's model repository")]


@app.command(
    "install-encoder", epilog="Example: vitrine install-encoder releases/7 --model-repository model_repository"
)
def install_encoder(
    release: ReleasePath,
    repository: Annotated[Path, typer.Option("--model-repository", help="Triton's model repository")] = Path(
        "model_repository"
    ),
) -> None:
    """Put a release's encoder into a model repository as the version of its number, once it was loaded and run. Prints
    its path."""
    from service.recommender.release import Release
    from service.serving import model_repository

    out.print(str(model_repository.install(Release.open(release), repository)), soft_wrap=True)


@app.command("lint-repository", epilog="Example: vitrine lint-repository model_repository")
def lint_repository(
    repository: RepositoryPath = Path("model_repository"),
    server_cache: Annotated[bool, typer.Option(help="The server is started with a response cache")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what a Triton server would refuse, and what only one with a GPU would trip over. Exit code 1 if anything."""
    from training.triton.lint import lint

    if not repository.is_dir():
        raise VitrineError(f"{repository}: no such folder")
    found = lint(repository, server_cache=server_cache)
    if as_json:
        print(json.dumps([{"path": str(each.path), "message": each.message} for each in found], indent=1))
    else:
        for each in found:
            out.print(str(each), markup=False, highlight=False, soft_wrap=True)
        if not found:
            out.print(f"{repository}: nothing wrong")
    raise typer.Exit(1 if found else 0)


@app.command(
    "prune-repository",
    epilog="Example: vitrine prune-repository model_repository --releases releases --pinned 3 --dry-run",
)
def prune_repository(
    repository: RepositoryPath = Path("model_repository"),
    releases: Annotated[Path, typer.Option(help="Versions of the releases in this folder stay")] = Path("releases"),
    pinned: Annotated[list[int] | None, typer.Option(help="A version that stays as well; may be repeated")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be removed")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the versions that nothing names any more: no alias of the registry, no release in the folder, no --pinned,
    not VITRINE_RELEASE."""
    from training.triton.repository import prune

    if not releases.is_dir():
        raise VitrineError(f"--releases {releases}: no such folder; without it every version would go")
    named = {int(path.name) for path in releases.iterdir() if path.name.isdigit()} | set(pinned or ())
    if os.environ.get("MLFLOW_TRACKING_URI") or (releases / ".registry").exists():
        named |= set(open_registry(releases).aliases().values())
    if Settings.read().release.name.isdigit():
        named.add(int(Settings.read().release.name))
    removed = [str(path) for path in prune(repository, named, dry_run=dry_run)]
    if as_json:
        print(json.dumps({"removed": removed, "kept": sorted(named), "dry_run": dry_run}))
        return
    for path in removed:
        out.print(f"{'would remove' if dry_run else 'removed'} {path}", highlight=False)
    if not removed:
        out.print("every version is named: nothing to remove")


@app.command(
    "export-tensorrt",
    epilog="Example: vitrine export-tensorrt releases/7 --catalogue shop --model-repository model_repository",
)
def export_tensorrt(
    release: ReleasePath,
    catalogue: Annotated[Path, typer.Option(help="Catalogue folder that it was made from")],
    model_repository: Annotated[Path, typer.Option(help="Triton's model repository")] = Path("model_repository"),
    plans: Annotated[Path, typer.Option(help="Folder that keeps plans")] = Path("plans"),
    precision: Annotated[str, typer.Option(help="fp16 or fp32")] = "fp16",
    least_overlap: Annotated[
        float, typer.Option(help="Share of the ONNX model's top 10 that the plan must give at the median query")
    ] = 0.98,
    as_json: AsJson = False,
) -> None:
    """Build the encoder's TensorRT plan on this machine's GPU, compare it on pictures, install it as `encoder_trt`."""
    from training.data.catalogue_reader import read
    from training.triton import tensorrt

    if precision not in tensorrt.PRECISIONS:
        raise VitrineError(f"--precision {precision}: expected {' or '.join(tensorrt.PRECISIONS)}")
    found = tensorrt.export(
        release,
        read(catalogue),
        model_repository,
        plans=plans,
        toolkit=tensorrt.find_toolkit(),
        precision=precision,
        least_overlap=least_overlap,
        user_key=Settings.read().user_key,
    )
    print(json.dumps(found) if as_json else found["installed"])
