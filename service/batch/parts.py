"""The file that is being made: what it follows from, and its finished parts in a folder beside it.

    FILE.parts/
      lock             held by the run that writes
      plan.json        what the parts follow from
      <digest of it>/  000000.parquet, 000001.parquet, ...: a part each, written whole or not at all

Once all parts are there they become FILE in one step, and the folder goes.
"""

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.batch.answers import part_file
from service.batch.options import Options
from service.batch.users import Users
from service.errors import VitrineError
from service.files import digest, write_text
from service.recommender.release import MANIFEST, Release

PLAN, RELEASE = b"vitrine.plan", b"vitrine.release"  # in the file's metadata
TOGETHER = 16  # parts in a row group
OTHERS = {"manifest": "another release", "code": "other code", "users": "other users"}  # of what is known by a digest

Plan = Mapping[str, Any]
Say = Callable[[str], None]


def plan_of(release: Release, users: Users, options: Options) -> Plan:
    """All that the bytes of the file follow from, as plain values."""
    asked = hashlib.sha256(json.dumps([users.column, *users.names]).encode()).hexdigest()
    return {
        "release": release.number, "manifest": digest(release.path / MANIFEST), "code": _code(), "users": asked,
        **asdict(options),
    }  # fmt: skip


def _code() -> str:
    """sha256 over the code that answers: the same release in other code may answer otherwise."""
    home, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        found.update(str(path.relative_to(home)).encode() + path.read_bytes())
    return found.hexdigest()


def changes(before: Plan, plan: Plan) -> str:
    """What is different, in words."""
    names = sorted(name for name in {*before, *plan} if before.get(name) != plan.get(name))
    said = [
        OTHERS.get(name, f"{name} {json.dumps(plan.get(name))} in place of {json.dumps(before.get(name))}")
        for name in names
        if name != "release" or before.get("manifest") == plan.get("manifest")
    ]
    return ", ".join(said)


@contextmanager
def parts_folder(out: Path) -> Iterator[Path]:
    """The folder beside `out` that its parts lie in, for one run at a time. Raises VitrineError."""
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VitrineError(f"another run is writing {out}: let it end, or name another file") from error
        yield folder


def plan_in(out: Path) -> Plan | None:
    """What a finished file follows from; None where there is none. Raises VitrineError where it is something else."""
    if not out.exists():
        return None
    try:
        said = (pq.ParquetFile(out).schema_arrow.metadata or {})[PLAN]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise VitrineError(f"{out} is there, and is no file of recommendations: name another, or remove it") from error
    plan: Plan = json.loads(said)
    return plan


def begin_parts(folder: Path, plan: Plan, say: Say) -> Path:
    """Where the parts of this plan go on; parts of another are removed, which is said."""
    text = json.dumps(plan, indent=1)
    own = folder / hashlib.sha256(text.encode()).hexdigest()[:16]  # a process of an earlier run cannot write into it
    noted = folder / "plan.json"
    if noted.exists() and noted.read_text() != text:
        say(f"starting anew: {changes(json.loads(noted.read_text()), plan)}")
    for other in folder.iterdir():
        if other.is_dir() and other != own:
            shutil.rmtree(other)
    write_text(noted, text)
    own.mkdir(exist_ok=True)
    return own


def is_whole(part: Path) -> bool:
    """Whether a part is there; a node that lost power may have left an empty file."""
    try:
        pq.read_metadata(part)
    except (OSError, pa.ArrowException):
        return False
    return True


def assemble(folder: Path, count: int, *, schema: pa.Schema, plan: Plan, out: Path) -> None:
    """Make the file of its parts, in their order. It becomes `out` in one step."""
    said = {RELEASE: str(plan["release"]), PLAN: json.dumps(plan)}
    aside = folder / "whole.parquet"
    with pq.ParquetWriter(aside, schema.with_metadata(said)) as writer:
        for start in range(0, count, TOGETHER):
            numbers = range(start, min(start + TOGETHER, count))
            writer.write_table(pa.concat_tables([pq.ParquetFile(part_file(folder, at)).read() for at in numbers]))
    aside.replace(out)


def count_answers(out: Path) -> tuple[int, dict[str, int]]:
    """Rows of a finished file, and how many users each tier answered."""
    file, tiers = pq.ParquetFile(out), Counter[str]()
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["rank", "tier"])
        tiers.update(table.filter(pc.equal(table["rank"], 1))["tier"].to_pylist())
    return file.metadata.num_rows, dict(sorted(tiers.items()))
