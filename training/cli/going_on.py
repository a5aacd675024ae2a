"""Which release a training goes on from, and how often it looks whether it has to."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import RegistryError, VitrineError
from training.cli.console import open_registry

if TYPE_CHECKING:
    from training.options import Options

PRODUCTION, NONE = "production", "none"


def go_on_from(options: "Options", named: str | None, given: Mapping[str, Any]) -> "Options":
    """The options with the release to go on from. named: its number, path, production or none; None: production, but
    not for one stage alone; given: options of the encoder that somebody named. Raises VitrineError."""
    named = named or (PRODUCTION if options.only is None else NONE)
    if named != NONE and options.only in ("encoder", "export"):
        raise VitrineError(f"--only {options.only} makes an encoder: --encoder-from keeps one")
    if (path := _find(named, options.releases)) is None:
        return options
    why = _differs(path, given)
    return replace(options, previous=path, keep_encoder=named != PRODUCTION, new_encoder=why)


def _find(named: str, releases: Path) -> Path | None:
    if named == NONE:
        return None
    if named != PRODUCTION and not named.isdigit():
        if not Path(named).is_dir():
            raise VitrineError(f"--encoder-from {named}: expected the number of a release, its folder, or none")
        return Path(named)
    if named.isdigit() and (releases / named).is_dir():
        return releases / named
    try:
        registry = open_registry(releases)
        number = registry.aliases().get(PRODUCTION) if named == PRODUCTION else int(named)
        return None if number is None else registry.fetch(number, releases)
    except RegistryError:
        if named == PRODUCTION:  # there is no registry, and nothing in production
            return None
        raise


def _differs(path: Path, given: Mapping[str, Any]) -> str:
    """Why options keep the encoder from being kept; "" where they do not."""
    from service.recommender.release import Manifest

    known = Manifest.read(path).training["encoder"] or {}
    asked = {**given, **({"weights": Path(given["weights"]).name} if "weights" in given else {})}
    other = [
        f"--{name.replace('_', '-')} {value} (it has {known[name]})"
        for name, value in asked.items()
        if known.get(name, value) != value
    ]
    return f"{', '.join(other)} asks for another encoder than that of release {path.name}" if other else ""
