"""Which code this is."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def code_revision() -> dict[str, str]:
    """The package's version and, in a checkout, the commit."""
    code = {"vitrine": version("vitrine")}
    place = Path(__file__).resolve().parent
    git = subprocess.run(["git", "-C", str(place), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if git.returncode == 0:
        code["revision"] = git.stdout.strip()
    return code
