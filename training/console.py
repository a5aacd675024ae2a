"""What the verbs of the command line share: where results are printed, common arguments, opening a release."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.settings import Settings

app = typer.Typer(
    help="Visual recommendation: train a release, look at it, serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()

CataloguePath = Annotated[Path, typer.Argument(help="Catalogue folder: items.csv or .parquet, images/, ...")]
ReleasePath = Annotated[Path, typer.Argument(help="Folder of one release, such as releases/1")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


def open_recommender(release: Path) -> Any:
    """A verified, proven release, ready to answer."""
    from service.pipeline import Recommender
    from service.release import Release

    recommender = Recommender(Release.open(release), user_key=Settings().user_key)
    recommender.prove()
    return recommender
