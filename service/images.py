"""Bytes of a picture -> 224 x 224 RGB, uint8: the one function that training and serving share."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps

from service.errors import BadQuery, TooLarge, UnreadablePicture, UnsupportedMedia, shown

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 50_000_000

Box = tuple[float, float, float, float]

# Our own limit is checked on the header, before anything is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None
# Requests run side by side, a core each.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels reach the encoder. Recorded in the manifest, because vectors are comparable only under one."""

    shorter_side: int = 256
    crop: int = 224
    resample: str = "area, bilinear"  # where it shrinks, where it enlarges


PREPROCESSING = Preprocessing()


def decode(
    data: bytes,
    *,
    box: Box | None = None,
    max_pixels: int = MAX_PIXELS,
    preprocessing: Preprocessing = PREPROCESSING,
) -> np.ndarray:
    """Decode one picture.

    The EXIF orientation is applied, transparency is laid over white, the result cut to `box`
    (left, top, right, bottom as fractions of the upright picture), its shorter side scaled to
    `shorter_side`, and the centre `crop` x `crop` taken.

    Returns (crop, crop, 3) uint8 RGB. Raises UnsupportedMedia, UnreadablePicture, TooLarge, BadQuery.
    """
    image = _open(data, max_pixels=max_pixels)
    # The decoder may scale by 1/2, 1/4, 1/8 while it decodes, so long as enough pixels for the crop remain.
    shrink = min(box[2] - box[0], box[3] - box[1]) if box else 1.0
    needed = int(np.ceil(preprocessing.shorter_side / max(shrink, 1e-3)))
    image.draft("RGB", (needed, needed))
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        upright = to_rgb(image)
        return _cut(upright, box, preprocessing)
    except BadQuery:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, zlib.error, ...
        raise UnreadablePicture(
            f"the picture cannot be decoded ({error}); expected a whole JPEG, PNG, WebP or GIF: send the file again",
            field="image",
        ) from error


def decode_all(pictures: Iterable[bytes], *, preprocessing: Preprocessing = PREPROCESSING) -> np.ndarray:
    """Decode several pictures into one batch: (n, crop, crop, 3) uint8."""
    size = preprocessing.crop
    batch = [decode(data, preprocessing=preprocessing) for data in pictures]
    return np.stack(batch) if batch else np.empty((0, size, size, 3), np.uint8)


def check_box(box: object) -> Box:
    """Validate a box: four numbers, 0 <= left < right <= 1 and 0 <= top < bottom <= 1. Raises BadQuery."""
    expected = "box must be [left, top, right, bottom] as fractions of the picture, left < right and top < bottom"
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise BadQuery(f"{expected}; got {shown(box)}", field="box")
    if not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in box):
        raise BadQuery(f"{expected}; got {shown(box)}", field="box")
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadQuery(f"{expected}; got {shown(box)}", field="box")
    return float(left), float(top), float(right), float(bottom)


def thumbnail(data: bytes, *, longest_side: int = 256, quality: int = 82) -> bytes:
    """A small upright JPEG of the picture, the same bytes for the same input."""
    image = _open(data, max_pixels=MAX_PIXELS)
    image.draft("RGB", (longest_side, longest_side))
    try:
        ImageOps.exif_transpose(image, in_place=True)
        upright = to_rgb(image)
    except Exception as error:
        raise UnreadablePicture(f"the picture cannot be decoded ({error})", field="image") from error
    upright.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    upright.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB: 16 bits scaled rather than clipped, transparency over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # convert("RGB") would clip 16-bit greys to white; keep their upper byte
        grey = np.asarray(image).astype(np.float64) / 257.0
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _open(data: bytes, *, max_pixels: int) -> Image.Image:
    if not data:
        raise UnreadablePicture("the picture is empty (0 bytes); send a JPEG, PNG, WebP or GIF", field="image")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        if _looks_like_a_picture(data):
            raise UnreadablePicture(
                "the picture's header cannot be read; expected a whole JPEG, PNG, WebP or GIF: send the file again",
                field="image",
            ) from error
        raise UnsupportedMedia(
            f"not a picture that we read: expected JPEG, PNG, WebP or GIF, got {len(data)} bytes "
            f"that begin with {data[:12]!r}",
            field="image",
        ) from error
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLarge(
            f"the picture has {pixels / 1e6:.1f} megapixels ({image.width} x {image.height}); "
            f"at most {max_pixels / 1e6:g} are accepted: scale it down",
            field="image",
        )
    return image


def _looks_like_a_picture(data: bytes) -> bool:
    signatures = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
    return data.startswith(signatures) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _cut(image: Image.Image, box: Box | None, preprocessing: Preprocessing) -> np.ndarray:
    left, top, right, bottom = box or (0.0, 0.0, 1.0, 1.0)
    left, right = left * image.width, right * image.width
    top, bottom = top * image.height, bottom * image.height
    # Scaling the shorter side to 256 and taking the centre 224 is one resize of the centre 224/256 of it.
    side = max(1, round(min(right - left, bottom - top) * preprocessing.crop / preprocessing.shorter_side))
    x = min(round((left + right - side) / 2), image.width - side)
    y = min(round((top + bottom - side) / 2), image.height - side)
    square = (x, y, x + side, y + side)
    # Pillow shrinks by whole numbers before anything is copied; OpenCV does the rest in a tenth of Pillow's time
    shrink = side // (2 * preprocessing.crop)
    pixels = np.asarray(image.reduce(shrink, square) if shrink > 1 else image.crop(square))
    how = cv2.INTER_AREA if len(pixels) > preprocessing.crop else cv2.INTER_LINEAR
    return cv2.resize(pixels, (preprocessing.crop, preprocessing.crop), interpolation=how)
