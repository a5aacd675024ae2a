"""What a release's manifest says of how it was made."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from service.encoder.preprocessing import PREPROCESSING
from service.recommender.release import Manifest
from service.recommender.user_keys import key_check
from training.data.catalogue import Catalogue
from training.data.split import Split
from training.options import Options
from training.source_code import code_revision


def describe(
    catalogue: Catalogue,
    options: Options,
    cut: Split | None,
    *,
    fingerprint: str,
    index: Mapping[str, Any] | None,
    ranker: Mapping[str, Any] | None,
    precisions: Mapping[str, Mapping[str, Any]],
    kept: Mapping[str, Any] | None = None,
) -> Manifest:
    """All but the number, the time, the digests and the metrics.

    fingerprint: of the catalogue; index, ranker, precisions: the facts of these stages, None where there is none;
    kept: of an earlier release."""
    weights = options.encoder.weights
    shown = weights if weights in ("imagenet", "none") else Path(weights).name  # never a path of this machine
    ranked = None
    if ranker is not None:
        ranked = {"factors": options.ranker.factors, "user_key": key_check(options.user_key), "trend": ranker["trend"]}
    encoder = {"backbone": options.encoder.backbone, "dim": options.encoder.dim, "precisions": dict(precisions)}
    return Manifest(
        release=0,
        created="",
        preprocessing=asdict(PREPROCESSING),
        rows={
            "items": len(catalogue.items),
            "pictured": len(catalogue.pictured()),
            "users": ranker["users"] if ranker else 0,
            "interactions": 0 if cut is None else len(cut.train),
        },
        data={
            "fingerprint": fingerprint,
            "cutoff": None if cut is None else cut.cutoff,
            "protocol": options.protocol,
            **_of_store(catalogue),
        },
        training={
            "encoder": asdict(replace(options.encoder, weights=shown)) if index else None,
            "ranker": ranker["parameters"] if ranker else None,
            "trade": ranker["trade"] if ranker else None,
            "chosen": options.choose,
            "split_column": options.split_column,
            **({} if kept is None else {"kept": dict(kept)}),
        },
        code=code_revision(),
        encoder=encoder if index else None,
        index=dict(index) if index else None,
        ranker=ranked,
    )


def _of_store(catalogue: Catalogue) -> dict[str, Any]:
    """Of which store, and up to which change, an exported folder holds everything."""
    mark = catalogue.store
    return {} if mark is None else {"store": mark.store, "sequence": mark.sequence}
