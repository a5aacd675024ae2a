"""Users of like taste: k-means over the directions of their factors, described by what they like."""

import json
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np

from service.recommender.user_profile import Segment
from training.ranker.fitting import Trained

SEGMENTS = 8
MIN_USERS = 20  # a segment of fewer describes persons
TYPICAL = 12


def find_segments(trained: Trained, *, ids: list[str], seed: int) -> tuple[np.ndarray, list[Segment]]:
    """-> centroids (segments, factors) float32, and what each is about. Largest first; none where users are few.

    ids: item ids by row."""
    factors = trained.arrays["user_factors"]
    lengths = np.linalg.norm(factors, axis=1)
    known = np.flatnonzero(lengths > 0)
    count = min(SEGMENTS, len(known) // MIN_USERS)
    if count < 2:
        return np.empty((0, factors.shape[1]), np.float32), []
    directions = np.ascontiguousarray(factors[known] / lengths[known, None], dtype=np.float32)
    clustering = faiss.Kmeans(
        factors.shape[1],
        count,
        niter=30,
        nredo=3,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=10_000,
    )
    clustering.train(directions)
    _, nearest = clustering.index.search(directions, 1)
    sizes = np.bincount(nearest[:, 0], minlength=count)
    order = np.argsort(-sizes, kind="stable")
    centroids = np.asarray(clustering.centroids)[order]
    segments = [
        Segment(place, int(sizes[at]), _typical(trained, centroids, place, ids)) for place, at in enumerate(order)
    ]
    return centroids, segments


def _typical(trained: Trained, centroids: np.ndarray, segment: int, ids: list[str]) -> list[str]:
    """Items that the segment likes more than the average of all segments does."""
    scores = trained.arrays["item_factors"] @ centroids.T
    lead = scores[:, segment] - scores.mean(axis=1)
    return [ids[row] for row in np.argsort(-lead, kind="stable")[:TYPICAL]]


def save(folder: Path, centroids: np.ndarray, segments: list[Segment]) -> None:
    """Write segments.npy and segments.json into ranker/. centroids: (segments, factors) float32."""
    np.save(folder / "segments.npy", centroids)
    (folder / "segments.json").write_text(json.dumps([asdict(segment) for segment in segments], indent=1))
