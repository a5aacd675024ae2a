"""`vitrine`, and `python -m training`, since torchrun needs a module to start."""

import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # exit code, as shells have it
_interrupted = False


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. Of a plain KeyboardInterrupt that passed through exec, as dataclasses call it while modules load,
    `python -m` ends by the signal, whoever caught it."""


def main() -> None:
    """Run the command line. Ctrl-C, also while it is still loading, leaves one line; a second one waits for nothing."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell has what is in the background ignore it
        signal.signal(signal.SIGINT, _interrupt)
    # numba would take a thread for each core, and tell torch, which shares its library, to do the same from then on:
    # another number of threads rounds otherwise, and gives another release
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        os.environ.setdefault("NUMBA_NUM_THREADS", threads)
    try:
        from training.cli import main

        main.main()
    except BaseException:  # a library that is interrupted while it loads raises what it likes
        if _interrupted:
            sys.exit(INTERRUPTED)
        raise


def _interrupt(number: int, frame: Any) -> None:
    global _interrupted
    _interrupted = True
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    os.write(2, b"interrupted\n")
    raise Interrupted


if __name__ == "__main__":
    main()
