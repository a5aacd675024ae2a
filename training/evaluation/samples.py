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
        tiles = [_tile((release.path / "golden" / case.picture).read_bytes())]
        for item in case.items:
            try:
                tiles.append(_tile(release.thumbnails.jpeg(release.items.row(item))))
            except NotFound:  # an item without a picture
                tiles.append(Image.new("RGB", (SIDE, SIDE), "lightgrey"))
        strip = Image.new("RGB", (len(tiles) * (SIDE + GAP) + 2 * GAP, SIDE), "white")
        for column, tile in enumerate(tiles):
            strip.paste(tile, (column * (SIDE + GAP) + (3 * GAP if column else 0), 0))
        strip.save(folder / f"golden-{place}.jpg", quality=85)


def _tile(picture: bytes) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as opened:
        tile = opened.convert("RGB")
    tile.thumbnail((SIDE, SIDE))
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(tile, ((SIDE - tile.width) // 2, (SIDE - tile.height) // 2))
    return square
