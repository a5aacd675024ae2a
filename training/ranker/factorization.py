"""The factorization: alternating least squares with priors from features.

    min  sum_observed c_ui (t_ui - u.v_i)^2  +  a0 sum_(all u, touched i) (u.v_i)^2
         + lam_u |u - Z g_u|^2 + lam_i |v_i - W f_i|^2 + lam_w (|W|^2 + |Z|^2)

(Hu et al., 2008; Rendle et al., 2021; the priors as in Agarwal and Chen, 2009). t is 1, or 0 for a dismissal. Each row
is improved by a few steps of conjugate gradients from where the last sweep left it (Takacs et al., 2011): the rows of
its items are gathered once, into the cache, and passed over a few times; nothing of size factors x factors is made
for a row. On a CPU that is compiled by numba, on a GPU it runs in torch over padded blocks of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
import scipy.linalg
import scipy.sparse
import torch

from service.recommender.factors import Objective
from training.progress import track
from training.ranker.factorization_gpu import solve_on_gpu

STEPS, LAST_STEPS = 3, 20
SETTLED = 1e-3  # of the objective
AT_ONCE = 65_536  # observations whose errors are computed together
CHUNKS = 64  # of rows with about equally many observations, for the threads to share


@dataclass(frozen=True, slots=True)
class Factors:
    """users: (users, factors), items: (items, factors), both float32. user_prior: Z (user features, factors) and
    item_prior: W (item features, factors), None without features."""

    users: np.ndarray
    items: np.ndarray
    user_prior: np.ndarray | None
    item_prior: np.ndarray | None


def factorize(
    matrix: scipy.sparse.csr_matrix,
    objective: Objective,
    *,
    factors: int,
    sweeps: int,
    prior_ridge: float = 1.0,
    item_features: np.ndarray | None = None,
    user_features: np.ndarray | None = None,
    seed: int = 0,
    quiet: bool = False,
    after_sweep: Callable[[np.ndarray, np.ndarray], None] | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Factors:
    """matrix: users x items float32, confidences, negative where the pair was dismissed; features: a row each.

    Rows without observations are their prior, zero without features. after_sweep: shown the factors of users and items
    as they stand. start: factors of users and items to go on from, NaN in new rows: the sweeps end once one improves
    the objective by less than a share of SETTLED."""
    rng = np.random.default_rng(seed)
    turned = matrix.T.tocsr()
    users = _Side(matrix, objective, user_features, prior_ridge, others=_touched(turned))
    items = _Side(turned, objective, item_features, prior_ridge, others=_touched(matrix))
    if start is None:
        items.factors = _start(items, factors, rng)
        users.factors = np.zeros((matrix.shape[0], factors), np.float32)
    else:
        for side, given in zip((users, items), start, strict=True):
            side.go_on(given)
    loss = np.inf
    for _ in range(sweeps) if quiet else track(range(sweeps), "factorizing interactions"):
        users.solve(items.factors, STEPS)
        items.solve(users.factors, STEPS)
        if after_sweep is not None:
            after_sweep(users.factors, items.factors)
        if start is not None:
            before, loss = loss, _loss(users, items)
            if before - loss < SETTLED * loss:
                break
    users.solve(items.factors, LAST_STEPS)  # so that the stored user factors are the fold-in of their own histories
    return Factors(users.factors, items.factors, users.prior_weights, items.prior_weights)


def _touched(matrix: scipy.sparse.csr_matrix) -> int:
    """How many rows have observations."""
    return int((np.diff(matrix.indptr) > 0).sum())


def _start(side: "_Side", factors: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.standard_normal((len(side.observations), factors), dtype=np.float32)
    drawn *= np.float32(0.1)
    drawn[side.observations == 0] = 0
    return drawn


def _loss(users: "_Side", items: "_Side") -> float:
    """The objective without the last term, which the priors' own solution keeps small."""
    matrix = users.matrix
    row = np.repeat(np.arange(matrix.shape[0]), users.observations)
    observed = 0.0
    for start in range(0, matrix.nnz, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        scores = np.einsum("nk,nk->n", users.factors[row[part]], items.factors[matrix.indices[part]])
        words = matrix.data[part]
        observed += float((np.abs(words) * ((words > 0) - scores) ** 2).sum())
    products = (users.factors.T @ users.factors) * (items.factors.T @ items.factors)
    return observed + float(users.unobserved * products.sum()) + users.regularisation() + items.regularisation()


class _Side:
    """One side of the factorization: its observations, its regularisation, its prior, its factors."""

    factors: np.ndarray

    def __init__(
        self,
        matrix: scipy.sparse.csr_matrix,
        objective: Objective,
        features: np.ndarray | None,
        prior_ridge: float,
        *,
        others: int,
    ) -> None:
        """others: how many rows of the other side have observations."""
        self.matrix = matrix
        self.observations = np.diff(matrix.indptr)
        self.unobserved = np.float32(objective.unobserved)
        self.ridge = objective.ridge(self.observations, others).astype(np.float32)
        self.features = features
        self.prior_weights: np.ndarray | None = None
        if features is not None:
            known = (self.observations > 0).astype(np.float32)
            self.weighted = features * (self.ridge * known / max(float(self.ridge.mean()), 1e-12))[:, None]
            system = self.weighted.T @ features
            system[np.diag_indices_from(system)] += prior_ridge
            self.solver = scipy.linalg.cho_factor(system)
        # work is about in proportion to observations, plus the product with the gramian
        work = np.cumsum(self.observations + 64)
        self.bounds = np.searchsorted(work, np.linspace(0, work[-1], CHUNKS + 1)).astype(np.int64)
        self.bounds[0], self.bounds[-1] = 0, len(self.observations)

    def go_on(self, given: np.ndarray) -> None:
        """Begin with these factors, (rows, factors) float32; rows of NaN with their prior, or zero."""
        new = np.isnan(given[:, 0])
        self.factors = np.ascontiguousarray(np.where(new[:, None], 0, given), np.float32)
        if self.features is not None:
            self.prior_weights = scipy.linalg.cho_solve(self.solver, self.weighted.T @ self.factors).astype(np.float32)
            new |= self.observations == 0
            self.factors[new] = self.features[new] @ self.prior_weights
        else:
            self.factors[self.observations == 0] = 0

    def regularisation(self) -> float:
        """Its part of the objective."""
        squares = ((self.factors - self._prior()) ** 2).sum(axis=1)
        return float(self.ridge @ squares)

    def solve(self, fixed: np.ndarray, steps: int) -> None:
        """Improve all factors of this side, the other's held; then the prior, for the next time.

        fixed: (columns, factors) float32."""
        gramian = self.unobserved * (fixed.T @ fixed)
        prior = self._prior()
        if torch.cuda.is_available():
            self.factors = solve_on_gpu(self.matrix, fixed, gramian, self.ridge, prior, self.factors, steps)
        else:
            matrix = self.matrix
            _solve_rows(
                matrix.indptr,
                matrix.indices,
                matrix.data,
                fixed,
                gramian,
                self.ridge,
                prior,
                self.factors,
                steps,
                self.bounds,
            )
        if self.features is not None:
            self.prior_weights = scipy.linalg.cho_solve(self.solver, self.weighted.T @ self.factors).astype(np.float32)
            unknown = self.observations == 0
            self.factors[unknown] = self.features[unknown] @ self.prior_weights

    def _prior(self) -> np.ndarray:
        if self.features is None or self.prior_weights is None:
            return np.zeros((1, self.factors.shape[1]), np.float32)  # one row for all
        prior: np.ndarray = self.features @ self.prior_weights
        return prior


@numba.njit(parallel=True, fastmath=True, cache=True)
def _solve_rows(indptr, indices, data, fixed, gramian, ridge, prior, solved, steps, bounds):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Conjugate gradients (Hestenes and Stiefel, 1952) on each row's normal equations A x = b, in place.

    Of a row u with observations i: A = a0 V'V + sum |c_ui| v_i v_i' + lambda I, b = sum max(c_ui, 0) v_i + lambda x0.
    indptr, indices, data: the confidences c in CSR form; fixed: (items, factors) V; gramian: a0 V'V; ridge: (rows,)
    lambda; prior: (rows or 1, factors) x0; solved: (rows, factors) x, from where it starts; bounds: of the chunks.
    Every row is its own, so the order of threads does not matter to the result."""
    factors = fixed.shape[1]
    for chunk in numba.prange(bounds.shape[0] - 1):
        r, p, ap = np.empty(factors, np.float32), np.empty(factors, np.float32), np.empty(factors, np.float32)
        v = np.empty((1024, factors), np.float32)
        for row in range(bounds[chunk], bounds[chunk + 1]):
            start, observed = indptr[row], indptr[row + 1] - indptr[row]
            x, x0 = solved[row], prior[row if prior.shape[0] > 1 else 0]
            if observed == 0:
                x[:] = x0
                continue
            if observed > v.shape[0]:
                v = np.empty((observed, factors), np.float32)
            for at in range(observed):
                source, target = fixed[indices[start + at]], v[at]
                for k in range(factors):
                    target[k] = source[k]
            c = data[start : start + observed]
            _residual(r, v, c, gramian, ridge[row], x, x0)
            _iterate(x, r, p, ap, v, c, gramian, ridge[row], steps)


# No loop both adds up and writes: the compiler would vectorise it only where the arrays happen to lie apart, and add in
# another order where they do not.
@numba.njit(fastmath=True, cache=True)
def _residual(r, v, c, gramian, ridge, x, x0):  # type: ignore[no-untyped-def]  # pragma: no cover
    """r = b - A x."""
    factors, one = r.shape[0], np.float32(1)
    for k in range(factors):
        r[k] = ridge * (x0[k] - x[k])
    for i in range(factors):
        line, value = gramian[i], x[i]
        for k in range(factors):
            r[k] -= line[k] * value
    for at in range(c.shape[0]):
        vector, dot = v[at], np.float32(0)
        for k in range(factors):
            dot += vector[k] * x[k]
        weight = abs(c[at]) * ((one if c[at] > 0 else np.float32(0)) - dot)
        for k in range(factors):
            r[k] += weight * vector[k]


@numba.njit(fastmath=True, cache=True)
def _multiply(ap, v, c, gramian, ridge, p):  # type: ignore[no-untyped-def]  # pragma: no cover
    """ap = A p."""
    factors = p.shape[0]
    for k in range(factors):
        ap[k] = ridge * p[k]
    for i in range(factors):
        line, value = gramian[i], p[i]
        for k in range(factors):
            ap[k] += line[k] * value
    for at in range(c.shape[0]):
        vector, dot = v[at], np.float32(0)
        for k in range(factors):
            dot += vector[k] * p[k]
        weight = abs(c[at]) * dot
        for k in range(factors):
            ap[k] += weight * vector[k]


@numba.njit(fastmath=True, cache=True)
def _iterate(x, r, p, ap, v, c, gramian, ridge, steps):  # type: ignore[no-untyped-def]  # pragma: no cover
    """x += alpha p, r -= alpha A p, p = r + beta p; alpha = r'r / p'A p, beta = r'r / r'r before."""
    factors = x.shape[0]
    for k in range(factors):
        p[k] = r[k]
    rr = np.float32(0)
    for k in range(factors):
        rr += r[k] * r[k]
    for _ in range(steps):
        if rr < 1e-16:
            break
        _multiply(ap, v, c, gramian, ridge, p)
        pap = np.float32(0)
        for k in range(factors):
            pap += p[k] * ap[k]
        alpha = rr / pap
        for k in range(factors):
            x[k] += alpha * p[k]
            r[k] -= alpha * ap[k]
        before = rr
        rr = np.float32(0)
        for k in range(factors):
            rr += r[k] * r[k]
        beta = rr / before
        for k in range(factors):
            p[k] = r[k] + beta * p[k]
