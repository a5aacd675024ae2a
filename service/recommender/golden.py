"""The proof that a release answers as it was recorded: its golden cases, sent through the whole chain."""

import numpy as np

from service.encoder.selection import SAME
from service.errors import ReleaseMismatch
from service.recommender.agreement import overlap
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query

GOLDEN_OVERLAP = 0.9  # least share of the recorded items


def prove(recommender: Recommender) -> None:
    """Send the golden cases through the whole chain. Raises ReleaseMismatch where the answers are others."""
    golden, folder = recommender.release.golden, recommender.release.path / "golden"
    pictures = [(folder / case.picture).read_bytes() if case.picture else None for case in golden.cases]
    if sent := [picture for picture in pictures if picture is not None]:
        _prove_vectors(recommender, sent)
    for picture, case in zip(pictures, golden.cases, strict=True):
        query = Query(image=picture, events=tuple(Event(item) for item in case.events), k=len(case.items) or 1)
        answer = [item.item_id for item in recommender.recommend([query])[0].items]
        agreed = overlap(case.items, answer) if case.items else float(not answer)
        # how far another precision may answer otherwise was settled when it was packaged
        if agreed < GOLDEN_OVERLAP and (picture is None or recommender.precision == "fp32"):
            raise ReleaseMismatch(
                f"golden case {case.picture or case.events}: {agreed:.2f} of the recorded items came back, "
                f"at least {GOLDEN_OVERLAP} expected"
            )


def _prove_vectors(recommender: Recommender, pictures: list[bytes]) -> None:
    recorded, least = recommender.release.golden.vectors[recommender.precision], SAME[recommender.precision]
    cosines = np.einsum("nd,nd->n", recommender.embed(pictures), recorded)
    if cosines.min() < least:
        raise ReleaseMismatch(
            f"golden picture {int(cosines.argmin())}: cosine {cosines.min():.5f} with its recorded vector, at least "
            f"{least} expected; the encoder or the preprocessing is not the release's"
        )
