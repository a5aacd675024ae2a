"""A candidate asked in the shadow: a process of its own, which the kernel runs only where a core would be idle.

`python -m service.serving.shadow_worker` reads messages from its standard input and answers each on its standard
output: a line of JSON, and as many bytes of a picture or a vector as that says. What happens there, even its end,
cannot touch who sends them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from service.encoder.selection import Candidate
from service.live.follower import Follower
from service.live.overlay import Overlay
from service.live.store import Store
from service.recommender.agreement import Comparison, overlap, rank_correlation
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.query import Event, Query
from service.recommender.release import Release

TIMED_EVERY = 8  # queries, of which one is also asked of production there, to compare how long both take
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Start:
    """What the process is told first. engine, precision: production's, which the candidate uses if it has them."""

    candidate: str
    production: str
    engine: str
    precision: str
    user_key: str
    store: str | None = None  # of changes, which both follow


class ShadowProcess:
    """The process, from the side of the service."""

    def __init__(self, start: Start) -> None:
        """Raises RuntimeError with what the process says, where the candidate cannot be served."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.serving.shadow_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        _write(self._input, asdict(start))
        said = self._answer()
        if "error" in said:
            self.close()
            raise RuntimeError(said["error"])
        self.same_encoder, self.number = bool(said["same_encoder"]), str(said["number"])

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def compare(
        self, query: Query, vector: np.ndarray | None, items: Sequence[str], match: Mapping[str, Any] | None
    ) -> Comparison:
        """Ask the candidate. vector: of the query's picture; items: what production answered; match: the item that the
        picture shows, as production said it.

        Raises RuntimeError where the candidate fails, EOFError where the process has ended."""
        told = asdict(query) | {"image": None, "items": list(items), "match": match}
        sent = query.image or b""
        if self.same_encoder and vector is not None:
            told["kind"], sent = "vector", np.asarray(vector, np.float32).tobytes()
        _write(self._input, told, sent)
        said = self._answer()
        if "error" in said:
            raise RuntimeError(said["error"])
        return Comparison(**said)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not yet sent has nowhere to go
                if pipe is not None:
                    pipe.close()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said = _read(self._process.stdout)
        if said is None:
            raise EOFError(f"the shadow process ended with {self._process.wait()}")
        return said[0]


class _Shadow:
    """The candidate and production, from the side of the process."""

    def __init__(self, start: Start) -> None:
        self.candidate = _open(start.candidate, start)
        self.production = _open(start.production, start)
        self._follower: Follower | None = None
        if start.store is not None:
            store = Store.open(start.store)
            self._follower = Follower(store)
            self._overlays = [Overlay(each, store) for each in (self.candidate, self.production)]
            for overlay in self._overlays:
                self._follower.attach(overlay)
        self._asked = 0
        self._shown: tuple[set[str], set[str]] = (set(), set())

    @property
    def same_encoder(self) -> bool:
        """Whether a vector of one is a vector of the other."""
        encoders = [each.release.manifest.encoder or {} for each in (self.candidate, self.production)]
        return encoders[0].get("fingerprint") == encoders[1].get("fingerprint")

    def compare(self, told: dict[str, Any], sent: bytes) -> Comparison:
        """One query on the candidate, every few on both."""
        items, match = told.pop("items"), told.pop("match")
        vector = np.frombuffer(sent, np.float32) if told.pop("kind", None) == "vector" else None
        told["image"] = sent if sent and vector is None else None
        told["events"] = tuple(Event(**event) for event in told["events"])
        told["box"] = tuple(told["box"]) if told["box"] else None
        query = Query(**told)
        self._asked += 1
        timed = self._asked % TIMED_EVERY == 0
        # who comes first has the colder caches: they take turns
        theirs = _ask(self.production, query, vector, match)[1] if timed and self._asked % (2 * TIMED_EVERY) else 0.0
        own, seconds = _ask(self.candidate, query, vector, match)
        theirs = theirs or (_ask(self.production, query, vector, match)[1] if timed else 0.0)
        for shown, those in zip(self._shown, (own, items), strict=True):
            shown.update(those)
        everything = len(self.candidate.release.items)
        return Comparison(
            overlap=overlap(items[:DEPTH], own[:DEPTH]),
            correlation=rank_correlation(own[:DEPTH], items[:DEPTH]),
            cold=self._cold(own),
            cold_production=self._cold(items),
            coverage=len(self._shown[0]) / everything,
            coverage_production=len(self._shown[1]) / everything,
            seconds=(seconds, theirs) if timed else None,
        )

    def _cold(self, shown: Sequence[str]) -> float:
        items = self.candidate.release.items
        rows = [row for row in map(items.find, shown) if row is not None]
        return float((items.popularity[rows] == 0).mean()) if rows else 0.0


def _ask(
    recommender: Recommender, query: Query, vector: np.ndarray | None, match: Mapping[str, Any] | None
) -> tuple[list[str], float]:
    """The items, and the seconds."""
    began = time.perf_counter()
    answer = recommender.recommend([query], vectors=None if vector is None else [vector], matches=[match])[0]
    return [item.item_id for item in answer.items], time.perf_counter() - began


def _open(path: str, start: Start) -> Recommender:
    release = Release.open(path)
    encoder, precision = None, "fp32"
    if release.encoders:
        precision = start.precision if start.precision in release.encoders else "fp32"
        engine = start.engine if start.engine in ("onnxruntime", "openvino") else "onnxruntime"
        encoder = Candidate(engine, precision, release.encoders[precision]).open(threads=1)
    recommender = Recommender(release, encoder=encoder, precision=precision, user_key=start.user_key)
    prove(recommender)
    return recommender


def _write(pipe: IO[bytes], said: dict[str, Any], more: bytes = b"") -> None:
    pipe.write(json.dumps(said | {"bytes": len(more)}).encode() + b"\n" + more)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    line = pipe.readline()
    if not line:
        return None
    told = json.loads(line)
    return told, pipe.read(told.pop("bytes"))


def _stand_back() -> None:
    """Run where a core would be idle, and be the first to go where memory is short."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a sandbox forbids it
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """Answer what is asked until nothing more comes: the service has ended, however it did."""
    _stand_back()
    answers, asked = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)  # what libraries print is no answer
    first = _read(asked)
    assert first is not None, "nothing was said"
    try:
        shadow = _Shadow(Start(**first[0]))
    except Exception as error:
        _write(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _write(answers, {"same_encoder": shadow.same_encoder, "number": shadow.candidate.release.number})
    while (told := _read(asked)) is not None:
        try:
            said = asdict(shadow.compare(*told))
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        _write(answers, said)


if __name__ == "__main__":
    main()
