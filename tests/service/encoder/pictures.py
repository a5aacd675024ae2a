"""Pictures whose colours are known, as files of several kinds."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image

from service.encoder import preprocessing

RED, GREEN = (200, 30, 40), (20, 160, 60)


def halves(size: tuple[int, int] = (320, 320)) -> Image.Image:
    """Red above, green below."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (0, size[1] // 2, size[0], size[1]))
    return image


def assert_red_above_green(data: bytes, tolerance: int = 10) -> None:
    pixels = preprocessing.decode(data)
    np.testing.assert_allclose(pixels[:80].mean(axis=(0, 1)), RED, atol=tolerance)
    np.testing.assert_allclose(pixels[-80:].mean(axis=(0, 1)), GREEN, atol=tolerance)


def with_chunk(png: bytes, kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    """A PNG with one more chunk after its header."""
    check = zlib.crc32(kind + body) if crc is None else crc
    return png[:33] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check) + png[33:]


def rgb_profile(red: tuple, green: tuple, blue: tuple, gamma: float) -> bytes:
    """An ICC profile (version 2) of these primaries, XYZ adapted to D50, and this gamma."""

    def xyz(values: tuple) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    text = b"made for a test\0"
    parts = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78, b"cprt": b"text\0\0\0\0" + text,
        b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, body, at = struct.pack(">I", len(parts)), b"", 128 + 4 + 12 * len(parts)
    for tag, content in parts.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", tag, at + len(body), len(content))
        body += padded
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


# primaries adapted to D50 (Bradford); curves as plain powers
PROFILES = {
    "Display P3": rgb_profile((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841), 2.2),
    "Adobe RGB": rgb_profile((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446), 2.2),
    "ProPhoto": rgb_profile((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249), 1.8),
}


def heic(image: Image.Image, **options: object) -> bytes:
    """As a phone writes it."""
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=90, **options)
    return out.getvalue()
