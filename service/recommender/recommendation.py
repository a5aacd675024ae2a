"""What is answered: plain values, the same for every protocol."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One recommended item. The terms add up to the score."""

    item_id: str
    score: float
    terms: dict[str, float]
    because: list[str]
    title: str
    category: Any
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An answer. `tier` names what it rests on; `query` says what the picture seems to be, where there is one;
    `degraded` names the parts that were answered otherwise than they should be."""

    release: str
    tier: str
    items: list[Item]
    query: dict[str, Any] | None
    degraded: list[str] = field(default_factory=list)
    unknown_items: list[str] = field(default_factory=list)  # of the events; they counted for nothing
    match: dict[str, Any] | None = None  # item_id and confidence, where the picture shows an item of the catalogue


@dataclass(frozen=True, slots=True)
class Embedding:
    """The unit vector of a photo. fingerprint: of the encoder; vectors of different encoders cannot be compared;
    embedding: (dim,); degraded: as in a recommendation."""

    release: str
    fingerprint: str
    embedding: list[float]
    degraded: list[str]
