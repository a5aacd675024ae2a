"""What makes like items near: a proxy for each label, and pairs that the same people touched.

Computed over the embeddings of all processes, so that 2 x 64 pictures teach what 1 x 128 would.
"""

import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn import functional


class MetricLoss(nn.Module):
    """Normalised softmax on every label column (Zhai and Wu, 2019), plus supervised contrast between
    co-touched items (Khosla et al., 2020).

    label_sizes: number of values in each label column; the first is the category.
    """

    def __init__(
        self,
        label_sizes: list[int],
        dim: int,
        *,
        temperature: float = 0.06,
        attribute_weight: float = 1.0,
        pair_weight: float = 0.2,
        smoothing: float = 0.05,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.smoothing = temperature, smoothing
        self.attribute_weight, self.pair_weight = attribute_weight, pair_weight
        self.proxies = nn.ParameterList(
            [nn.Parameter(torch.randn(size, dim, generator=generator)) for size in label_sizes]
        )

    def forward(
        self, embeddings: Tensor, labels: Tensor, positives: Tensor | None = None, *, nothing: Tensor | None = None
    ) -> Tensor:
        """embeddings: (n, dim) unit length; labels: (n, columns), -1 where unknown;
        positives: (n, n) bool, which pairs people touched together -> a scalar.

        nothing: (m, dim), pictures of nothing in the catalogue. They are of one more class, whose logit is 0 for
        every picture: far from all proxies (outlier exposure, Hendrycks et al., 2019)."""
        loss = embeddings.sum() * 0.0  # stays attached to the graph when nothing in the batch is labelled
        for column, proxies in enumerate(self.proxies):
            known = labels[:, column] >= 0
            if known.any():
                weight = 1.0 if column == 0 else self.attribute_weight
                loss = loss + weight * functional.cross_entropy(
                    self._logits(embeddings[known], proxies, further=nothing is not None),
                    labels[known, column],
                    label_smoothing=self.smoothing,
                )
            if nothing is not None:
                further = torch.full((len(nothing),), len(proxies), device=nothing.device)
                loss = loss + functional.cross_entropy(self._logits(nothing, proxies, further=True), further)
        if positives is not None and positives.any():
            loss = loss + self.pair_weight * _contrast(embeddings, positives, temperature=0.1)
        return loss

    def _logits(self, embeddings: Tensor, proxies: Tensor, *, further: bool) -> Tensor:
        logits = embeddings @ functional.normalize(proxies, dim=1).T / self.temperature
        return functional.pad(logits, (0, 1)) if further else logits


def _contrast(embeddings: Tensor, positives: Tensor, *, temperature: float) -> Tensor:
    n = len(embeddings)
    itself = torch.eye(n, dtype=torch.bool, device=embeddings.device)
    similarity = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    log_probability = similarity - similarity.logsumexp(dim=1, keepdim=True)
    positives = positives & ~itself
    anchors = positives.any(dim=1)
    chosen = log_probability[anchors].masked_fill(~positives[anchors], 0.0)
    return -(chosen.sum(dim=1) / positives[anchors].sum(dim=1)).mean()


def gather(values: Tensor) -> Tensor:
    """The values of all processes in the order of their ranks; gradients flow back to each."""
    if not torch.distributed.is_initialized():
        return values
    if values.requires_grad:
        return torch.cat(torch.distributed.nn.functional.all_gather(values))
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values)
    return torch.cat(parts)
