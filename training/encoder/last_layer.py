"""Fit the last layer anew on what the finished network sees, so that pictures of nothing lie apart.

While the whole network trains, strangers to the catalogue would disturb its batch norms, and what it learns of them
then does not hold in serving. On frozen features, seen as serving sees them, the last layer is a linear problem of
seconds: the same metric loss, with one more class for what no catalogue holds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from service.encoder.preprocessing import PREPROCESSING
from training.encoder import batches
from training.encoder.augmentation import augment, strangers
from training.encoder.backbones import Embedder
from training.encoder.batches import Examples
from training.encoder.losses import MetricLoss
from training.progress import track

BATCH = 256
STRANGERS = 1024
LEARNING_RATE = 0.01
# Of each further label beside the category's 1. What people would call alike is first of all the same kind of thing; at
# .4 the demo's answers are of the photo's category in .81 (.65 at 1), of its colour in .64 (.70).
ATTRIBUTE_WEIGHT = 0.4
WEIGHT_DECAY = 0.2


@dataclass(frozen=True, slots=True)
class Features:
    """What enters the last layer, on the CPU. known: (2 train, d), all training pictures as the
    catalogue shows them, then all of them varied; nothing: (m, d)."""

    known: Tensor
    nothing: Tensor


def refit(model: Embedder, examples: Examples, *, steps: int, seed: int) -> bool:
    """Replace the weights of the model's projection. Returns False, and changes nothing, where the network does not
    end in a linear layer, or no label says what a picture is of."""
    if model.projection is None or not examples.labels.columns:
        return False
    features = see(model, examples, seed=seed)
    train = examples.train
    codes = examples.labels.codes[train]
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    projection = nn.Linear(features.known.shape[1], model.projection.out_features)
    nn.init.normal_(projection.weight, std=projection.in_features**-0.5, generator=generator)
    nn.init.zeros_(projection.bias)
    # the network was trained by what the same people touched as well; whose taste things are is the ranker's to say
    loss = MetricLoss(
        examples.labels.sizes, projection.out_features, attribute_weight=ATTRIBUTE_WEIGHT, generator=generator
    )
    optimizer = torch.optim.AdamW(
        [*projection.parameters(), *loss.parameters()], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = batches.class_weights(codes[:, 0])
    for _ in track(range(steps), "fitting the last layer"):
        batch = rng.choice(len(codes), BATCH, p=weights)
        view = batch + len(train) * rng.integers(2, size=BATCH)
        nothing = features.nothing[torch.randint(len(features.nothing), (BATCH // 4,), generator=generator)]
        embedded = nn.functional.normalize(projection(torch.cat([features.known[view], nothing])), dim=1)
        value = loss(embedded[:BATCH], torch.from_numpy(codes[batch]), nothing=embedded[BATCH:])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
    model.projection.load_state_dict(projection.state_dict())
    return True


@torch.no_grad()
def see(model: Embedder, examples: Examples, *, seed: int) -> Features:
    """Features of the training pictures in two views, and of strangers to all of them, in the size of serving."""
    assert model.projection is not None
    pictures, train = examples.pictures, examples.train
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    device = model.projection.weight.device
    size = PREPROCESSING.crop
    caught: list[Tensor] = []
    hook = model.projection.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))

    def plain(positions: np.ndarray) -> Tensor:
        return pictures.centre(positions).permute(0, 3, 1, 2).float()

    def varied(positions: np.ndarray) -> Tensor:
        return augment(pictures.take(positions), size=size, generator=generator)

    def nothing(positions: np.ndarray) -> Tensor:
        return strangers(plain(positions), generator=generator)

    drawn = np.random.default_rng(seed).choice(train, STRANGERS)
    for draw, positions in ((plain, train), (varied, train), (nothing, drawn)):
        starts = range(0, len(positions), 64)
        for start in track(starts, f"looking at {len(positions)} pictures for the last layer"):
            model.embed(draw(positions[start : start + 64]).to(device))
    hook.remove()
    seen = torch.cat(caught).clone()
    return Features(seen[: 2 * len(train)], seen[2 * len(train) :])
