"""What Python pauses for."""

import gc
import sys
import weakref

from service import pauses


class _Ring:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_at_the_start_is_looked_at_no_more_until_a_release_is_let_go() -> None:
    """A full collection then is one of few objects; what only refers to itself is freed all the same when it is
    asked for."""
    interval, ring = sys.getswitchinterval(), _Ring()
    held = weakref.ref(ring)
    try:
        pauses.keep_short()
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
        assert sys.getswitchinterval() < interval
        del ring
        gc.collect()
        assert held() is not None
        pauses.collect()
        assert held() is None
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()
