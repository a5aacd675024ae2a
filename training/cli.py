"""The `vitrine` command. Its verbs: cli_train.py makes releases, cli_release.py looks at one, cli_compare.py at more,
cli_promote.py promotes them, cli_package.py packs them for other machines, cli_triton.py readies them for Triton."""

import sys

from rich.console import Console
from rich.text import Text

from service.errors import VitrineError
from training import cli_compare, cli_package, cli_promote, cli_release, cli_train, cli_triton
from training.console import app

__all__ = ["app", "cli_compare", "cli_package", "cli_promote", "cli_release", "cli_train", "cli_triton", "main"]


def main() -> None:
    """Run the command line; errors of ours are one line on standard error, and exit code 1."""
    try:
        app()
    except VitrineError as error:
        line = Text.assemble(("error:", "red"), f" {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        sys.exit(1)
