"""Draw one garment: a silhouette in a colour and a pattern, lit, on a background. Pillow and numpy only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 256
SCALE = 1.5  # drawn larger, then reduced: smooth edges

Point = tuple[float, float]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (186, 52, 52), "coral": (232, 128, 104), "mustard": (214, 164, 58), "olive": (118, 124, 66),
    "green": (52, 118, 86), "teal": (38, 120, 128), "sky": (128, 178, 216), "navy": (42, 58, 104),
    "violet": (122, 92, 156), "pink": (226, 158, 180), "cream": (236, 224, 200), "charcoal": (66, 66, 72),
}  # fmt: skip
PATTERNS = ("plain", "stripes", "checks", "dots", "zigzag", "flowers")
BACKGROUNDS = ("studio", "wall", "wood", "linen", "sunlight")

# The right half of each silhouette, from the top of the middle line downwards; x is the distance from
# it, y runs down; the left half is its mirror image. Corners are rounded afterwards.
HALVES: dict[str, list[Point]] = {
    "t-shirt": [(0, -.62), (.16, -.72), (.34, -.68), (.86, -.34), (.70, -.06), (.46, -.22), (.46, .76), (0, .78)],
    "shirt": [(0, -.64), (.14, -.78), (.34, -.70), (.62, -.48), (.88, .46), (.70, .54), (.46, -.12), (.44, .80), (0, .84)],
    "jumper": [(0, -.60), (.18, -.72), (.40, -.64), (.66, -.40), (.84, .58), (.62, .64), (.48, -.02), (.50, .62), (.46, .74), (0, .74)],
    "coat": [(0, -.70), (.16, -.84), (.38, -.74), (.62, -.52), (.84, .44), (.66, .50), (.50, -.06), (.58, .92), (0, .94)],
    "dress": [(0, -.60), (.12, -.62), (.20, -.88), (.28, -.88), (.30, -.52), (.26, -.12), (.40, .24), (.66, .88), (.30, .94), (0, .95)],
    "skirt": [(0, -.56), (.34, -.56), (.36, -.42), (.56, .10), (.74, .66), (.36, .74), (0, .76)],
    "trousers": [(0, -.86), (.36, -.86), (.38, -.70), (.46, -.10), (.44, .90), (.14, .90), (.06, -.26), (0, -.34)],
    "shorts": [(0, -.52), (.40, -.52), (.42, -.38), (.60, .44), (.14, .52), (.05, .06), (0, .0)],
    "bag": [(0, -.12), (.54, -.12), (.62, .0), (.70, .66), (.60, .76), (0, .76)],
    "hat": [(0, -.46), (.24, -.48), (.40, -.30), (.44, .10), (.86, .26), (.84, .36), (.40, .42), (0, .44)],
    "scarf": [(0, -.62), (.22, -.66), (.40, -.48), (.30, -.22), (.24, .0), (.30, .84), (.06, .86), (.02, -.08), (0, -.10)],
    "shoes": [(.06, -.30), (.20, -.40), (.44, -.36), (.52, -.06), (.50, .34), (.40, .58), (.22, .58), (.10, .36), (.06, .0)],
}  # fmt: skip
CATEGORIES = tuple(HALVES)


@dataclass(frozen=True, slots=True)
class Garment:
    """What is drawn, and how it was photographed."""

    category: str
    colour: str
    pattern: str
    background: str
    scale: float  # 0.6 to 0.95 of the picture
    angle: float  # degrees
    light: float  # 0.75 to 1.15
    seed: int


def draw(garment: Garment) -> Image.Image:
    """The picture: SIZE x SIZE RGB, the same for the same garment."""
    rng = np.random.default_rng(garment.seed)
    side = int(SIZE * SCALE)
    mask = _silhouette(garment, side, rng)
    cloth = _cloth(garment, side, rng)
    cloth = _shade(cloth, mask, side, rng)
    cloth = _details(cloth, garment, side)
    mask = mask.rotate(garment.angle, Image.Resampling.BILINEAR)
    cloth = cloth.rotate(garment.angle, Image.Resampling.BILINEAR)
    picture = _background(garment.background, side, rng)
    picture = _shadow(picture, mask, side)
    picture = Image.composite(cloth, picture, mask)
    picture = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return _lit(picture, garment.light, rng)


def _place(garment: Garment, side: int) -> tuple[float, float]:
    return side / 2, side / 2 * garment.scale * 0.98


def _silhouette(garment: Garment, side: int, rng: np.random.Generator) -> Image.Image:
    """The garment's shape, each a little different, as a mask."""
    middle, unit = _place(garment, side)
    half = np.array(HALVES[garment.category]) * [rng.uniform(0.92, 1.08), rng.uniform(0.95, 1.05)]
    half += rng.normal(0, 0.012, half.shape) * (half[:, :1] > 0.01)
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if garment.category == "shoes":  # two closed shapes rather than one symmetrical one
        outlines = [half, half * [-1, 1]]
    else:
        outlines = [np.concatenate([half, (half * [-1, 1])[::-1]])]
    for outline in outlines:
        pen.polygon([(middle + x * unit, middle + y * unit) for x, y in _rounded(outline)], fill=255)
    if garment.category == "bag":
        reach, top = 0.32 * unit, middle - 0.62 * unit
        width = max(6, int(0.055 * unit))
        pen.arc([middle - reach, top, middle + reach, middle + 0.30 * unit], 180, 360, fill=255, width=width)
    return mask.filter(ImageFilter.GaussianBlur(1.0))


def _rounded(outline: np.ndarray, times: int = 3) -> np.ndarray:
    """Chaikin's corner cutting (1974) of a closed outline, with a light touch."""
    for _ in range(times):
        following = np.roll(outline, -1, axis=0)
        cut = np.stack([0.86 * outline + 0.14 * following, 0.14 * outline + 0.86 * following], axis=1)
        outline = cut.reshape(-1, 2)
    return outline


def _cloth(garment: Garment, side: int, rng: np.random.Generator) -> Image.Image:
    """A square of the fabric."""
    base = np.array(COLOURS[garment.colour], np.float32) + rng.normal(0, 6, 3)
    bright = base.mean() > 150
    other = base * 0.45 if bright else base + (255 - base) * 0.72
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    period = rng.uniform(0.055, 0.09) * garment.scale
    where = _pattern(garment.pattern, x, y, period, rng)
    cloth = base + (other - base) * where[:, :, None]
    weave = rng.normal(0, 3.5, (side, side, 1))
    return Image.fromarray(np.clip(cloth + weave, 0, 255).astype(np.uint8))


def _pattern(name: str, x: np.ndarray, y: np.ndarray, period: float, rng: np.random.Generator) -> np.ndarray:
    """How much of the second colour lies at each place, 0 to 1."""
    if name == "stripes":
        return _band(y, period, 0.45)
    if name == "checks":
        return 0.5 * _band(x, 1.4 * period, 0.5) + 0.5 * _band(y, 1.4 * period, 0.5)
    if name == "zigzag":
        tooth = np.abs((x / (1.5 * period)) % 1 - 0.5) * 1.5 * period
        return _band(y + tooth, 1.1 * period, 0.42)
    if name == "dots":
        return _blobs(x, y, 1.15 * period, lambda dx, dy: 0.27 - np.hypot(dx, dy))
    if name == "flowers":
        turn = rng.uniform(0, np.pi)
        return _blobs(
            x, y, 1.9 * period,
            lambda dx, dy: 0.20 + 0.13 * np.cos(5 * np.arctan2(dy, dx) + turn) - np.hypot(dx, dy),
        )  # fmt: skip
    return np.zeros_like(x)


def _band(along: np.ndarray, period: float, share: float) -> np.ndarray:
    return (((along / period) % 1) < share).astype(float)


def _blobs(x, y, period, inside) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The same blob in every cell of a grid, rows offset by half a cell."""
    row = np.floor(y / period)
    dx = (x / period + 0.5 * (row % 2)) % 1 - 0.5
    dy = (y / period) % 1 - 0.5
    return np.clip(inside(dx, dy) * 30, 0, 1)


def _smooth_noise(side: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) noise from -1 to 1 that varies over side / cells."""
    coarse = Image.fromarray(rng.uniform(0, 255, (cells, cells)).astype(np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def _shade(cloth: Image.Image, mask: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """Folds, and darker towards the edges, as cloth that lies or hangs."""
    depth = np.asarray(mask.filter(ImageFilter.GaussianBlur(side / 28)), np.float32) / 255
    folds = 0.075 * _smooth_noise(side, 7, rng) + 0.05 * _smooth_noise(side, 15, rng)
    light = 0.70 + 0.34 * np.clip(depth * 1.25 - 0.2, 0, 1) + folds
    return Image.fromarray(np.clip(np.asarray(cloth, np.float32) * light[:, :, None], 0, 255).astype(np.uint8))


class _Needle:
    """Draws seams, mirrored about the middle of a garment, on a grey overlay."""

    def __init__(self, garment: Garment, side: int) -> None:
        self._middle, self._unit = _place(garment, side)
        self.overlay = Image.new("L", (side, side), 128)
        self._pen = ImageDraw.Draw(self.overlay)
        self._width = max(2, int(self._unit * 0.014))

    def line(self, *points: Point, shade: int = 80) -> None:
        middle, unit = self._middle, self._unit
        for sign in (1, -1):
            ends = [(middle + sign * x * unit, middle + y * unit) for x, y in points]
            self._pen.line(ends, fill=shade, width=self._width)

    def dot(self, x: float, y: float, radius: float, shade: int = 235) -> None:
        cx, cy, r = self._middle + x * self._unit, self._middle + y * self._unit, radius * self._unit
        self._pen.ellipse([cx - r, cy - r, cx + r, cy + r], fill=shade)


def _details(cloth: Image.Image, garment: Garment, side: int) -> Image.Image:
    """Seams, collars, buttons and bands: what tells a shirt from a jumper at a glance."""
    needle = _Needle(garment, side)
    line, dot, category = needle.line, needle.dot, garment.category
    _details_above(line, dot, category)
    _details_below(line, dot, category)
    lifted = np.asarray(needle.overlay.filter(ImageFilter.GaussianBlur(0.8)), np.float32)[:, :, None] / 128
    return Image.fromarray(np.clip(np.asarray(cloth, np.float32) * lifted, 0, 255).astype(np.uint8))


def _details_above(line: Callable[..., None], dot: Callable[..., None], category: str) -> None:
    if category in ("t-shirt", "jumper"):
        line((0, -0.48), (0.10, -0.54), (0.18, -0.70))
        line((0.46, -0.22), (0.40, -0.62), shade=95)
    if category in ("shirt", "coat"):
        line((0, -0.48), (0.20, -0.60), (0.14, -0.76))
        line((0.005, -0.48), (0.005, 0.82))
        for y in np.arange(-0.34, 0.75, 0.2 if category == "shirt" else 0.3):
            dot(0.05 if category == "shirt" else 0.12, float(y), 0.022 if category == "shirt" else 0.04)
    if category == "coat":
        line((0.20, 0.34), (0.42, 0.30))
        line((0, -0.30), (0.26, -0.52), (0.20, -0.66))
    if category == "jumper":
        for y in (0.60, 0.64, 0.68):
            line((0, y), (0.50, y), shade=100)
    if category == "dress":
        line((0, -0.13), (0.27, -0.13))
        line((0.12, 0.0), (0.24, 0.86), shade=100)


def _details_below(line: Callable[..., None], dot: Callable[..., None], category: str) -> None:
    if category == "skirt":
        line((0, -0.44), (0.36, -0.44))
        for x in (0.10, 0.24):
            line((x, -0.40), (x * 1.9, 0.70), shade=95)
    if category in ("trousers", "shorts"):
        top = -0.74 if category == "trousers" else -0.40
        line((0, top), (0.40, top))
        line((0.004, top), (0.004, top + 0.34))
        line((0.34, top + 0.04), (0.22, top + 0.26), shade=95)
        dot(0, top - 0.06, 0.024)
    if category == "bag":
        line((0, 0.16), (0.63, 0.16))
        line((0.02, -0.10), (0.02, 0.14), shade=90)
        dot(0, 0.18, 0.05)
    if category == "hat":
        line((0, 0.09), (0.44, 0.09), shade=40)
        line((0, 0.13), (0.45, 0.13), shade=40)
    if category == "scarf":
        line((0, -0.12), (0.26, -0.16))
        for x in np.arange(0.06, 0.30, 0.05):
            line((float(x), 0.76), (float(x) + 0.01, 0.86), shade=60)
    if category == "shoes":
        line((0.08, 0.40), (0.28, 0.50), (0.48, 0.40))
        for y in (-0.22, -0.12, -0.02, 0.08):
            line((0.18, y), (0.42, y + 0.02), shade=225)


def _background(name: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Where the garment lies or hangs."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if name == "studio":
        tone = 236 + 14 * (1 - np.hypot(x - 0.5, y - 0.42))
        ground = np.stack([tone, tone, tone + 2], axis=2)
    elif name == "wall":
        tint = np.array([[214, 206, 196], [196, 208, 204], [222, 204, 200], [202, 204, 216]])[rng.integers(4)]
        floor = np.where(y > rng.uniform(0.78, 0.86), 0.84, 1.0)
        ground = tint * (floor * (1.03 - 0.12 * y))[:, :, None]
    elif name == "wood":
        planks = np.floor(x * rng.integers(4, 7))
        tone = 1 + 0.05 * np.sin(planks * 37.0) + 0.035 * _smooth_noise(side, 5, rng)
        grain = 0.035 * np.sin(90 * x + 7 * _smooth_noise(side, 6, rng))
        ground = np.array([196, 160, 122]) * (tone + grain)[:, :, None]
    elif name == "linen":
        weave = 4 * np.sin(x * side * 0.9) + 4 * np.sin(y * side * 0.9)
        ground = np.array([222, 212, 194]) + (weave + 8 * _smooth_noise(side, 6, rng))[:, :, None]
    else:
        window = np.clip(np.sin((x + 0.55 * y) * 9 + rng.uniform(0, 6)) * 3, 0, 1)
        ground = np.array([206, 196, 184]) + np.array([38, 30, 12]) * window[:, :, None]
    return Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))


def _shadow(picture: Image.Image, mask: Image.Image, side: int) -> Image.Image:
    soft = ImageChops.offset(mask, side // 70, side // 45).filter(ImageFilter.GaussianBlur(side / 55))
    dark = Image.fromarray((np.asarray(picture) * 0.62).astype(np.uint8))
    return Image.composite(dark, picture, soft)


def _lit(picture: Image.Image, light: float, rng: np.random.Generator) -> Image.Image:
    """Exposure, a warm or cold lamp, and light that falls from one side."""
    side = picture.width
    x = np.linspace(-1, 1, side)
    fall = 1 + 0.10 * rng.uniform(-1, 1) * x[None, :] + 0.06 * rng.uniform(-1, 1) * x[:, None]
    lamp = 1 + rng.uniform(-0.05, 0.05) * np.array([1, 0, -1])
    lit = np.asarray(picture, np.float32) * light * fall[:, :, None] * lamp + rng.normal(0, 2, (side, side, 1))
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
