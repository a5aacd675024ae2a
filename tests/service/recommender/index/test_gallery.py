"""Which pictures a photo's landmarks vote for, among those of a release and those that came since."""

import threading

import numpy as np

from service.recommender.index.gallery import VOTING, Gallery, sorted_descriptions
from service.recommender.index.landmarks import FEATURES, PACKED, Landmarks
from tests.processes import wait_until


def drawn(count: int, seed: int) -> np.ndarray:
    """Landmarks of so many pictures that have nothing in common: (count, FEATURES, PACKED) uint8."""
    packed = np.random.default_rng(seed).integers(1, 256, (count, FEATURES, PACKED), np.uint8)
    packed[:, VOTING:] = 0
    return packed


def found(gallery: Gallery, positions: list[int]) -> list[int]:
    """Of photos that show these pictures, with an eighth of the bits of their descriptions turned, what comes first."""
    rng, first = np.random.default_rng(0), []
    for position in positions:
        seen = gallery.packed(position).copy()
        noise = np.packbits(rng.random((FEATURES, 8 * (PACKED - 4))) < 1 / 8, axis=1)
        seen[:VOTING, 4:] ^= noise[:VOTING]
        *_, among_all = gallery.likely(Landmarks.unpacked(seen), k=1)
        first += among_all
    return first


def test_pictures_that_came_since_are_found_however_many_there_are() -> None:
    """While they are sorted into lists, and afterwards, and those that come then."""
    sealed = drawn(5, seed=1)
    gallery = Gallery(sealed, sorted_descriptions(sealed))
    for each in drawn(700, seed=2):
        gallery.add(each)
    asked = [0, 4, 5, 100, 640, 704]
    assert found(gallery, asked) == asked
    wait_until(lambda: gallery.lists > 100 and "landmarks" not in {thread.name for thread in threading.enumerate()})
    assert found(gallery, asked) == asked
    added = [gallery.add(each) for each in drawn(3, seed=3)]
    assert added == [705, 706, 707]
    assert found(gallery, [*added, *asked]) == [*added, *asked]


def test_few_are_all_looked_at_and_a_picture_that_is_gone_is_found_no_more() -> None:
    """Of the release, and of what came since."""
    sealed = drawn(5, seed=1)
    gallery = Gallery(sealed, sorted_descriptions(sealed))
    for each in drawn(20, seed=2):
        gallery.add(each)
    assert gallery.lists == 1
    gallery.show(3, False)
    gallery.show(10, False)
    assert found(gallery, [2, 3, 10, 11]) == [2, 11]
