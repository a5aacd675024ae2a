"""Seeded inputs that are nearly right: pictures, requests, tensors and catalogues, each harmed a little."""

import copy
import io
import json
import random
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import pandas as pd
import pillow_heif
from PIL import Image

from tests.hostile import encode, gradient

ODD_TEXT = [
    "",
    " ",
    "\0",
    "\ud800",
    "é" * 300,
    "'; --",
    "../..",
    "NaN",
    "null",
    "[]",
    "٣",
    "\u202e",
    "0004",
    "a|b|c",
    '"',
]
ODD_NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 10**30, -(10**30), 1e308, -0.0, 1e-320, 0.5, True]
ODD_VALUES: list[Any] = [*ODD_TEXT, *ODD_NUMBERS, None, [], {}, [[]], {"min": 1}, {"max": "x"}, ["dress", 1]]


@cache
def whole_pictures() -> list[bytes]:
    """One of each format and mode that is read."""
    small = gradient(96, 64)
    out = io.BytesIO()
    pillow_heif.from_pillow(small).save(out, quality=60)
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "a camera"
    jpeg = encode(small, "JPEG", exif=exif, icc_profile=b"x" * 300)
    return [
        jpeg, encode(small, "JPEG", progressive=True), encode(small.convert("CMYK"), "JPEG"),
        encode(small.convert("L"), "JPEG"), encode(small, "PNG"), encode(small.convert("RGBA"), "PNG"),
        encode(small.convert("P"), "PNG", transparency=3), encode(small.convert("LA"), "PNG"),
        encode(Image.new("I;16", (40, 30), 999), "PNG"), encode(small.convert("1"), "PNG"),
        encode(small, "WEBP"), encode(small.convert("RGBA"), "WEBP", lossless=True), encode(small, "GIF"),
        encode(small, "AVIF", speed=10, exif=exif), out.getvalue(),
    ]  # fmt: skip


def harmed(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, taken out, repeated, or put in; lengths and counts are hit more often than chance has it."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        # the start holds the structure
        at = rng.randrange(min(len(changed), rng.choice((32, 256, len(changed)))))
        match rng.randrange(6):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at : at + 4] = struct.pack(
                    rng.choice("<>") + "I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 65535))
                )
            case 2:
                del changed[at : at + rng.choice((1, 4, 100))]
            case 3:
                changed[at:at] = changed[at : at + rng.choice((1, 8, 200))]
            case 4:
                changed[at:at] = rng.randbytes(rng.choice((1, 8, 64)))
            case _:
                del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def pictures(rng: random.Random) -> Iterator[bytes]:
    """Without end."""
    while True:
        yield harmed(rng.choice(whole_pictures()), rng)


def queries(rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Routes, and the fields of a request to each."""
    good: dict[str, Any] = {
        "user_id": "00007", "k": 3, "events": [{"item_id": "0004", "event": "like", "timestamp": 1.7e9}],
        "filter": {"category": ["dress"], "price": {"min": 10, "max": 50}}, "exclude_seen": True, "diversity": 0.5,
    }  # fmt: skip
    while True:
        fields = {name: value for name, value in json.loads(json.dumps(good)).items() if rng.random() < 0.6}
        for _ in range(rng.randrange(3)):
            place: Any = fields
            name: Any = rng.choice([*good, "item_id", "box", "remember", "image", *ODD_TEXT])
            if rng.random() < 0.5 and isinstance(place.get(name), dict) and place[name]:
                place, name = place[name], rng.choice([*place[name], *ODD_TEXT])
            elif rng.random() < 0.5 and isinstance(place.get(name), list) and place[name]:
                place, name = place[name], 0
                if isinstance(place[0], dict):
                    place, name = (
                        place[0],
                        rng.choice(["item_id", "event", "timestamp", "vector", "encoder", *ODD_TEXT]),
                    )
            place[name] = copy.deepcopy(rng.choice(ODD_VALUES))
        yield rng.choice(("/recommend", "/similar")), fields


def tensors(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Inputs of an inference request, as JSON of the protocol has them."""
    while True:
        inputs = []
        usual = ["USER_ID", "K", "FILTER", "EVENTS"]
        for name in rng.sample(usual + rng.choice([[], ["IMAGE", "ITEM_ID", "IMAGES"]]), rng.randrange(1, 4)):
            data: list[Any] = [rng.choice([*ODD_TEXT, "00007", '{"category": ["dress"]}', '[{"item_id": "0004"}]'])]
            if name == "K":
                data = [rng.choice([3, *ODD_NUMBERS])]
            kind = rng.choice(["INT32" if name == "K" else "BYTES"] * 12 + ["FP32", "UINT8", "INT64", "BOOL", "X"])
            shape = rng.choice([[1]] * 12 + [[], [0], [2], [-1], [2**62, 4], [1, 1]])
            inputs.append({"name": name, "datatype": kind, "shape": shape, "data": data})
        yield {"inputs": inputs}


def catalogues(rng: random.Random) -> Iterator[dict[str, bytes]]:
    """Files of a catalogue folder."""
    items = "item_id,image,title,category,colour,price\n" + "".join(
        f"{at:03},images/{at}.jpg,a dress,dress,red|blue,{at}.5\n" for at in range(12)
    )
    log = "user_id,item_id,event,value,timestamp\n" + "".join(
        f"u{at % 4},{at % 12:03},{('view', 'purchase')[at % 2]},{at},{1_700_000_000 + at}\n" for at in range(30)
    )
    users = "user_id,age,town\nu0,30,x\nu1,40,y\n"
    while True:
        files: dict[str, bytes] = {}
        for name, text in (("items", items), ("interactions", log), ("users", users)):
            if name != "items" and rng.random() < 0.3:
                continue
            if rng.random() < 0.3:
                frame = pd.read_csv(io.StringIO(text), dtype=rng.choice((str, None)))
                for _ in range(rng.randrange(4)):
                    column = rng.choice(list(frame.columns))
                    frame[column] = frame[column].astype(object)
                    frame.loc[rng.randrange(len(frame)), column] = rng.choice([*ODD_TEXT[:2], None, "x", "007"])
                    frame[column] = frame[column].map(lambda cell: cell if cell is None else str(cell))
                out = io.BytesIO()
                frame.to_parquet(out)
                content = out.getvalue()
                files[f"{name}.parquet"] = harmed(content, rng) if rng.random() < 0.5 else content
                continue
            cells = [row.split(",") for row in text.splitlines()]
            for _ in range(rng.randrange(6)):
                row = rng.choice(cells)
                row[rng.randrange(len(row))] = str(rng.choice(ODD_VALUES))
            joined = rng.choice(",,,,;\t").join if rng.random() < 0.9 else "".join
            content = "\n".join(joined(row) for row in cells).encode(
                rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), errors="replace"
            )
            files[f"{name}.csv"] = harmed(content, rng) if rng.random() < 0.5 else content
        yield files
