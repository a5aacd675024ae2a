"""Colour profiles -> sRGB."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SRGB, AS_STORED = "sRGB", "as stored"


def to_srgb(pixels: np.ndarray, profile: bytes | None, channels: str) -> np.ndarray:
    """(rows, columns, 3 or 4) uint8 in the colours of the profile -> sRGB. A profile that cannot be used is not."""
    transform = _transform(profile, channels) if profile else None
    if transform is not None:
        image = _image(pixels[..., 0] if channels == "L" else pixels, channels)
        return np.asarray(ImageCms.applyTransform(image, transform))
    return np.asarray(_image(pixels, channels).convert("RGB")) if channels == "CMYK" else pixels


def _image(pixels: np.ndarray, channels: str) -> Image.Image:
    return Image.frombytes(channels, pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())


@lru_cache(maxsize=16)
def _transform(profile: bytes, channels: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile to sRGB; None where it is sRGB itself, is of other channels, or is damaged."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), channels, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if channels == "RGB":
        cube = np.mgrid[0:256:17, 0:256:17, 0:256:17].reshape(3, -1).T.astype(np.uint8)[None]
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform))
        if np.abs(moved.astype(int) - cube).max() <= 2:  # rounding
            return None
    return transform
