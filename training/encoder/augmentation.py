"""Augmentation of a whole batch at once, on whatever device it lies: crop, turn, flip, colour, blur, erase."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(pixels: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """pixels: (n, side, side, 3) uint8 -> (n, 3, size, size) float, 0 to 255, each picture varied by its own draw.

    The generator lives on the CPU, so that every device draws the same variations."""
    images = pixels.permute(0, 3, 1, 2).float().contiguous()
    images = _crop_turn_flip(images, size, generator)
    images = _vary_colour(images, generator)
    images = _blur(images, generator)
    return _erase(images, generator).contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _crop_turn_flip(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random part of 40 to 100 % of the area, turned by up to 12 degrees, mirrored half of the time."""
    n = len(images)
    area = _uniform(n, 0.4, 1.0, generator)
    aspect = torch.exp(_uniform(n, math.log(3 / 4), math.log(4 / 3), generator))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x = (1 - width) * _uniform(n, -1, 1, generator)
    y = (1 - height) * _uniform(n, -1, 1, generator)
    angle = math.radians(12) * _uniform(n, -1, 1, generator)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([width * torch.cos(angle) * mirror, -height * torch.sin(angle), x], dim=1),
        torch.stack([width * torch.sin(angle) * mirror, height * torch.cos(angle), y], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).to(images.device)
    grid = functional.affine_grid(matrices, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _vary_colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation by up to 30 %, and a slight cast as of another lamp."""
    n = len(images)
    brightness, contrast, saturation = (
        _uniform(n, 0.7, 1.3, generator).view(n, 1, 1, 1).to(images.device) for _ in range(3)
    )
    cast = _uniform(n * 3, 0.93, 1.07, generator).view(n, 3, 1, 1).to(images.device)
    images = images * brightness * cast
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    return (middle + (images - middle) * contrast).clamp(0, 255)


def _blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """One picture in ten slightly out of focus."""
    chosen = (torch.rand(len(images), generator=generator) < 0.1).nonzero()[:, 0].to(images.device)
    if not len(chosen):
        return images
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    window = (kernel[:, None] * kernel).expand(3, 1, 5, 5)
    padded = functional.pad(images[chosen], (2, 2, 2, 2), mode="reflect")
    return images.index_copy(0, chosen, functional.conv2d(padded, window, groups=3))


def _erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """A grey rectangle over every fourth picture, so that no single detail decides."""
    n, _, size, _ = images.shape
    side = (_uniform(n, 0.15, 0.4, generator) * size).view(n, 1)
    left, top = (_uniform(n, 0, 1, generator).view(n, 1) * (size - side) for _ in range(2))
    erased = (torch.rand(n, generator=generator) < 0.25).view(n, 1)
    across = torch.arange(size).view(1, size)
    columns = (across >= left) & (across < left + side) & erased
    rows = (across >= top) & (across < top + side)
    mask = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
    return images.masked_fill(mask, 127.0)


def strangers(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Pictures of nothing that a catalogue holds, as many as `images`: shuffled patches of them, noise of all
    scales, flat tones and gradients, waves. (n, 3, size, size) float, 0 to 255, in turn."""
    draw = (_shuffled, _noise, _gradient, _waves)
    made = [draw[at % len(draw)](image, generator) for at, image in enumerate(images)]
    return torch.stack(made).to(images.device).contiguous(memory_format=torch.channels_last)


def _shuffled(image: Tensor, generator: torch.Generator) -> Tensor:
    """The picture cut into 4 x 4 to 8 x 8 patches in another order."""
    parts = int(torch.randint(4, 9, (), generator=generator))
    side = image.shape[-1] // parts
    patches = image[:, : parts * side, : parts * side].reshape(3, parts, side, parts, side)
    patches = patches.permute(1, 3, 0, 2, 4).reshape(parts * parts, 3, side, side)
    patches = patches[torch.randperm(len(patches), generator=generator).to(image.device)]
    whole = patches.reshape(parts, parts, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, parts * side, parts * side)
    return functional.interpolate(whole[None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0]


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Independent colours on a grid of 3 cells to single pixels."""
    size = image.shape[-1]
    cells = int(torch.exp(_uniform(1, math.log(3), math.log(size), generator)))
    coarse = torch.rand(1, 3, cells, cells, generator=generator) * 255
    mode = "nearest" if torch.rand((), generator=generator) < 0.5 else "bicubic"
    fine = functional.interpolate(coarse, size=(size, size), mode=mode)[0].clamp(0, 255)
    return fine.to(image.device)


def _gradient(image: Tensor, generator: torch.Generator) -> Tensor:
    """From one colour to another, or none but one, black and white among them."""
    size = image.shape[-1]
    start, end = torch.rand(2, 3, 1, 1, generator=generator) * 255
    kind = int(torch.randint(0, 4, (), generator=generator))
    if kind == 0:
        end = start
    elif kind == 1:
        start = end = torch.full((3, 1, 1), 255.0 * float(torch.randint(0, 2, (), generator=generator)))
    angle = float(_uniform(1, 0, 2 * math.pi, generator))
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    along = ((x * math.cos(angle) + y * math.sin(angle)) / 2 + 0.5).clamp(0, 1)
    return (start + (end - start) * along).to(image.device)


def _waves(image: Tensor, generator: torch.Generator) -> Tensor:
    """Stripes, rings or a checkerboard of two colours over the whole picture."""
    size = image.shape[-1]
    start, end = torch.rand(2, 3, 1, 1, generator=generator) * 255
    period = float(torch.exp(_uniform(1, math.log(0.02), math.log(0.4), generator)))
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    shapes = (x, x * 0.7 + y * 0.7, torch.hypot(x, y))
    kind = int(torch.randint(0, len(shapes) + 1, (), generator=generator))
    if kind < len(shapes):
        wave = 0.5 + 0.5 * torch.sin(2 * math.pi * shapes[kind] / period)
    else:
        wave = ((torch.floor(x / period) + torch.floor(y / period)) % 2).abs()
    return (start + (end - start) * wave).to(image.device)
