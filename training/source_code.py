"""Which code this is: its files, and its revision."""

import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # where both packages lie
NOT_SOURCES = ("__pycache__",)


def source_files(*places: str) -> Iterator[Path]:
    """Every file of packages and modules, in order of path. places: `service`, `training.measures`."""
    for place in sorted(places):
        path = HOME / place.replace(".", "/")
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file() and _is_source(file))
        else:
            yield path.with_suffix(".py")


def code_revision() -> dict[str, str]:
    """The package's version and, in a checkout, the commit."""
    code = {"vitrine": version("vitrine")}
    git = subprocess.run(["git", "-C", str(HOME), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if git.returncode == 0:
        code["revision"] = git.stdout.strip()
    return code


def _is_source(file: Path) -> bool:
    return not any(part in NOT_SOURCES for part in file.parts)
