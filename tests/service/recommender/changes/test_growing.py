"""Arrays that rows are added to."""

import numpy as np

from service.recommender.changes.growing import SPARE, Growing


def test_what_it_began_with_is_left_as_it_is() -> None:
    """It is copied once a row comes, so a memory-mapped array may be the beginning."""
    begun = np.arange(4.0)
    begun.flags.writeable = False
    growing = Growing(begun)
    growing.append(np.array([4.0]))
    growing.array[0] = 9
    assert growing.array.tolist() == [9, 1, 2, 3, 4]
    assert begun.tolist() == [0, 1, 2, 3]


def test_rows_come_at_the_end() -> None:
    """One or many, also beyond what there was room for."""
    growing = Growing(np.empty((0, 2), np.float32))
    for number in range(3 * SPARE):
        growing.append(np.full((1, 2), number, np.float32))
    assert len(growing) == 3 * SPARE
    assert growing.array[:, 1].tolist() == list(range(3 * SPARE))
    assert growing.array.dtype == np.float32


def test_it_is_brought_to_a_size() -> None:
    """With the same value in each new row; a size that it has already changes nothing."""
    growing = Growing(np.ones(2, bool))
    growing.extend_to(4, False)
    growing.extend_to(3, True)
    assert growing.array.tolist() == [True, True, False, False]
