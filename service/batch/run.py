"""A run: who is answered, in which parts, and the file in the end."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.batch.answers import Part, Work, open_recommender, part_file, schema_of
from service.batch.options import Options, Source
from service.batch.parts import (
    Plan,
    Say,
    assemble,
    begin_parts,
    changes,
    count_answers,
    is_whole,
    parts_folder,
    plan_in,
    plan_of,
)
from service.batch.processes import answer_parts
from service.batch.users import Users, read_users, users_of
from service.errors import VitrineError
from service.recommender.golden import prove
from service.recommender.release import Release, resolve

PART = 256  # users whose answers are kept together: at most so many are answered again in each process after a crash

Progress = Callable[[int, int], None]  # users who are answered, and all of them


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made. out: the file, or a folder that is there, for N.parquet; users_file: of the users, None:
    every user of the release; workers: processes."""

    source: Source
    options: Options
    out: Path
    users_file: Path | None
    workers: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What was made. answered: users of this run, the others were answered before; rows: of the file; tiers: users by
    tier; without_items: users for whom no item passes; repeated, unusable: rows of the file of users; seconds: of this
    run, once the release was open."""

    release: str
    out: str
    users: int
    answered: int
    rows: int
    tiers: dict[str, int]
    without_items: int
    repeated: int
    unusable: list[int]
    seconds: float
    users_per_second: float


def recommend_all(job: Job, *, say: Say, progress: Progress) -> Summary:
    """Answer every user in one Parquet file, and go on where a run of the same job was broken off.

    say: called with what is worth a line. Raises VitrineError."""
    if job.workers < 1:
        raise VitrineError(f"--workers must be 1 or more; got {job.workers}")
    job = replace(job, source=replace(job.source, release=resolve(job.source.release)))
    release = _proven(job)
    users = users_of(release) if job.users_file is None else read_users(job.users_file)
    plan = plan_of(release, users, job.options)
    out = job.out / f"{release.number}.parquet" if job.out.is_dir() else job.out
    began = time.perf_counter()
    try:
        answered = _make(out, plan, users, job, say, progress)
        rows, tiers = count_answers(out)
    except OSError as error:
        raise VitrineError(f"{out} cannot be written: {error.strerror or error}") from error
    seconds = time.perf_counter() - began
    return Summary(
        release=release.number,
        out=str(out),
        users=len(users.names),
        answered=answered,
        rows=rows,
        tiers=tiers,
        without_items=len(users.names) - sum(tiers.values()),
        repeated=users.repeated,
        unusable=list(users.unusable),
        seconds=round(seconds, 3),
        users_per_second=round(answered / seconds, 1),
    )


def _proven(job: Job) -> Release:
    """The release, once it gave the recorded answers, and can be asked what this job asks. Raises VitrineError."""
    recommender = open_recommender(job.source, photos=True)
    prove(recommender)
    recommender.recommend([job.options.query()])
    return recommender.release


def _make(out: Path, plan: Plan, users: Users, job: Job, say: Say, progress: Progress) -> int:
    """Make the file, unless it is there; returns how many users were answered for it."""
    before = plan_in(out)
    with parts_folder(out) as folder:
        answered = 0
        if before == plan:
            say(f"{out} is there already: the same release, users and options")
        else:
            if before is not None:
                say(f"{out} is made anew: {changes(before, plan)}")
            work = Work(job.source, job.options, users.column, begin_parts(folder, plan, say))
            parts = _parts(users.names)
            answered = _answer_missing(work, parts, job.workers, say, progress)
            schema = schema_of(users.column, reasons=job.options.reasons)
            assemble(work.folder, len(parts), schema=schema, plan=plan, out=out)
        shutil.rmtree(folder)
    return answered


def _parts(names: Sequence[str]) -> list[Part]:
    return [Part(at, names[start : start + PART]) for at, start in enumerate(range(0, len(names), PART))]


def _answer_missing(work: Work, parts: Sequence[Part], workers: int, say: Say, progress: Progress) -> int:
    """Answer the parts that are not there; returns how many users they have."""
    missing = [part for part in parts if not is_whole(part_file(work.folder, part.number))]
    users, wanted = (sum(len(part.users) for part in each) for each in (parts, missing))
    done = users - wanted

    def answered(more: int) -> None:
        nonlocal done
        done += more
        progress(done, users)

    if done:
        say(f"going on: {done:,} of {users:,} users are answered")
    progress(done, users)
    if missing:
        answer_parts(work, missing, min(workers, len(missing)), answered)
    return wanted
