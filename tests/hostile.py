"""Pictures and requests that a server meets when it faces the world: what is sent, and which status it must give."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of a picture."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def gradient(width: int = 320, height: int = 240) -> Image.Image:
    """A picture that does not compress to nothing."""
    red = Image.linear_gradient("L").resize((width, height))
    green = red.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    blue = Image.radial_gradient("L").resize((width, height))
    return Image.merge("RGB", (red, green, blue))


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size."""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in a few kilobytes."""
    rows = zlib.compress(b"\0" * (3 * side + 1) * side, 9)
    return png_header(side, side) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@cache
def pictures() -> dict[str, tuple[bytes, int]]:
    """name -> bytes, expected status."""
    picture = gradient()
    jpeg, png, webp, gif = (encode(picture, name) for name in ("JPEG", "PNG", "WEBP", "GIF"))
    progressive = encode(picture, "JPEG", progressive=True)
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    return {
        "empty file": (b"", 422),
        "one byte": (b"\xff", 415),
        "text": (b"hello, I am a picture", 415),
        "html": (b"<html><img src=x></html>", 415),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 415),
        "zip": (b"PK\x03\x04" + b"\0" * 60, 415),
        "pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94.", 415),
        "shell script": (b"#!/bin/sh\nrm -rf /\n", 415),
        "url as a file": (b"http://127.0.0.1/secret.jpg", 415),
        "nulls": (b"\0" * 4096, 415),
        "bmp": (encode(picture, "BMP"), 415),
        "tiff": (encode(picture, "TIFF"), 415),
        "ico": (encode(picture.resize((32, 32)), "ICO"), 415),
        "ppm": (encode(picture, "PPM"), 415),
        "tga": (encode(picture, "TGA"), 415),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        "mp4": (b"\0\0\0\x18ftypmp42" + b"\0" * 40, 415),
        "jpeg signature alone": (b"\xff\xd8\xff\xe0", 422),
        "png signature alone": (b"\x89PNG\r\n\x1a\n", 422),
        "gif signature alone": (b"GIF89a", 422),
        "webp signature alone": (b"RIFF\x04\0\0\0WEBP", 422),
        "jpeg cut at a tenth": (jpeg[: len(jpeg) // 10], 422),
        "jpeg cut in half": (jpeg[: len(jpeg) // 2], 422),
        "jpeg without its last kilobyte": (jpeg[:-1024], 422),
        "progressive jpeg cut in half": (progressive[: len(progressive) // 2], 422),
        "png cut in half": (png[: len(png) // 2], 422),
        "png with a flipped byte": (bytes(damaged), 422),
        "png header alone": (png_header(64, 64), 422),
        "webp cut in half": (webp[: len(webp) // 2], 422),
        "gif cut in half": (gif[: len(gif) // 2], 422),
        "jpeg header, then noise": (jpeg[:200] + bytes(range(256)) * 8, 422),
        "png of 30000 x 30000 by its header": (png_header(30_000, 30_000) + _chunk(b"IDAT", b"\0"), 413),
        "png of 2^31 - 1 pixels wide": (png_header(2**31 - 1, 1) + _chunk(b"IDAT", b"\0"), 413),
        "png bomb of 9 megapixels": (png_bomb(3000), 413),
        "jpeg of 6 megapixels": (encode(Image.new("RGB", (3000, 2000)), "JPEG"), 413),
        "gif of 6 megapixels": (encode(Image.new("P", (3000, 2000)), "GIF"), 413),
        "webp of 6 megapixels": (encode(Image.new("RGB", (3000, 2000)), "WEBP"), 413),
        "png of width 0": (png_header(0, 10), 422),
        "3 megabytes after a jpeg": (jpeg + b"\0" * 3_000_000, 413),
    }


Send = Callable[..., object]


def requests(photo: bytes) -> dict[str, tuple[dict, int]]:
    """name -> keyword arguments of httpx's post to /recommend, expected status."""
    file = {"image": ("photo.jpg", photo, "image/jpeg")}
    json_type = {"content-type": "application/json"}
    return {
        "not JSON": ({"content": b"{user: 1}", "headers": json_type}, 400),
        "JSON cut short": ({"content": b'{"user_id": "1"', "headers": json_type}, 400),
        "NaN": ({"content": b'{"diversity": NaN}', "headers": json_type}, 400),
        "a JSON list": ({"json": [1, 2]}, 400),
        "a thousand brackets": ({"content": b"[" * 100_000, "headers": json_type}, 400),
        "not UTF-8": ({"content": b'{"user_id": "\xff\xfe"}', "headers": json_type}, 400),
        "half a surrogate": ({"content": b'{"user_id": "\\ud800"}', "headers": json_type}, 422),
        "an unknown field": ({"json": {"user": "1"}}, 422),
        "k of 0": ({"json": {"k": 0}}, 422),
        "k of 101": ({"json": {"k": 101}}, 422),
        "k as text": ({"json": {"k": "ten"}}, 422),
        "k as a fraction in a form": ({"data": {"k": "2.5"}}, 422),
        "an empty user_id": ({"json": {"user_id": ""}}, 422),
        "a user_id of 10,000 characters": ({"json": {"user_id": "x" * 10_000}}, 422),
        "diversity of 2": ({"json": {"diversity": 2}}, 422),
        "a filter on a column that is not there": ({"json": {"filter": {"size": ["M"]}}}, 422),
        "a range on text": ({"json": {"filter": {"category": {"min": 1}}}}, 422),
        "an event without an item": ({"json": {"events": [{"event": "view"}]}}, 422),
        "an event that nobody does": ({"json": {"events": [{"item_id": "0001", "event": "stole"}]}}, 422),
        "a number of 400 digits": ({"json": {"filter": {"price": {"min": 10**400}}}}, 422),
        "a moment of 400 digits": ({"json": {"events": [{"item_id": "0001", "timestamp": 10**400}]}}, 422),
        "a deeply nested filter": (
            {"content": b'{"filter": {"price": ' + b"[" * 300 + b"]" * 300 + b"}}", "headers": json_type}, 422,
        ),
        "a field name of a megabyte": ({"json": {"x" * 1_000_000: 1}}, 422),
        "a box inside out": ({"files": file, "data": {"box": "[0.9, 0, 0.1, 1]"}}, 422),
        "a box without a picture": ({"json": {"box": [0, 0, 1, 1]}}, 422),
        "a URL for a picture in JSON": ({"json": {"image": "http://127.0.0.1:1/a.jpg"}}, 422),
        "a URL for a picture in a form": ({"data": {"image": "http://127.0.0.1:1/a.jpg"}}, 422),
        "two pictures": ({"files": [("image", file["image"]), ("image", file["image"])]}, 400),
        "a picture by another name": ({"files": {"picture": file["image"]}}, 422),
        "multipart without a boundary": (
            {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}}, 400,
        ),
        "multipart cut short": (
            {"content": b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n5',
             "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400,
        ),
        "pickle": ({"content": b"\x80\x04.", "headers": {"content-type": "application/vnd.bentoml+pickle"}}, 415),
        "XML": ({"content": b"<k>1</k>", "headers": {"content-type": "application/xml"}}, 415),
        "a body of 3 megabytes": ({"content": b" " * 3_000_000, "headers": json_type}, 413),
    }  # fmt: skip
