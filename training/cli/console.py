"""What the verbs of the command line share: where results are printed, common arguments, options that belong together
as one value, opening a release or the registry, asking a service."""

import functools
import inspect
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from service.errors import RegistryError, VitrineError
from service.settings import Settings
from service.signing import read_trusted
from training.progress import say

app = typer.Typer(
    help="Visual recommendation: train a release, look at it, serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# what is printed may hold anything that users wrote: nothing of it is markup
WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200  # a file or a pipe cuts nothing
out = Console(markup=False, emoji=False, highlight=False, width=WIDE)

CataloguePath = Annotated[Path, typer.Argument(help="Catalogue folder: items.csv or .parquet, images/, ...")]
ReleasePath = Annotated[Path, typer.Argument(help="Folder of one release, such as releases/1")]
Releases = Annotated[
    Path, typer.Option(help="Folder of releases, and of the registry where MLFLOW_TRACKING_URI names none")
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Store of changes and events: sqlite:///FILE, a path, or postgresql://... (default: VITRINE_STORE)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


def red(text: str) -> Text:
    """Text that should not be overlooked."""
    return Text(text, style="red")


def open_recommender(release: Path) -> Any:
    """A verified, proven release, ready to answer."""
    from service.recommender.golden import prove
    from service.recommender.pipeline import Recommender
    from service.recommender.release import Release

    settings = Settings.read()
    trusted = read_trusted(settings.trusted_keys)
    recommender = Recommender(Release.open(release, trusted=trusted), user_key=settings.user_key)
    prove(recommender)
    return recommender


def open_registry(releases: Path, *, begin: bool = False) -> Any:
    """The registry that MLFLOW_TRACKING_URI names, or the one beside the releases; what a crash left is settled.
    begin: also where there is none yet."""
    from training.promotion import alias_moves
    from training.promotion.registry import Registry, local

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    trusted = read_trusted(Settings.read().trusted_keys)
    registry = Registry(uri, trusted=trusted, begin=begin) if uri else local(releases, begin=begin, trusted=trusted)
    registry.releases()  # whether it can be read at all
    try:
        registry.reconcile(releases)
        alias_moves.reconcile(registry)
    except RegistryError as error:  # one that can only be read; what has to write to it says so itself
        say(f"what a command that was broken off left is not settled: {error}")
    return registry


def get_json(url: str) -> Any:
    """What a running service answers. Raises VitrineError where it does not."""
    try:
        return json.loads(get_text(url))
    except ValueError as error:
        raise VitrineError(f"{url} does not answer JSON ({error}): is it a Vitrine service?") from error


def get_text(url: str) -> str:
    """The same as text."""
    key = Settings.read().api_key
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError) as error:
        raise VitrineError(f"{url} does not answer: {error}") from error


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses whose fields are options: the command line sees these in their place."""
    parameters = inspect.signature(command).parameters
    groups: dict[str, Any] = {
        name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def called(**given: Any) -> None:
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **values)

    shown = [each for name, parameter in parameters.items() for each in _shown(parameter, groups.get(name))]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in shown} | {"return": None}
    return called


def _shown(parameter: inspect.Parameter, group: Any) -> list[inspect.Parameter]:
    if group is None:
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    empty = inspect.Parameter.empty
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in fields(group)
    ]
