"""The network: any torchvision classifier, or our small `convnet`, ending in a unit vector."""

from pathlib import Path

import torch
from torch import Tensor, nn

from service.errors import CatalogueError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Embedder(nn.Module):
    """uint8 pictures (n, height, width, 3) -> float32 unit vectors (n, dim). Normalisation is inside."""

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """(n, height, width, 3) uint8 -> (n, dim)."""
        return self.embed(images.permute(0, 3, 1, 2).float())

    def embed(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) float, 0 to 255, as augmentation leaves them -> (n, dim)."""
        outputs = self.backbone((pixels - self.mean) * self.scale)
        logits = getattr(outputs, "logits", outputs)  # inception and googlenet wrap theirs while training
        return nn.functional.normalize(logits.float(), dim=1)

    @property
    def projection(self) -> nn.Linear | None:
        """The last layer, or None where that is not a linear one (squeezenet's is a convolution)."""
        _, last = _last_layer(self.backbone)
        return last if isinstance(last, nn.Linear) else None


class ConvNet(nn.Module):
    """Three blocks of two convolutions, 64-128-256, behind a stride-2 stem and a pooling: a unit of the last
    block sees 173 of 224 pixels, a whole garment. Trains from nothing on two cores."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 32, stride=2),
            nn.MaxPool2d(2),
            *_block(32, 64),
            *_block(64, 128),
            *_block(128, 256),
        )
        self.head = nn.Linear(256, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.features(pixels)
        return self.head(features.mean(dim=(2, 3)))


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [*_convolution(inputs, outputs, stride=2), *_convolution(outputs, outputs)]


def build(name: str, *, weights: str, dim: int) -> Embedder:
    """Make the network `name` with `weights`: `imagenet` (torchvision's own), `none`, or a path to a
    state dict (.pt, .pth) or a .safetensors file. Raises CatalogueError for what does not exist or fit."""
    if name == "convnet":
        backbone: nn.Module = ConvNet(dim)
        if weights == "imagenet":
            raise CatalogueError("convnet has no ImageNet weights; train it from nothing: --weights none")
    else:
        import torchvision  # which takes seconds, and which convnet does without

        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise CatalogueError(f"unknown backbone {name!r}; expected convnet or one of {', '.join(known)}")
        backbone = _torchvision_model(name, weights)
        _replace_classifier(backbone, dim)
    if weights not in ("imagenet", "none"):
        load_weights(backbone, Path(weights))
    return Embedder(backbone).to(memory_format=torch.channels_last)


def _torchvision_model(name: str, weights: str) -> nn.Module:
    import torchvision

    if weights != "imagenet":
        return torchvision.models.get_model(name, weights=None)
    try:
        return torchvision.models.get_model(name, weights="DEFAULT")
    except OSError as error:
        raise CatalogueError(
            f"torchvision could not fetch the ImageNet weights of {name} ({error}); "
            "give a file instead (--weights FILE), or train from nothing (--weights none)"
        ) from error


def _last_layer(backbone: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the last linear layer, or of the last convolution where there is none."""
    for kind in (nn.Linear, nn.Conv2d):
        layers = [(path, layer) for path, layer in backbone.named_modules() if isinstance(layer, kind)]
        if layers:
            return layers[-1]
    raise CatalogueError(f"{type(backbone).__name__} has no linear layer to replace; choose another --backbone")


def _replace_classifier(backbone: nn.Module, dim: int) -> None:
    """Put a projection to `dim` where the last layer was."""
    path, last = _last_layer(backbone)
    projection: nn.Module
    if isinstance(last, nn.Linear):
        projection = nn.Linear(last.in_features, dim)
    else:
        assert isinstance(last, nn.Conv2d)
        projection = nn.Conv2d(last.in_channels, dim, kernel_size=1)
    setattr(backbone.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], projection)


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Load a state dict into the backbone. The classifier may be missing or of another size; nothing else may."""
    if not path.is_file():
        raise CatalogueError(f"--weights {path}: no such file; expected `imagenet`, `none` or a file of weights")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    own = backbone.state_dict()
    fits = {key: value.float() for key, value in state.items() if key in own and value.shape == own[key].shape}
    head = {name for name, _ in list(backbone.named_parameters())[-2:]}
    missing = [key for key in own if key not in fits and key not in head and not key.endswith("num_batches_tracked")]
    if missing:
        raise CatalogueError(
            f"{path.name} does not fit this backbone: {len(missing)} tensors are missing or of another shape, "
            f"the first is {missing[0]} {tuple(own[missing[0]].shape)}"
        )
    backbone.load_state_dict(fits, strict=False)


@torch.no_grad()
def restore_batch_norm(model: Embedder, pixels: Tensor) -> int:
    """Give folded batch norms their statistics back, without changing what the network computes.

    Weights from inference files come with batch norm folded into the convolutions: mean 0, variance 1.
    In training mode such a layer would normalise activations that it never normalised, and the
    pretrained function would be lost. Measuring what goes in, and moving it into the affine part, keeps it.

    pixels: (n, 3, height, width), 0 to 255. Returns how many layers were restored.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    folded = [n for n in norms if n.running_mean is not None and not n.running_mean.any() and _is_one(n.running_var)]
    statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        statistics[layer] = (inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3)))

    hooks = [norm.register_forward_pre_hook(measure) for norm in folded]
    model.eval().embed(pixels)
    for hook in hooks:
        hook.remove()
    for norm in folded:
        mean, variance = statistics[norm]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        before = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_(before * mean)
        norm.weight.copy_(before * torch.sqrt(variance + norm.eps))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return len(folded)


def _is_one(variance: Tensor | None) -> bool:
    return variance is not None and bool((variance == 1).all())
