"""`python -m service.batch`: answers every user once, as a Job in a cluster does, and ends."""

import argparse
import logging
import signal
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from service.errors import VitrineError

EVERY = 10.0  # seconds between lines of progress

logger = logging.getLogger("vitrine")


def parser() -> argparse.ArgumentParser:
    """The options."""
    from service.batch.options import DEFAULT_K

    made = argparse.ArgumentParser(
        prog="python -m service.batch", description="Answer every user of VITRINE_RELEASE in one Parquet file"
    )
    made.add_argument("--out", type=Path, required=True, help="the file; a folder that is there: N.parquet in it")
    made.add_argument("--users", type=Path, help="CSV or Parquet with user_id; default: every user of the release")
    made.add_argument("-k", type=int, default=DEFAULT_K, help="items for each user, 1 to 100")
    made.add_argument("--filter", help='as JSON: {"category": ["dress"]}')
    made.add_argument(
        "--exclude-seen", action=argparse.BooleanOptionalAction, default=True, help="leave out what the user touched"
    )
    made.add_argument("--diversity", type=float, default=0.0, help="0 (none) to 1")
    made.add_argument("--reasons", action="store_true", help="also write the terms of each score, and because")
    made.add_argument("--workers", type=int, help="processes; default: VITRINE_THREADS, or a core each")
    return made


class Progress:
    """A line of log now and then."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._before: int | None = None

    def __call__(self, done: int, users: int) -> None:
        """done: users who are answered, of all users."""
        now = time.monotonic()
        if self._before is None:
            self._before, self._began, self._said = done, now, now
        elif now - self._said >= EVERY:
            self._said = now
            pace = (done - self._before) / (now - self._began)
            fields = {"answered": done, "users": users, "users_per_second": round(pace, 1)}
            logger.info("answering", extra={"fields": {**fields, "seconds_left": round((users - done) / pace)}})


def main() -> NoReturn:
    """Run; exit code 1 where it cannot be done, 2 for wrong options, 143 after SIGTERM, whose parts stay."""
    asked = parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about each other
    try:
        run(asked)
    except VitrineError as error:
        sys.exit(f"error: {error}")
    sys.exit(0)


def run(asked: argparse.Namespace) -> None:
    """Do what was asked. Raises VitrineError."""
    from service.batch.options import Options, Source, read_filter
    from service.batch.run import Job, recommend_all
    from service.encoder.selection import available_cpus
    from service.observability import logs
    from service.settings import Settings

    settings = Settings.read()
    logs.configure(settings.log_format)
    logger.setLevel(logging.INFO)
    made = recommend_all(
        Job(
            Source(settings.release, settings.user_key, settings.trusted_keys),
            Options(asked.k, read_filter(asked.filter), asked.exclude_seen, asked.diversity, asked.reasons),
            asked.out,
            asked.users,
            (settings.threads or available_cpus()) if asked.workers is None else asked.workers,
        ),
        say=logger.info,
        progress=Progress(),
    )
    logger.info("every user is answered", extra={"fields": asdict(made)})


if __name__ == "__main__":
    main()
