"""Bytes of a picture -> 224 x 224 RGB, uint8: the one function that training and serving share.

However large a picture is, decoding it takes at most `MEMORY` beyond its bytes: a JPEG is scaled while it is decoded,
and what is larger than a decoder can hold in that is refused by its header.
"""

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from service.encoder.colour import AS_STORED, SRGB
from service.encoder.decoding import Box, Picture
from service.errors import BadQuery, shown

MAX_PIXELS = 50_000_000
# Our own limit is checked on the header, before anything is decoded; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None
# Requests run side by side, a core each.
cv2.setNumThreads(1)
pillow_heif.options.DECODE_THREADS = 1


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels reach the encoder. Recorded in the manifest, because vectors are comparable only under one.

    colour: sRGB: a picture's own profile is converted to it; as stored: no profile is looked at, as before 0.2."""

    shorter_side: int = 256
    crop: int = 224
    resample: str = "area, bilinear"  # where it shrinks, where it enlarges
    colour: str = SRGB

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """What a manifest holds. Raises TypeError, ValueError where it names what this code does not do."""
        read = cls(**{"colour": AS_STORED, **values})
        done = (PREPROCESSING.shorter_side, PREPROCESSING.crop)
        if (read.shorter_side, read.crop) != done or read.colour not in (SRGB, AS_STORED):
            raise ValueError(f"preprocessing {values} is not what this code does; expected {asdict(PREPROCESSING)}")
        return read


PREPROCESSING = Preprocessing()


def decode(
    data: bytes,
    *,
    box: Box | None = None,
    max_pixels: int = MAX_PIXELS,
    preprocessing: Preprocessing = PREPROCESSING,
) -> np.ndarray:
    """Decode one picture.

    The EXIF orientation is applied, the colour profile converted to sRGB, transparency laid over white, the result cut
    to `box` (left, top, right, bottom as fractions of the upright picture), its shorter side scaled to `shorter_side`,
    and the centre `crop` x `crop` taken.

    Returns (crop, crop, 3) uint8 RGB. Raises UnsupportedMedia, UnreadablePicture, TooLarge, BadQuery.
    """
    side = min(box[2] - box[0], box[3] - box[1]) if box else 1.0
    picture = Picture.open(data, needed=preprocessing.shorter_side / max(side, 1e-3), max_pixels=max_pixels)
    area = picture.centre(box, preprocessing.crop / preprocessing.shorter_side)
    # shrinking by whole numbers goes strip by strip; OpenCV does the rest in a tenth of Pillow's time
    pixels = picture.pixels(area, (area[2] - area[0]) // (2 * preprocessing.crop))
    how = cv2.INTER_AREA if len(pixels) > preprocessing.crop else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (preprocessing.crop, preprocessing.crop), interpolation=how)
    return picture.finish(resized, colour=preprocessing.colour)


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
    """A small upright JPEG of the picture in sRGB, the same bytes for the same input."""
    picture = Picture.open(data, needed=longest_side, max_pixels=MAX_PIXELS)
    width, height = picture.size
    pixels = picture.pixels((0, 0, width, height), max(width, height) // (2 * longest_side))
    upright = Image.fromarray(picture.finish(pixels))
    upright.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    upright.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
