"""Pictures of what a release answers: each golden photo beside its items, as one JPEG."""

import io
from pathlib import Path

from PIL import Image

from service.errors import NotFound
from service.recommender.release import Release

SIDE, GAP = 160, 8


def write_samples(release: Release, folder: Path) -> None:
    """Write golden-0.jpg, golden-1.jpg, ...: the photo, a gap, and the items that it must give, best first."""
    for place, case in enumerate(release.golden.cases):
        if case.picture is None:
            continue
        tiles = [tile((release.path / "golden" / case.picture).read_bytes())]
        tiles += [item_tile(release, item) for item in case.items]
        strip = Image.new("RGB", (len(tiles) * (SIDE + GAP) + 2 * GAP, SIDE), "white")
        for column, square in enumerate(tiles):
            strip.paste(square, (column * (SIDE + GAP) + (3 * GAP if column else 0), 0))
        strip.save(folder / f"golden-{place}.jpg", quality=85)


def item_tile(release: Release, item_id: str) -> Image.Image:
    """The picture of an item as a square; a grey one where the item has none."""
    try:
        return tile(release.thumbnails.jpeg(release.items.row(item_id)))
    except NotFound:
        return Image.new("RGB", (SIDE, SIDE), "lightgrey")


def tile(picture: bytes) -> Image.Image:
    """A picture in the middle of a white square of SIDE pixels."""
    with Image.open(io.BytesIO(picture)) as opened:
        small = opened.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return square
