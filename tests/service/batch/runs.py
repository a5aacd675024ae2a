"""Runs of `python -m service.batch`, as a pod starts them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from service.recommender.release import Release
from tests.processes import HOME, wait_until

Rows = list[dict[str, Any]]


def command(*arguments: str | Path) -> list[str]:
    """To run it with."""
    return [sys.executable, "-m", "service.batch", *map(str, arguments)]


def environment(release: Path, **more: str) -> dict[str, str]:
    """The release, and log lines for machines."""
    return {**os.environ, "VITRINE_RELEASE": str(release), "VITRINE_LOG_FORMAT": "json", **more}


def run(release: Path, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    """Its log lines; the exit code must be this, and no traceback comes with it. A line that is none of the log is its
    `message`."""
    done = subprocess.run(
        command(*arguments), cwd=HOME, env=environment(release), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    return [json.loads(line) if line.startswith("{") else {"message": line} for line in lines]


def answers(file: Path) -> dict[str, Rows]:
    """user_id or user_key -> the rows of that user, in their order."""
    found: dict[str, Rows] = {}
    for row in pq.ParquetFile(file).read().to_pylist():
        found.setdefault(row.get("user_id", row.get("user_key")), []).append(row)
    return found


def parts(out: Path) -> list[Path]:
    """Those that lie beside a file that is being made."""
    return sorted(out.with_name(f"{out.name}.parts").glob("*/[0-9]*.parquet"))


def break_off(release: Path, out: Path, *arguments: str | Path, number: int) -> subprocess.CompletedProcess[str]:
    """Start a run, and once a part is there send it a signal; no process of it is left then."""
    with subprocess.Popen(
        command("--out", out, *arguments), cwd=HOME, env=environment(release), stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: bool(parts(out)))
        workers = children(process)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    wait_until(lambda: not any(map(runs_on, workers)))
    return subprocess.CompletedProcess(process.args, process.returncode, "", said)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those of its processes that answer."""
    found = psutil.Process(process.pid).children()
    return [each for each in found if "spawn_main" in " ".join(each.cmdline())]


def runs_on(process: psutil.Process) -> bool:
    """Whether it has not ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def copy(broken_off: Path, folder: Path) -> Path:
    """A broken-off run in another folder; gives the file that it was making."""
    shutil.copytree(broken_off.with_name(f"{broken_off.name}.parts"), folder / f"{broken_off.name}.parts")
    return folder / broken_off.name


def without_interactions(release: Release) -> Release:
    """The same catalogue, of which nobody touched anything."""
    return replace(release, ranker=None)


def strangers(file: Path, count: int) -> Path:
    """A file of users that no release knows, after the first five of the boutique."""
    known = [f"{number:05}" for number in range(5)]
    file.write_text("\n".join(["user_id", *known, *(f"stranger-{number}" for number in range(count))]) + "\n")
    return file


def last(lines: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The line that says what was made."""
    assert lines[-1]["message"] == "every user is answered"
    return lines[-1]
