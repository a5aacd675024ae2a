"""The verbs of the store of changes and events: export-store, erase; and what train asks of it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.errors import VitrineError
from service.settings import Settings
from training.cli.console import AsJson, StoreUrl, app, out

EXPORTED = ".store"  # of a folder of releases: what a training with a store reads


@app.command(
    "export-store",
    epilog="Examples: vitrine export-store sqlite:///live.db --catalogue shop --out today\n\n"
    "vitrine export-store postgresql://db/vitrine --out today",
)
def export_store(
    url: Annotated[str, typer.Argument(help="Store: sqlite:///FILE, a path, or postgresql://...")],
    to: Annotated[Path, typer.Option("--out", help="Catalogue folder to write; one from before is replaced")],
    catalogue: Annotated[
        Path | None, typer.Option(help="Catalogue folder that the store goes on from; none: the store holds everything")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write catalogue folder and store as one catalogue folder, whose users have keys and no ids. Prints its path."""
    found = _export(url, catalogue, to)
    print(json.dumps({**found, "path": str(to)}) if as_json else to)


@app.command(epilog="Examples: vitrine erase 00007 --store sqlite:///live.db\n\nvitrine erase - < user-id.txt")
def erase(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="Id of the user; - reads it from standard input")],
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Forget a user: events and sessions go at once, and no later release is taught what they did before."""
    from service.live.operations import EraseUser
    from service.recommender.query import check_id
    from service.recommender.user_keys import erasure_mark, hash_user
    from training.live.reading import open_store

    settings = Settings.read()
    if (url := store or settings.store) is None:
        raise VitrineError("which store? Name it by --store URL, or by VITRINE_STORE")
    user = hash_user(check_id(sys.stdin.readline().strip() if user_id == "-" else user_id, "USER"), settings.user_key)
    opened = open_store(url)
    try:
        [reply] = opened.write([EraseUser(user, erasure_mark(user))])
        opened.compact()
    finally:
        opened.close()
    if as_json:
        print(json.dumps(reply))
        return
    out.print(f"{reply['events']} events and {reply['sessions']} sessions are gone, by change {reply['sequence']}")
    out.print("releases that are there know the user until the next one takes over: vitrine train --store")


def folder_of(catalogue: Path | None, store: str | None, releases: Path) -> Path:
    """The catalogue folder to train from: with a store, what is exported of both. Raises VitrineError."""
    from training.data.catalogue_reader import require_folder

    if store is not None:
        _export(store, catalogue, releases / EXPORTED)
        return releases / EXPORTED
    if catalogue is None:
        raise VitrineError("what to train on? Name a catalogue folder, or a store by --store URL")
    require_folder(catalogue)
    return catalogue


def _export(url: str, catalogue: Path | None, out_folder: Path) -> dict[str, object]:
    from training.live.export import export
    from training.live.reading import open_store
    from training.progress import say

    store = open_store(url)
    try:
        found = export(store, catalogue, out_folder, user_key=Settings.read().user_key)
    finally:
        store.close()
    say(
        f"store: {found.items} items, {found.interactions} interactions and {found.pictures} pictures of its own, up "
        f"to change {found.mark.sequence}; {found.withdrawn} items were withdrawn, {found.erased} users erased"
    )
    return asdict(found)
