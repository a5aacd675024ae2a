"""Which release answers, and how another one takes over without a restart.

The new one is opened, warmed and proven beside the old one; then one assignment makes it the one that answers. A
request holds on to the release that it began with, so no reply mixes two; the old one goes when its last request has
ended.
"""

import ctypes
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service import pauses
from service.errors import NotFound, VitrineError, shown
from service.recommender.pipeline import Recommender
from service.recommender.release import point, resolve
from service.serving.loaded_release import LoadedRelease

LOOK_AGAIN = 1.0  # seconds between looks at the pointer
LAST_REQUEST = 60.0  # seconds after which an old release that is still held is no longer waited for
LIBC = ctypes.CDLL(None)

logger = logging.getLogger("vitrine")


class HotSwap:
    """The release that answers now."""

    def __init__(
        self, path: Path, open_release: Callable[[Path], LoadedRelease], *, failed: Callable[[], None] = lambda: None
    ) -> None:
        """path: a release's folder, or a file that points to one; failed: called when a switch was refused.

        Raises what `open_release` raises."""
        self._path, self._open, self._failed = path, open_release, failed
        self._observe: Callable[[LoadedRelease], None] = lambda release: None
        self._changing, self._ending = threading.Lock(), threading.Event()
        self._said = self._pointer()
        self.current = open_release(resolve(path))

    def watch(self, observe: Callable[[LoadedRelease], None]) -> None:
        """Follow the pointer, if there is one. observe: called with the present release now, and with each new one."""
        self._observe = observe
        observe(self.current)
        if self._path.is_file():
            threading.Thread(target=self._watch, name="pointer", daemon=True).start()

    def switch(self, number: str) -> LoadedRelease:
        """Have the release of this number, beside the present one, answer; returns it once it does. The pointer, if
        there is one, says so from then on.

        Raises NotFound, and what keeps the new one from serving: the old one then goes on."""
        if not re.fullmatch("[0-9]{1,18}", number):
            raise NotFound(f"a release is named by its number; got {shown(number)}", field="release")
        folder = self.current.recommender.release.path.parent / number
        if not folder.is_dir():
            raise NotFound(f"there is no release {number} beside release {self.current.number}", field="release")
        with self._pointing(number):
            return self._take(folder)

    @contextmanager
    def _pointing(self, number: str) -> Iterator[None]:
        """Have the pointer, if there is one, name the release before it answers, so that a crash in between starts with
        what was asked for; and what it named before where the new one cannot answer."""
        before = self._pointer()
        if before is not None:
            self._said = f"{number}\n"  # the watching thread has nothing to do
            point(self._path, self._said)
        try:
            yield
        except BaseException:
            if before is not None:
                self._said = before
                point(self._path, before)
            raise

    def close(self) -> None:
        """Watch no longer."""
        self._ending.set()

    def _take(self, folder: Path) -> LoadedRelease:
        with self._changing:
            old = self.current
            try:
                new = self._open(folder)
            except Exception as error:
                logger.error("release %s goes on: %s cannot take over: %s", old.number, folder.name, error)
                self._failed()
                raise
            self.current = new
            self._observe(new)
            logger.info("release %s answers in place of %s", new.number, old.number)
            gone = weakref.ref(old.recommender)
            del old
            threading.Thread(target=_let_go, args=(gone,), name="let-go", daemon=True).start()
            return new

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_AGAIN):
            said = self._pointer()
            if said == self._said or said is None:
                continue
            self._said = said  # what cannot be served is tried once
            try:
                folder = resolve(self._path)
            except (VitrineError, OSError) as error:
                logger.error("%s: %s", self._path, error)
                continue
            if folder.resolve() != self.current.recommender.release.path.resolve():
                with suppress(Exception):  # `_take` has said why
                    self._take(folder)

    def _pointer(self) -> str | None:
        try:
            return self._path.read_text(errors="replace") if self._path.is_file() else None
        except OSError:  # replaced at this moment
            return None


def _let_go(gone: "weakref.ref[Recommender]") -> None:
    """Give the memory of a release back to the system, once no request holds it."""
    deadline = time.monotonic() + LAST_REQUEST
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
        pauses.collect()
    LIBC.malloc_trim(0)
