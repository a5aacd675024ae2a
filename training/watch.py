"""Train again and again: a round whenever the catalogue folder or the store has changed."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from service.errors import StoreAway, VitrineError
from training.live.reading import open_store

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
GRACE = 20.0  # seconds for a training to end that is told to


def read_duration(text: str) -> float:
    """90s, 30m, 6h, 1d -> seconds. Raises VitrineError."""
    found = re.fullmatch(r"([0-9]+)([smhd])", text)
    if found is None or not int(found[1]):
        raise VitrineError(f"--watch {text}: expected a time such as 30m, 6h or 1d")
    return float(int(found[1]) * SECONDS[found[2]])


def watch(catalogue: Path | None, store: str | None, *, every: float, command: Sequence[str]) -> NoReturn:
    """Look every so many seconds, and run `command` where something has changed, at first in any case. It ends with
    SIGTERM or Ctrl-C, and ends a training that runs.

    Each round is a process of its own, so that none suffers from those before."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    trained: str | None = None
    while True:
        began = time.monotonic()
        try:
            now = state_of(catalogue, store)
        except StoreAway as error:
            _say(f"the store is away ({error}); looking again in {every:g} s")
        else:
            if now != trained and _train(command):
                trained = now  # what came while it trained counts as new
        time.sleep(max(0.0, every - (time.monotonic() - began)))


def state_of(catalogue: Path | None, store: str | None) -> str:
    """A digest that is another one whenever a file of the folder or the store has changed. Raises StoreAway."""
    found = hashlib.sha256()
    if store is not None:
        opened = open_store(store)
        try:
            found.update(f"{opened.id} {opened.position()}".encode())
        finally:
            opened.close()
    for folder, folders, files in os.walk(catalogue) if catalogue is not None else ():
        folders.sort()
        for name in sorted(files):
            status = os.stat(os.path.join(folder, name))
            found.update(f"{folder}/{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return found.hexdigest()


def _train(command: Sequence[str]) -> bool:
    """One round, and one line about it. Whether it was trained."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate()
        except SystemExit:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            _say("ended while a training ran; the next one takes it up")
            raise
    took = f"{time.monotonic() - began:.0f} s"
    if process.returncode:
        _say(f"the training failed after {took}, exit code {process.returncode}; tried again next time")
        return False
    _say(f"{(printed.strip().splitlines() or ['nothing'])[-1]} after {took}")
    return True


def _say(message: str) -> None:
    print(f"{time.strftime('%FT%TZ', time.gmtime())} {message}", flush=True)


def _end(number: int, frame: Any) -> None:
    sys.exit(0)
