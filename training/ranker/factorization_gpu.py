"""The half-sweeps of the factorization on a GPU: conjugate gradients over blocks of rows."""

import numpy as np
import scipy.linalg
import scipy.sparse
import torch

BLOCK_ELEMENTS = 16_000_000  # floats gathered at a time on a GPU


def solve_on_gpu(
    matrix: scipy.sparse.csr_matrix,
    fixed: np.ndarray,
    gramian: np.ndarray,
    ridge: np.ndarray,
    prior: np.ndarray,
    solved: np.ndarray,
    steps: int,
    device: str = "cuda",
) -> np.ndarray:
    """What `_solve_rows` does, over blocks of rows of like length, padded to the longest.

    -> (rows, factors) float32."""
    lengths = np.diff(matrix.indptr)
    order = np.argsort(-lengths, kind="stable")
    columns = torch.from_numpy(matrix.indices.astype(np.int64)).to(device)
    confidences = torch.from_numpy(matrix.data).to(device)
    items, system = torch.from_numpy(fixed).to(device), torch.from_numpy(gramian).to(device)
    result = np.broadcast_to(prior, solved.shape).copy()  # what rows without observations are
    start, end = 0, int((lengths > 0).sum())
    while start < end:
        longest = int(lengths[order[start]])
        rows = order[start : start + max(1, BLOCK_ELEMENTS // (longest * fixed.shape[1]))]
        rows = rows[lengths[rows] > 0]
        start += len(rows)
        offsets = torch.arange(longest, device=device)
        inside = offsets < torch.from_numpy(lengths[rows].astype(np.int64)).to(device)[:, None]
        at = torch.where(
            inside, torch.from_numpy(matrix.indptr[rows].astype(np.int64)).to(device)[:, None] + offsets, 0
        )
        confidence = torch.where(inside, confidences[at], 0.0)
        near = items[columns[at]]
        shrink = torch.from_numpy(ridge[rows]).to(device)[:, None]
        before = torch.from_numpy(prior if len(prior) == 1 else prior[rows]).to(device)
        solution = torch.from_numpy(solved[rows]).to(device)
        result[rows] = _conjugate_gradients(near, confidence, system, shrink, before, solution, steps).cpu().numpy()
    return result


def _conjugate_gradients(
    near: torch.Tensor,
    confidence: torch.Tensor,
    gramian: torch.Tensor,
    ridge: torch.Tensor,
    prior: torch.Tensor,
    solution: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """near: (rows, observed, factors); confidence: (rows, observed), 0 where padded -> (rows, factors)."""

    def gather(weights: torch.Tensor) -> torch.Tensor:
        return torch.bmm(weights[:, None, :], near)[:, 0]

    def system(vectors: torch.Tensor) -> torch.Tensor:
        dots = torch.bmm(near, vectors[:, :, None])[:, :, 0]
        return vectors @ gramian + ridge * vectors + gather(confidence.abs() * dots)

    residual = gather(confidence.clamp_min(0)) + ridge * prior - system(solution)
    direction, square = residual, residual.square().sum(dim=1, keepdim=True)
    for _ in range(steps):
        image = system(direction)
        length = square / (direction * image).sum(dim=1, keepdim=True).clamp_min(1e-20)
        solution, residual = solution + length * direction, residual - length * image
        after = residual.square().sum(dim=1, keepdim=True)
        direction = residual + after / square.clamp_min(1e-20) * direction
        square = after
    return solution
