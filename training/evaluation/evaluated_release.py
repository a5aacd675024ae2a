"""A release under evaluation, and what it is asked."""

from dataclasses import dataclass

from service.recommender.pipeline import Recommender
from training.data.catalogue import Catalogue
from training.data.split import Split


@dataclass(frozen=True, slots=True)
class EvaluatedRelease:
    """A release and what it is asked. negatives: how many others each relevant item is ranked among, beside the full
    ranking; None for the full ranking alone."""

    recommender: Recommender
    catalogue: Catalogue
    cut: Split
    negatives: int | None = None
    seed: int = 0
