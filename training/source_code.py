"""Which code this is: the files of a package, the files that a module rests on, and the revision."""

import ast
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # where both packages lie
PACKAGES = ("service", "training")
CACHED = "__pycache__"


def source_files(package: str) -> list[Path]:
    """Every file of a package, of those below it, and beside its modules; in order of path."""
    return sorted(path for path in (HOME / package).rglob("*") if path.is_file() and CACHED not in path.parts)


@cache
def files_behind(modules: Iterable[str], neutral: frozenset[str] = frozenset()) -> tuple[Path, ...]:
    """The files whose change may change what these modules do: their own, those of all that they import of ours, and
    what lies beside them, such as templates; in order of path.

    modules: hashable, by their full names; neutral: modules that are left out."""
    found: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in found and module not in neutral:
            found.add(module)
            left += _imported(_file(module))
    folders = {_file(module).parent for module in found}
    beside = {path for folder in folders for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    return tuple(sorted({_file(module) for module in found} | beside))


def code_revision() -> dict[str, str]:
    """The package's version and, in a checkout, the commit."""
    code = {"vitrine": version("vitrine")}
    git = subprocess.run(["git", "-C", str(HOME), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if git.returncode == 0:
        code["revision"] = git.stdout.strip()
    return code


def _file(module: str) -> Path:
    path = HOME / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(file: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it that stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            assert node.module is not None
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if _file(inner).exists() else node.module
