"""The pages say what the code says, and lead where they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from docs.generate import fill
from docs.picture import ITEMS, USERS, draw
from service.recommender.release import Release
from tests.test_readme import HOME, PAGES

LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
LARGEST_PICTURE = 150 * 1024  # bytes


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_parts_are_as_the_code_is() -> None:
    """Settings, metrics and routes in docs/ equal what `make docs` writes now."""
    command = [sys.executable, "-W", "ignore", "-m", "docs.generate", "--check"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", ["settings", "metrics", "routes"])
def test_each_part_stands_in_one_page(part: str) -> None:
    """A table cannot be lost with its mark."""
    marked = [page for page in PAGES if f"<!-- {part}: written by" in page.read_text()]
    assert len(marked) == 1
    assert re.search(rf"<!-- {part}: .*-->\n\| .*\n(\| .*\n)+<!-- end of {part} -->", marked[0].read_text())


def test_only_what_is_marked_is_written() -> None:
    """Text around a part stays, and a mark that nothing writes is an error."""
    page = "before\n<!-- a: written by python -m docs.generate -->\nold\n<!-- end of a -->\nafter\n"
    assert fill(page, {"a": "new\n"}) == page.replace("old", "new")
    with pytest.raises(KeyError):
        fill(page, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_each_link_leads_to_a_file(page: Path) -> None:
    """Also to a heading of it, where the link names one."""
    for name, heading in LINK.findall(page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not heading or heading in anchors(target), f"{name}#{heading}"


def test_the_readmes_picture_is_small() -> None:
    """It loads with the page."""
    for picture in (HOME / "docs" / "images").iterdir():
        assert picture.stat().st_size <= LARGEST_PICTURE, picture


def test_the_picture_has_a_row_for_each_user(release_folder: Path, photo: bytes) -> None:
    """The photo stands on the left, and items beside it: no tile is left white."""
    page = draw(Release.open(release_folder), photo)
    left, right = page.width // (ITEMS + 2), page.width * 2 // (ITEMS + 2)
    assert isinstance(page, Image.Image)
    for row in range(len(USERS)):
        top = page.height * row // len(USERS)
        colours = page.crop((right, top, page.width, top + page.height // len(USERS))).getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 1000
    assert len(page.crop((0, 0, left, left)).getcolors(1 << 20) or ()) > 100
