"""Numbers of releases in a folder: none is given twice, also not after its release was deleted."""

import re
from pathlib import Path


def take(releases: Path) -> int:
    """The next number, where no registry gives it."""
    taken = releases / ".numbers"
    taken.mkdir(parents=True, exist_ok=True)
    names = [p.name for p in (*releases.iterdir(), *taken.iterdir())]
    number = max((int(name) for name in names if re.fullmatch(r"[0-9]+", name)), default=0) + 1
    while not claim(releases, number):
        number += 1
    return number


def claim(releases: Path, number: int) -> bool:
    """Whether the number was free in this folder; it is not from now on."""
    taken = releases / ".numbers"
    taken.mkdir(parents=True, exist_ok=True)
    try:
        (taken / str(number)).mkdir()
    except FileExistsError:
        return False
    return not (releases / str(number)).exists()
