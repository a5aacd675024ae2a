"""The `vitrine` command. Its verbs: catalogue.py checks a catalogue folder, train.py makes releases, tune.py searches
parameters, live.py reads the store, release.py looks at a release, batch.py has it answer every user, compare.py looks
at several, drift.py at what comes in, promote.py promotes them, package.py packs them for other machines, triton.py
readies them for Triton."""

import sys

from rich.console import Console
from rich.text import Text

from service.errors import VitrineError
from training.cli import batch, catalogue, compare, drift, live, package, promote, release, train, triton, tune
from training.cli.console import app

__all__ = [
    "app", "batch", "catalogue", "compare", "drift", "live", "main", "package", "promote", "release", "train",
    "triton", "tune",
]  # fmt: skip


def main() -> None:
    """Run the command line; errors of ours are one line on standard error, and exit code 1."""
    try:
        app()
    except VitrineError as error:
        line = Text.assemble(("error:", "red"), f" {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        sys.exit(1)
