"""The work of one process: it opens the release, and answers one part of the users after another.

What is asked goes through the code that serves, in batches no larger than the service has, within which an answer does
not depend on who else is asked: items and scores are the service's to the last bit, whatever the number of processes.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.batch.options import Options, Source
from service.batch.users import USER_KEY
from service.files import replacing
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release
from service.recommender.scoring.terms import ALONE
from service.signing import read_trusted


@dataclass(frozen=True, slots=True)
class Work:
    """What every process of a run does. column: `user_id` or `user_key`, by which users are known; folder: where the
    parts go."""

    source: Source
    options: Options
    column: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the users, and the number under which their answers are kept."""

    number: int
    users: Sequence[str]


def part_file(folder: Path, number: int) -> Path:
    """Where the answers of a part lie."""
    return folder / f"{number:06}.parquet"


def open_recommender(source: Source, *, photos: bool = False) -> Recommender:
    """The release, ready to answer users; photos: photos as well. Raises ReleaseError."""
    release = Release.open(source.release, trusted=read_trusted(source.trusted_keys))
    if not photos:
        release = replace(release, encoders={})  # an encoder takes memory and threads
    return Recommender(release, user_key=source.user_key)


def schema_of(column: str, *, reasons: bool) -> pa.Schema:
    """The columns of the file."""
    fields = [
        (column, pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32()),
        ("tier", pa.string()),
    ]  # fmt: skip
    if reasons:
        fields += [("terms", pa.string()), ("because", pa.list_(pa.string()))]
    return pa.schema(fields)


class Answerer:
    """Answers users, and keeps the answers."""

    def __init__(self, work: Work) -> None:
        """Raises ReleaseError."""
        self._work = work
        self._query = work.options.query()
        self._schema = schema_of(work.column, reasons=work.options.reasons)
        self._recommender = open_recommender(work.source)

    def answer(self, part: Part) -> int:
        """Write the answers of a part, whole or not at all; returns how many users it has."""
        answers: list[Recommendation] = []
        for start in range(0, len(part.users), ALONE):
            answers += self._recommender.recommend([self._asked(user) for user in part.users[start : start + ALONE]])
        with replacing(part_file(self._work.folder, part.number)) as aside:
            pq.write_table(self._table(part.users, answers), aside)
        return len(part.users)

    def _asked(self, user: str) -> Query:
        if self._work.column == USER_KEY:
            return replace(self._query, user_key=user)
        return replace(self._query, user_id=user)

    def _table(self, users: Sequence[str], answers: Sequence[Recommendation]) -> pa.Table:
        """A row for each item of each answer."""
        items = [item for answer in answers for item in answer.items]
        columns: dict[str, list[object]] = {
            self._work.column: [user for user, answer in zip(users, answers, strict=True) for _ in answer.items],
            "rank": [rank for answer in answers for rank, _ in enumerate(answer.items, start=1)],
            "item_id": [item.item_id for item in items],
            "score": [item.score for item in items],
            "tier": [answer.tier for answer in answers for _ in answer.items],
        }
        if self._work.options.reasons:
            columns["terms"] = [json.dumps(_without_zeros(item.terms)) for item in items]
            columns["because"] = [item.because for item in items]
        return pa.table(columns, schema=self._schema)


def _without_zeros(terms: Mapping[str, float]) -> dict[str, float]:
    """A term that counts for another user of the batch alone stands there as 0."""
    return {name: value for name, value in terms.items() if value}


_answerer: Answerer | None = None  # of this process


def begin(work: Work, parent: Connection) -> None:
    """Make this process ready. parent: a pipe that ends when the run does, however it does."""
    global _answerer
    threading.Thread(target=_end_with, args=(parent,), name="end", daemon=True).start()
    _answerer = Answerer(work)


def answer(part: Part) -> int:
    """Answer a part in a process that is ready."""
    assert _answerer is not None, "begin makes it"
    return _answerer.answer(part)


def _end_with(parent: Connection) -> None:
    parent.poll(None)
    os._exit(1)  # a part is written whole or not at all: nothing has to be finished
