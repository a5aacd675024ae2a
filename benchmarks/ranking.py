"""Quality of the ranker against EASE, item-kNN, implicit and cornac: one split, as many factors and trials, one run.

    python benchmarks/ranking.py shop --test-from 2011-11-10 --factors 64 --trials 8

Every contender is tuned on the last tenth of the training period (random draws from its own space, the first its
defaults), then trained on all of it and asked for what users touch after the cut. cornac's VBPR takes the vectors that
our priors take: pictures, where a release of the catalogue is given with --release, attributes and titles.
Needs `pip install implicit cornac`.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import cornac
import implicit
import numpy as np
import scipy.sparse
from cornac.data import Dataset, ImageModality
from rich.console import Console
from rich.table import Table

from service.recommender.release import Release
from service.recommender.scoring.terms import Sources, blend, log_price, scaled_popularity, term_values
from service.recommender.scoring.weights import Blend
from training import measures
from training.data import split
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import read
from training.data.side_information import Known, know
from training.data.split import HeldOut, Split, read_cut
from training.evaluation import baselines
from training.evaluation.baselines import Scorer
from training.progress import say, track
from training.ranker import fitting
from training.ranker import term_weights as blending
from training.ranker.fitting import RankerParameters, confidence_matrix

# a parameter -> the ends of what is drawn
Space = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Contest:
    """The catalogue, what is known beside interactions, and how many factors all have."""

    catalogue: Catalogue
    known: Known
    factors: int

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.catalogue.items)

    def matrix(self, cut: Split) -> tuple[scipy.sparse.csr_matrix, list[str]]:
        """Binary users x items of the training period."""
        found, users = confidence_matrix(cut.train, items=self.items, parameters=RankerParameters())
        found.data[:] = 1
        return found, users


def vitrine(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """Factors, priors, and the learned sum, as a release has them."""
    parameters = RankerParameters(factors=contest.factors, **values)
    learned: Blend = blending.learn(
        cut.train, items=contest.items, parameters=parameters, known=contest.known, seed=0
    ).blend
    made = fitting.train(
        cut.train, items=contest.items, parameters=parameters, user_key="", sides=contest.known.sides, quiet=True
    )
    row_of = {user: row for row, user in enumerate(made.users)}
    counts = fitting.at_end(cut.train, items=contest.items).popularity
    prices = log_price(contest.known.prices)
    sources = Sources(contest.known.index, made.ranker, scaled_popularity(counts), prices)
    every = np.arange(contest.items)

    def score(at: int) -> np.ndarray:
        shopper = made.ranker.user(row_of[held.users[at]])
        [values] = term_values(sources, [every], [None], [shopper], [None])
        return blend(values, learned.tiers["taste"])[1].sum(axis=1)

    return lambda block: np.stack([score(at) for at in block])


def vitrine_factors(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """Our factorization alone, without features."""
    parameters = RankerParameters(factors=contest.factors, **values)
    return baselines.factors(
        fitting.train(cut.train, items=contest.items, parameters=parameters, user_key="", quiet=True), held
    )


def _implicit(model: Any, contest: Contest, cut: Split, held: HeldOut) -> Scorer:
    matrix, users = contest.matrix(cut)
    model.fit(matrix, show_progress=False)
    row_of = {user: row for row, user in enumerate(users)}
    rows = np.array([row_of[user] for user in held.users])
    return lambda block: model.user_factors[rows[block]] @ model.item_factors.T


def implicit_als(*, cg: bool) -> Callable[[Contest, Split, HeldOut, dict[str, Any]], Scorer]:
    """Alternating least squares with one of its solvers."""
    return lambda contest, cut, held, values: _implicit(
        implicit.als.AlternatingLeastSquares(
            factors=contest.factors, use_cg=cg, use_gpu=False, num_threads=2, random_state=0, **values
        ), contest, cut, held,
    )  # fmt: skip


def implicit_bpr(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """Bayesian personalised ranking. One thread: with more its runs differ."""
    model = implicit.bpr.BayesianPersonalizedRanking(
        factors=contest.factors, use_gpu=False, num_threads=1, random_state=0, **values
    )
    return _implicit(model, contest, cut, held)


def _cornac(model: Any, contest: Contest, cut: Split, held: HeldOut, features: np.ndarray | None = None) -> Scorer:
    matrix, users = contest.matrix(cut)
    pairs = matrix.tocoo()
    triples = zip([users[row] for row in pairs.row], pairs.col.tolist(), np.ones(pairs.nnz), strict=True)
    data = Dataset.from_uir(list(triples), seed=0)
    if features is not None:
        modality = ImageModality(features=features, ids=list(range(contest.items)), normalized=False)
        data.add_modalities(item_image=modality.build(id_map=data.iid_map))
    model.fit(data)
    places = np.array([data.iid_map.get(item, -1) for item in range(contest.items)])

    def scores(block: np.ndarray) -> np.ndarray:
        own = np.stack([model.score(data.uid_map[held.users[at]]) for at in block])
        return np.where(places >= 0, own[:, places], -1e9)

    return scores


def cornac_bpr(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """cornac's Bayesian personalised ranking."""
    return _cornac(cornac.models.BPR(k=contest.factors, seed=0, num_threads=1, **values), contest, cut, held)


def cornac_vbpr(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """Visual BPR (He and McAuley, 2016), half of the factors for the features."""
    half = contest.factors // 2
    model = cornac.models.VBPR(k=half, k2=half, seed=0, verbose=False, **values)
    return _cornac(model, contest, cut, held, contest.known.sides.items)


def ease(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """EASE (Steck, 2019), dense and whole."""
    matrix, users = contest.matrix(cut)
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += values.get("ridge", 200.0)
    inverse = np.linalg.inv(gram)
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return _by_items(matrix, users, held, weights)


def item_knn(contest: Contest, cut: Split, held: HeldOut, values: dict[str, Any]) -> Scorer:
    """implicit's nearest items by the cosine of who touched them."""
    matrix, users = contest.matrix(cut)
    model = implicit.nearest_neighbours.CosineRecommender(K=round(values.get("neighbours", 100)), num_threads=1)
    model.fit(matrix, show_progress=False)
    return _by_items(matrix, users, held, model.similarity)


def _by_items(matrix: scipy.sparse.csr_matrix, users: list[str], held: HeldOut, weights: Any) -> Scorer:
    """Scores of items by those that each user touched. weights: items x items."""
    row_of = {user: row for row, user in enumerate(users)}
    rows = np.array([row_of[user] for user in held.users])

    def score(block: np.ndarray) -> np.ndarray:
        found = matrix[rows[block]] @ weights
        return np.asarray(found.todense()) if scipy.sparse.issparse(found) else found

    return score


def _draws(rng: np.random.Generator, trials: int, space: Space) -> list[dict[str, Any]]:
    """The defaults, then points drawn evenly on a logarithmic scale."""

    def draw() -> dict[str, Any]:
        return {name: float(np.exp(rng.uniform(np.log(low), np.log(high)))) for name, (low, high) in space.items()}

    return [{}, *(draw() for _ in range(trials - 1))]


OURS: Space = {"unobserved": (0.1, 1.0), "regularisation": (0.003, 0.03)}
ALS: Space = {"alpha": (0.5, 40), "regularization": (0.01, 30)}
# name -> contender, what is drawn, what is fixed
CONTENDERS: dict[str, tuple[Callable[..., Scorer], Space, dict[str, Any]]] = {
    "vitrine": (vitrine, OURS, {}),
    "vitrine, factors alone": (vitrine_factors, OURS, {}),
    "EASE": (ease, {"ridge": (10, 3000)}, {}),
    "item-kNN": (item_knn, {"neighbours": (10, 1000)}, {}),
    "implicit ALS, conjugate gradients": (implicit_als(cg=True), ALS, {}),
    "implicit ALS, cholesky": (implicit_als(cg=False), ALS, {}),
    "implicit BPR": (
        implicit_bpr, {"learning_rate": (0.003, 0.1), "regularization": (0.001, 0.1)}, {"iterations": 100},
    ),
    "cornac BPR": (cornac_bpr, {"learning_rate": (0.003, 0.1), "lambda_reg": (0.001, 0.1)}, {"max_iter": 100}),
    "cornac VBPR": (
        cornac_vbpr, {"learning_rate": (0.001, 0.02), "lambda_w": (0.001, 0.1)}, {"n_epochs": 20, "batch_size": 2000},
    ),
}  # fmt: skip


def measure(scorer: Scorer, held: HeldOut) -> tuple[float, float]:
    """recall@20 and nDCG@20."""
    ranked, _ = baselines.judge(scorer, held, k=20)
    sizes = np.array([len(wanted) for wanted in held.relevant])
    found = measures.list_measures(measures.hits_of(ranked, held.relevant), sizes, 20)
    return float(found["recall_at_20"].mean()), float(found["ndcg_at_20"].mean())


def main() -> None:
    """Print one table."""
    warnings.filterwarnings("ignore")  # cornac's, of libraries that it looks for
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--test-from")
    parser.add_argument("--release", type=Path, help="of this catalogue, for the vectors of its pictures")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--only", help="names of contenders, by semicolon")
    given = parser.parse_args()
    catalogue = read(given.catalogue)
    assert catalogue.interactions is not None, "the catalogue has no interactions"
    index = Release.open(given.release).index if given.release else None
    vectors = None if index is None else index.vectors(np.arange(len(catalogue.items)))
    contest = Contest(catalogue, know(catalogue, index, None, vectors, exclude=None)[0], given.factors)
    cut = split.at(catalogue.interactions, read_cut(given.test_from))
    inner = split.at(cut.train, None)
    validation, test = (split.warm(part, items=contest.items) for part in (inner, cut))
    title = f"{given.factors} factors, {given.trials} trials each"
    table = Table("", "recall@20", "nDCG@20", "training", "best on validation", title=title)
    names = given.only.split(";") if given.only else list(CONTENDERS)
    for name in track(names, "contenders"):
        make, space, fixed = CONTENDERS[name]
        draws = _draws(np.random.default_rng(0), given.trials, space)
        tried = [(measure(make(contest, inner, validation, fixed | draw), validation)[1], draw) for draw in draws]
        reached, best = max(tried, key=lambda one: one[0])
        started = time.perf_counter()
        scorer = make(contest, cut, test, fixed | best)
        seconds = time.perf_counter() - started
        recall, ndcg = measure(scorer, test)
        chosen = ", ".join(f"{key} {value:.3g}" for key, value in best.items()) or "defaults"
        say(f"{name}: recall@20 {recall:.4f}, nDCG@20 {ndcg:.4f}")  # some take long: what is known is shown
        table.add_row(name, f"{recall:.4f}", f"{ndcg:.4f}", f"{seconds:.1f} s", f"{reached:.4f}: {chosen}")
    Console().print(table)


if __name__ == "__main__":
    main()
