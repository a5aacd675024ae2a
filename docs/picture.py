"""Draws the README's picture: one photo, and what a release answers to it for several users.

python -m docs.picture releases/1 demo/images/0004.jpg docs/images/answers.jpg
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from training.evaluation.samples import GAP, SIDE, item_tile, tile

USERS = (None, "00007", "00012")
ITEMS = 5
LINE = 22  # pixels of a line of text
ROW = LINE + SIDE + LINE + GAP
QUALITY = 85


def draw(release: Release, photo: bytes) -> Image.Image:
    """The photo on the left; a row for each of USERS: the tier, the items, best first, and their titles."""
    queries = [Query(image=photo, user_id=user, k=ITEMS) for user in USERS]
    answers = Recommender(release).recommend(queries)
    left = SIDE + 4 * GAP  # where the items begin
    page = Image.new("RGB", (left + ITEMS * (SIDE + GAP) + GAP, len(USERS) * ROW + GAP), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    pen.text((GAP, GAP), "the photo", "black", font)
    page.paste(tile(photo), (GAP, GAP + LINE))
    for row, (user, answer) in enumerate(zip(USERS, answers, strict=True)):
        top = GAP + row * ROW
        who = f"user {user}" if user else "no user"
        pen.text((left, top), f"{who}: tier {answer.tier}", "black", font)
        for column, item in enumerate(answer.items):
            x = left + column * (SIDE + GAP)
            page.paste(item_tile(release, item.item_id), (x, top + LINE))
            pen.text((x, top + LINE + SIDE + 2), item.title, "dimgrey", font)
    return page


def main() -> None:
    """Draw one release's answers to one photo."""
    parser = argparse.ArgumentParser(prog="python -m docs.picture", description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="folder of a release")
    parser.add_argument("photo", type=Path, help="file of the photo")
    parser.add_argument("out", type=Path, help="JPEG to write")
    asked = parser.parse_args()
    draw(Release.open(asked.release), asked.photo.read_bytes()).save(asked.out, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
