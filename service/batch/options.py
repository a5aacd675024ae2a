"""What every user is asked, and where the answers come from: plain values that each process of a run is given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import VitrineError
from service.recommender.query import Query, parse_query

DEFAULT_K = 20


@dataclass(frozen=True, slots=True)
class Source:
    """What a process opens the release from. trusted_keys: as VITRINE_TRUSTED_KEYS."""

    release: Path
    user_key: str
    trusted_keys: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What every user is asked, as in a request. reasons: also write the terms of each score, and the past items that
    an item is recommended for."""

    k: int = DEFAULT_K
    filter: Mapping[str, Any] = field(default_factory=dict)
    exclude_seen: bool = True
    diversity: float = 0.0
    reasons: bool = False

    def query(self) -> Query:
        """The question, of nobody yet. Raises BadQuery."""
        return parse_query(
            {"k": self.k, "filter": self.filter, "exclude_seen": self.exclude_seen, "diversity": self.diversity}
        )


def read_filter(text: str | None) -> Mapping[str, Any]:
    """A filter as a command line takes it; None: no filter. Raises VitrineError."""
    try:
        found: Mapping[str, Any] = json.loads(text) if text else {}
    except ValueError as error:
        raise VitrineError(f"--filter is not JSON ({error})") from error
    return found
