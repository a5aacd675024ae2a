"""Does the encoder find the same kind of thing? Precision@10 of a release's pictures, by category."""

from typing import Any

import numpy as np

from service.recommender.pipeline import Recommender
from training.data.catalogue import Catalogue
from training.data.split import HELD_OUT_SPLITS
from training.encoder.batches import labels_of
from training.evaluation import baselines
from training.evaluation.report import Example
from training.measures import interval, top
from training.progress import track

K = 10
QUERIES = 1000
SHOWN = 12


def measure_retrieval(
    recommender: Recommender, catalogue: Catalogue, split_column: str | None, exclude_same: str | None
) -> tuple[dict[str, Any], list[Example]]:
    """precision@10: how many of the ten nearest are of the query's category."""
    index = recommender.release.index
    assert index is not None
    category = np.array(catalogue.primary_category(), dtype=object)
    queries, gallery = _queries_and_gallery(catalogue, category, split_column)
    vectors = _embed(recommender, catalogue, queries)
    found = np.stack([
        index.search(vector[None], k=K, allowed=_without(gallery, row))[0][0]
        for row, vector in zip(queries, vectors, strict=True)
    ])  # fmt: skip
    right = _share_value(found, queries, category)
    precision = right.mean(axis=1)
    by_category = {
        str(name): float(precision[category[queries] == name].mean())
        for name in np.unique(category[queries].astype(str))
    }
    metrics: dict[str, Any] = {
        "queries": len(queries),
        "gallery": int(gallery.sum()),
        "precision_at_10": float(precision.mean()),
        "precision_at_10_interval": interval(precision),
        "precision_at_10_by_category": by_category,
        "precision_at_10_mean_over_categories": float(np.mean(list(by_category.values()))),
        "chance": float(np.mean([(category[gallery] == category[row]).mean() for row in queries])),
    }
    metrics["precision_at_10_by_column"] = _by_column(catalogue, found, queries, excluded={split_column, exclude_same})
    metrics["colour_histogram_precision_at_10"] = _by_colour(recommender, queries, gallery, category)
    if exclude_same is not None:
        same = catalogue.items[exclude_same].to_numpy()
        elsewhere = np.stack([
            index.search(vector[None], k=K, allowed=_without(gallery, row) & (same != same[row]))[0][0]
            for row, vector in zip(queries, vectors, strict=True)
        ])  # fmt: skip
        strict = _share_value(elsewhere, queries, category).mean(axis=1)
        metrics[f"precision_at_10_excluding_same_{exclude_same}"] = float(strict.mean())
        metrics[f"precision_at_10_excluding_same_{exclude_same}_interval"] = interval(strict)
    return metrics, _examples(queries, found, right, category)


def _by_column(
    catalogue: Catalogue, found: np.ndarray, queries: np.ndarray, *, excluded: set[str | None]
) -> dict[str, float]:
    """The share of the ten nearest that agree with the query, by each column of labels."""
    names = {name for name in excluded if name is not None}
    labels = labels_of(catalogue, np.arange(len(catalogue.items)), exclude=names)
    return {
        name: float(_share_value(found[known], queries[known], codes).mean())
        for name, codes in zip(labels.columns, labels.codes.T, strict=True)
        for known in [codes[queries] >= 0]
    }


def _by_colour(recommender: Recommender, queries: np.ndarray, gallery: np.ndarray, category: np.ndarray) -> float:
    """precision@10 of colour histograms alone."""
    histograms = baselines.colour_histograms(recommender.release)
    cosines = np.where(gallery, np.nan_to_num(histograms[queries]) @ np.nan_to_num(histograms).T, -np.inf)
    cosines[np.arange(len(queries)), queries] = -np.inf
    coloured = _share_value(top(cosines, K), queries, category)
    return float(coloured.mean())


def _examples(queries: np.ndarray, found: np.ndarray, right: np.ndarray, category: np.ndarray) -> list[Example]:
    precision = right.mean(axis=1)
    order = np.argsort(precision, kind="stable")
    # the worst cases, and others spread over all
    shown = np.unique(np.concatenate([order[: SHOWN // 3], order[np.linspace(0, len(order) - 1, SHOWN).astype(int)]]))
    return [
        Example(
            str(category[queries[at]]), [int(queries[at])], [int(r) for r in found[at] if r >= 0], right[at].tolist()
        )
        for at in shown
    ]


def _queries_and_gallery(
    catalogue: Catalogue, category: np.ndarray, split_column: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that ask, and a mask of those that may answer: by the split column, or each against all others."""
    known = catalogue.items["image"].notna().to_numpy() & np.array([c is not None for c in category])
    if split_column is not None:
        part = catalogue.items[split_column].astype(str).str.lower().to_numpy()
        return np.flatnonzero(known & np.isin(part, HELD_OUT_SPLITS)), known & (part == "train")
    rows = np.flatnonzero(known)
    return rows[:: max(1, len(rows) // QUERIES)][:QUERIES], known


def _embed(recommender: Recommender, catalogue: Catalogue, rows: np.ndarray) -> np.ndarray:
    parts = [
        recommender.embed([catalogue.picture(row) for row in rows[start : start + 16]])
        for start in track(range(0, len(rows), 16), "asking with pictures")
    ]
    return np.concatenate(parts)


def _without(gallery: np.ndarray, row: int) -> np.ndarray:
    others = gallery.copy()
    others[row] = False
    return others


def _share_value(found: np.ndarray, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(queries, K) bool: of the query's value. values: (items,), of the category or another column."""
    return (found >= 0) & (values[found] == values[queries][:, None])
