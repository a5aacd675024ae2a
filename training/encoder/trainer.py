"""Train the CNN: pictures -> unit vectors in which like items are near. On a GPU, several, or none."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from service.files import replacing
from training.data.pictures import Pictures
from training.encoder import batches, last_layer
from training.encoder.augmentation import augment
from training.encoder.backbones import Embedder, build, restore_batch_norm
from training.encoder.batches import Examples
from training.encoder.distributed import device_of, join, keep_memory, parallel, wait_for_all
from training.encoder.losses import MetricLoss, gather
from training.progress import bar, say

VALIDATION_SIZE = 512


@dataclass(frozen=True, slots=True)
class EncoderParameters:
    """How to train. `image_size` is the side of training crops: smaller ones train faster, and items then
    look as large as they will in the 224 pixels of serving (Touvron et al., 2019, "FixRes"). The first
    half of the epochs uses four fifths of it."""

    backbone: str = "mobilenet_v2"
    weights: str = "imagenet"
    dim: int = 128
    epochs: int = 16
    batch_size: int = 64
    image_size: int = 160
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    patience: int = 8
    last_layer_steps: int = 2000  # of fitting it anew, on what the finished network sees
    seed: int = 0


def train(examples: Examples, parameters: EncoderParameters, folder: Path) -> dict[str, Any]:
    """Train, and leave weights.pt in `folder`; a checkpoint there is taken up again.

    Returns the metrics: validation precision@10 of the chosen epoch, epochs trained, seconds, the learning curve."""
    keep_memory()
    torch.manual_seed(parameters.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a third of the time, guards nothing here
    session = _Session(examples, parameters, folder)
    session.resume()
    while session.epoch < parameters.epochs and session.epochs_since_best < parameters.patience:
        session.run_epoch()
    return session.finish()


class _Session:
    """One training run, between epochs: all that a checkpoint must hold."""

    def __init__(self, examples: Examples, parameters: EncoderParameters, folder: Path) -> None:
        self.examples, self.parameters, self.folder = examples, parameters, folder
        self.rank, self.world = join()
        self.device = device_of(self.rank)
        self.rng = np.random.default_rng(parameters.seed)
        self.generator = torch.Generator().manual_seed(parameters.seed + self.rank)
        self.model = build(parameters.backbone, weights=parameters.weights, dim=parameters.dim).to(self.device)
        self._restore_batch_norm()
        self.loss = MetricLoss(examples.labels.sizes, parameters.dim).to(self.device)
        self.steps = max(1, len(examples.train) // parameters.batch_size)
        # what is validated and kept: the weights averaged over about the last epoch
        decay = 1 - 1 / max(10, self.steps)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        groups = [*self.model.parameters(), *self.loss.parameters()]
        self.optimizer = torch.optim.AdamW(groups, lr=parameters.learning_rate, weight_decay=parameters.weight_decay)
        total = self.steps * parameters.epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            parameters.learning_rate,
            total_steps=total + 1,
            pct_start=parameters.warmup,
            cycle_momentum=False,
            final_div_factor=1e3,
        )
        self.network = parallel(_Embed(self.model), self.world, self.device)
        self.writer = SummaryWriter(str(folder / "tensorboard")) if self.rank == 0 else None
        self.epoch, self.best, self.epochs_since_best, self.seconds = 0, -1.0, 0, 0.0
        self.curve: list[dict[str, float]] = []  # of each epoch

    def _restore_batch_norm(self) -> None:
        sample = self.examples.train[:: max(1, len(self.examples.train) // 128)][:128]
        pixels = augment(
            self.examples.pictures.take(sample).to(self.device),
            size=self.parameters.image_size,
            generator=torch.Generator().manual_seed(self.parameters.seed),
        )
        if self.parameters.weights != "none" and (restored := restore_batch_norm(self.model, pixels)):
            say(f"encoder: gave {restored} folded batch norms their statistics back")

    def run_epoch(self) -> None:
        started = time.perf_counter()
        self.network.train()
        losses = []
        with bar() as progress:
            task = progress.add_task(
                f"encoder epoch {self.epoch + 1}/{self.parameters.epochs}", total=self.steps, note=""
            )
            for batch in self._batches():
                losses.append(self._step(batch))
                progress.update(task, advance=1, note=f"loss {np.mean(losses[-20:]):.3f}")
        self.epoch += 1
        self.seconds += time.perf_counter() - started
        found = self._validate()
        score = float(np.mean(list(found.values())))
        figures = {"loss": float(np.mean(losses)), "validation_precision_at_10": score}
        figures |= {f"validation_precision_at_10/{name}": value for name, value in found.items()}
        figures["learning_rate"] = float(self.schedule.get_last_lr()[0])
        self.curve.append(figures)
        if self.writer:
            for name, value in figures.items():
                self.writer.add_scalar(name, value, self.epoch)
        better = score > self.best
        self.epochs_since_best = 0 if better else self.epochs_since_best + 1
        say(f"encoder: epoch {self.epoch}, loss {np.mean(losses):.3f}, validation precision@10 {_told(found)}")
        if better and self.rank == 0:
            self.best = score
            _save({"state": self._averaged().state_dict()}, self.folder / "best.pt")
        self.best = max(self.best, score)
        if self.rank == 0:
            _save(self._checkpoint(), self.folder / "checkpoint.pt")

    def _batches(self) -> list[np.ndarray]:
        """Positions of each global batch of an epoch; with co-touched pairs, half anchors and half partners."""
        train, labels, neighbours = self.examples.train, self.examples.labels, self.examples.neighbours
        classes = labels.codes[train, 0] if labels.columns else np.zeros(len(train), np.int64)
        order = train[batches.epoch_order(classes, self.rng)]
        size = self.parameters.batch_size
        parts = [order[start : start + size] for start in range(0, self.steps * size, size)]
        if neighbours is None:
            return parts
        paired = []
        for part in parts:
            anchors = part[: size // 2]
            paired.append(np.concatenate([anchors, batches.partners(anchors, neighbours, self.rng)]))
        return paired

    def _averaged(self) -> Embedder:
        averaged = self.average.module
        assert isinstance(averaged, Embedder)
        return averaged

    def _crop_size(self) -> int:
        coarse = self.epoch < self.parameters.epochs // 2
        return self.parameters.image_size * 4 // 5 if coarse else self.parameters.image_size

    def _step(self, batch: np.ndarray) -> float:
        mine = np.array_split(batch, self.world)[self.rank]
        pixels = augment(
            self.examples.pictures.take(mine).to(self.device),
            size=self._crop_size(),
            generator=self.generator,
        )
        labels = torch.from_numpy(self.examples.labels.codes[batch]).to(self.device)
        pairs = None
        if self.examples.neighbours is not None:
            pairs = torch.from_numpy(batches.positives(batch, self.examples.neighbours)).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            embeddings = self.network(pixels)
        loss = self.loss(gather(embeddings), labels, pairs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return float(loss.detach())

    def _validate(self) -> dict[str, float]:
        """precision@10 of validation pictures among training pictures, as serving will see both, by label column;
        what is kept has the best mean, since the vectors are to tell all of them apart."""
        rng = np.random.default_rng(self.parameters.seed)
        gallery = _sample(self.examples.train, VALIDATION_SIZE, rng)
        queries = _sample(self.examples.validation, VALIDATION_SIZE, rng)
        vectors = embed(self._averaged(), self.examples.pictures, np.concatenate([gallery, queries]), self.device)
        similarity = vectors[len(gallery) :] @ vectors[: len(gallery)].T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
        names = self.examples.labels.columns or ["touched together"]
        relevant = self._relevant(queries, gallery[nearest])
        return {name: float(each.mean()) for name, each in zip(names, relevant, strict=True)}

    def _relevant(self, queries: np.ndarray, answers: np.ndarray) -> list[np.ndarray]:
        """(n, k) bool for each label column: of the same value; without labels, touched by the same people."""
        codes, neighbours = self.examples.labels.codes, self.examples.neighbours
        if self.examples.labels.columns:
            known = [codes[queries, column] >= 0 for column in range(codes.shape[1])]
            return [
                codes[answers[mask], column] == codes[queries[mask], None, column] for column, mask in enumerate(known)
            ]
        if neighbours is None:
            return [np.zeros(answers.shape, bool)]
        return [(neighbours[queries][:, :, None] == answers[:, None, :]).any(axis=1)]

    def _checkpoint(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(), "average": self.average.state_dict(), "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "rng": self.rng.bit_generator.state,
            "epoch": self.epoch, "best": self.best, "since": self.epochs_since_best, "seconds": self.seconds,
            "curve": self.curve,
        }  # fmt: skip

    def resume(self) -> None:
        """Take up the checkpoint in the folder, if there is one."""
        place = self.folder / "checkpoint.pt"
        if not place.exists():
            return
        state = torch.load(place, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.rng.bit_generator.state = state["rng"]
        self.epoch, self.best = state["epoch"], state["best"]
        self.epochs_since_best, self.seconds, self.curve = state["since"], state["seconds"], state["curve"]
        say(f"encoder: resumed after epoch {self.epoch}")

    def finish(self) -> dict[str, Any]:
        """Take the best epoch's weights, fit the last layer anew, drop what only training needed."""
        score = self.best
        if self.rank == 0:
            self._averaged().load_state_dict(
                torch.load(self.folder / "best.pt", map_location=self.device, weights_only=True)["state"]
            )
            if last_layer.refit(
                self._averaged(), self.examples, steps=self.parameters.last_layer_steps, seed=self.parameters.seed
            ):
                found = self._validate()
                score = float(np.mean(list(found.values())))
                say(f"encoder: validation precision@10 {_told(found)} with the new last layer")
            _save({"state": self._averaged().state_dict()}, self.folder / "weights.pt")
            for name in ("best.pt", "checkpoint.pt"):
                (self.folder / name).unlink()
        if self.writer:
            self.writer.close()
        wait_for_all()
        took = round(self.seconds, 1)
        return {"precision_at_10": score, "epochs": self.epoch, "seconds": took, "curve": self.curve}


class _Embed(nn.Module):
    """Gives DistributedDataParallel the training entry of the network as its forward."""

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.embed(pixels)


@torch.inference_mode()
def embed(model: Embedder, pictures: Pictures, positions: np.ndarray, device: torch.device) -> np.ndarray:
    """Vectors of the pictures at these positions, as serving would see them: (n, dim) float32."""
    model.eval()
    parts = [
        model(pictures.centre(positions[start : start + 64]).to(device)).float().cpu().numpy()
        for start in range(0, len(positions), 64)
    ]
    return np.concatenate(parts)


def load(folder: Path, parameters: EncoderParameters) -> Embedder:
    """The trained network that `train` left in `folder`."""
    model = build(parameters.backbone, weights="none", dim=parameters.dim)
    model.load_state_dict(torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)["state"])
    return model.eval()


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def _sample(positions: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return positions if len(positions) <= size else rng.choice(positions, size, replace=False)


def _save(state: dict, path: Path) -> None:
    with replacing(path) as aside:
        torch.save(state, aside)
