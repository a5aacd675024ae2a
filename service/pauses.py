"""Pauses that Python makes by itself, in which no request goes on, kept short."""

import gc
import sys

# Seconds after which a thread that computes lets another one in. While events are read and kept, a recommendation waits
# for its turn several times; by Python's default of .005 its slowest hundredth waits half as long again.
SWITCH = 0.0005


def keep_short() -> None:
    """For this process, once everything is loaded.

    A full collection of garbage looks at each of the 200,000 objects of the libraries, which takes a tenth of a second:
    from now on it leaves them alone."""
    sys.setswitchinterval(SWITCH)
    collect()


def collect() -> None:
    """Free what only refers to itself, among all objects, and leave those that are there now alone from then on."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
