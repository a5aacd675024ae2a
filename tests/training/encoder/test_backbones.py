"""Any torchvision classifier becomes an embedder; folded batch norms get their statistics back."""

from pathlib import Path

import pytest
import torch
from torch import nn

from service.errors import CatalogueError
from training.encoder.backbones import build, restore_batch_norm


@pytest.mark.parametrize("name", ["convnet", "mobilenet_v2", "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_backbone_gives_unit_vectors_of_dim(name: str) -> None:
    """uint8 pictures in, (n, dim) of length 1 out."""
    vectors = build(name, weights="none", dim=24).eval()(torch.zeros(2, 64, 64, 3, dtype=torch.uint8) + 90)
    assert vectors.shape == (2, 24)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_restoring_batch_norm_keeps_the_function() -> None:
    """With identity statistics before, measured ones after, and the same vectors from both."""
    torch.manual_seed(0)
    model = build("convnet", weights="none", dim=8)
    pixels = torch.rand(16, 3, 64, 64) * 255
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    with torch.no_grad():
        before = model.eval().embed(pixels)
        assert restore_batch_norm(model, pixels) == 7
        after = model.eval().embed(pixels)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)
    assert all(layer.running_mean.any() for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_weights_come_from_a_file_without_the_classifier(tmp_path: Path) -> None:
    """A state dict of another head is taken over but for the head; one of another network is refused."""
    torch.save(build("convnet", weights="none", dim=5).backbone.state_dict(), tmp_path / "weights.pt")
    loaded = build("convnet", weights=str(tmp_path / "weights.pt"), dim=9)
    kept = torch.load(tmp_path / "weights.pt", weights_only=True)
    torch.testing.assert_close(loaded.backbone.state_dict()["features.0.weight"], kept["features.0.weight"])
    with pytest.raises(CatalogueError, match="does not fit this backbone"):
        build("resnet18", weights=str(tmp_path / "weights.pt"), dim=9)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [("resnet1", "none", "unknown backbone 'resnet1'"), ("convnet", "imagenet", "no ImageNet weights"),
     ("convnet", "/no/such.pt", "no such file")],
)  # fmt: skip
def test_what_does_not_exist_is_refused(name: str, weights: str, message: str) -> None:
    """The error says what there is."""
    with pytest.raises(CatalogueError, match=message):
        build(name, weights=weights, dim=8)
