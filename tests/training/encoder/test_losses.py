"""The metric loss, alone and over several processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.nn import functional

from training.encoder.batches import epoch_order, partners, positives
from training.encoder.losses import MetricLoss, gather

LABELS = torch.arange(128)[:, None] % 4


def loss_and_weights() -> tuple[MetricLoss, torch.nn.Linear, torch.Tensor]:
    """A loss, a network and 128 examples, the same in every process."""
    torch.manual_seed(0)
    return MetricLoss([4], 8), torch.nn.Linear(6, 8), torch.randn(128, 6)


def pairs() -> torch.Tensor:
    return torch.from_numpy(np.arange(128)[:, None] // 2 == np.arange(128)[None] // 2)


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    loss, network, examples = loss_and_weights()
    parallel = torch.nn.parallel.DistributedDataParallel(network)
    mine = examples[64 * rank : 64 * (rank + 1)]
    value = loss(gather(functional.normalize(parallel(mine), dim=1)), LABELS, pairs())
    value.backward()
    torch.save({"loss": value.item(), "gradient": network.weight.grad}, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_of_64_learn_what_one_of_128_does(tmp_path: Path) -> None:
    """2 x 64 over gloo: the same loss and, after DistributedDataParallel, the same gradient as 1 x 128."""
    torch.multiprocessing.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    loss, network, examples = loss_and_weights()
    alone = loss(functional.normalize(network(examples), dim=1), LABELS, pairs())
    alone.backward()
    for rank in range(2):
        both = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        np.testing.assert_allclose(both["loss"], alone.item(), rtol=1e-5)
        torch.testing.assert_close(both["gradient"], network.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_loss_is_lower_where_classes_are_apart() -> None:
    """Embeddings at their proxies lose less than embeddings at the wrong ones."""
    loss = MetricLoss([4], 8)
    proxies = functional.normalize(loss.proxies[0].detach(), dim=1)
    right, wrong = proxies[LABELS[:, 0]], proxies[(LABELS[:, 0] + 1) % 4]
    assert loss(right, LABELS) < loss(wrong, LABELS)


def test_unknown_labels_teach_nothing() -> None:
    """A batch without labels or pairs has loss 0, and still a gradient to follow."""
    embeddings = torch.randn(8, 8, requires_grad=True)
    value = MetricLoss([4], 8)(embeddings, torch.full((8, 1), -1))
    assert value.item() == 0
    value.backward()


def test_rare_classes_come_up_more_often_than_their_share() -> None:
    """Of 900 against 100, drawing by the square root gives 3 to 1 rather than 9 to 1."""
    classes = np.repeat([0, 1], [900, 100])
    drawn = np.bincount(classes[epoch_order(classes, np.random.default_rng(0))])
    assert drawn.sum() == 1000
    assert abs(drawn[1] - 250) <= 3


def test_partners_are_co_touched_or_the_item_itself() -> None:
    """And the pairs of a batch are exactly those."""
    neighbours = np.array([[2, 3], [-1, -1], [0, -1], [0, -1]])
    anchors = np.array([0, 1, 2] * 20)
    found = partners(anchors, neighbours, np.random.default_rng(0))
    assert set(found[anchors == 0]) == {2, 3}
    assert set(found[anchors == 1]) == {1}
    expected = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    np.testing.assert_array_equal(positives(np.array([0, 1, 2]), neighbours), expected)
