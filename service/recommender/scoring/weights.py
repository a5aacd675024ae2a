"""The weights of the terms, tier by tier, as a release has learned them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FACTOR_SCALE = 0.01


@dataclass(frozen=True, slots=True)
class Trade:
    """How much likeness is given for taste where a photo and a user meet. default: from 0, what looks most like the
    photo, to 1, what the user likes most; looks, taste: term -> weight at these two ends, each with a spread of 1
    among the items near a photo, so that a share of one is worth as much as the same share of the other."""

    default: float
    looks: Mapping[str, float]
    taste: Mapping[str, float]

    def weights(self, personalization: float) -> dict[str, float]:
        """Term -> weight, in between."""
        ends = ((self.looks, 1 - personalization), (self.taste, personalization))
        return {
            name: sum(share * end.get(name, 0.0) for end, share in ends) for name in sorted({*self.looks, *self.taste})
        }


@dataclass(frozen=True, slots=True)
class Blend:
    """The learned sum: tier -> term -> weight. The terms are listed in service/recommender/scoring/terms.py.

    factor_scale: factor scores well above it count by their logarithm; None in releases that count them as they are;
    trade: what tier `ranked` is made of; None in releases that learned it as it stands in `tiers`."""

    tiers: Mapping[str, Mapping[str, float]]
    factor_scale: float | None = FACTOR_SCALE
    trade: Trade | None = None

    @classmethod
    def open(cls, path: Path) -> "Blend":
        """Open blend.json of a release."""
        values = json.loads(path.read_text())
        trade = Trade(**values["trade"]) if values.get("trade") else None
        return cls(values["tiers"], values.get("factor_scale"), trade)

    def save(self, path: Path) -> None:
        """Write blend.json."""
        tiers = {tier: dict(weights) for tier, weights in self.tiers.items()}
        trade = asdict(self.trade) if self.trade else None
        path.write_text(json.dumps({"tiers": tiers, "factor_scale": self.factor_scale, "trade": trade}, indent=1))
