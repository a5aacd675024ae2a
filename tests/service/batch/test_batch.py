"""Every user is answered as the service answers, by however many processes, through however many interruptions."""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from service.batch.options import Options, Source, read_filter
from service.batch.run import Job, recommend_all
from service.errors import ReleaseError, VitrineError
from service.files import digest
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import MANIFEST
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.conftest import made_once
from tests.processes import HOME, wait_until
from tests.service.batch.runs import (
    answers,
    break_off,
    children,
    command,
    copy,
    environment,
    last,
    parts,
    run,
    runs_on,
    strangers,
)

STRANGERS = 5_000
# every process of a run begins with it
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def broken_off(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a run was making when it was killed, of users in `users.csv` beside it; its parts are there."""

    def kill_one(folder: Path) -> None:
        users = strangers(folder / "users.csv", STRANGERS)
        killed = break_off(
            release_folder, folder / "all.parquet", "--users", users, "--workers", "1", number=signal.SIGKILL
        )
        assert killed.returncode == -signal.SIGKILL

    return made_once(tmp_path_factory, "broken_off", kill_one) / "all.parquet"


def test_each_user_of_the_release_gets_what_the_service_answers(
    release_folder: Path, server: httpx.Client, tmp_path: Path
) -> None:
    """The same items with the same scores in the same order, under the user's key; the file names its release."""
    out = tmp_path / "all.parquet"
    made = last(run(release_folder, "--out", out))
    assert (made["release"], made["users"], made["answered"], made["rows"]) == ("1", 200, 200, 4000)
    assert made["tiers"] == {"taste": 200}
    found = answers(out)
    assert len(found) == 200
    for number in range(0, 200, 4):
        body = server.post("/recommend", json={"user_id": f"{number:05}", "k": 20}).json()
        rows = found[hash_user(f"{number:05}", DEFAULT_USER_KEY)]
        assert [(row["item_id"], row["score"]) for row in rows] == [(i["item_id"], i["score"]) for i in body["items"]]
        assert [row["rank"] for row in rows] == list(range(1, 21))
        assert {row["tier"] for row in rows} == {body["tier"]}
    metadata = pq.ParquetFile(out).schema_arrow.metadata
    assert metadata[b"vitrine.release"] == b"1"
    assert json.loads(metadata[b"vitrine.plan"])["manifest"] == digest(release_folder / MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["all.parquet"]


def test_users_of_a_file_are_answered_by_id(release_folder: Path, recommender: Recommender, tmp_path: Path) -> None:
    """With what was asked for; whom the release does not know by tier `popular`; a folder gets N.parquet."""
    users = tmp_path / "users.csv"
    users.write_text('user_id\n00007\nnobody\n00003\n00007\n""\n')
    asked = {"filter": {"category": ["dress", "hat"]}, "exclude_seen": False, "diversity": 0.3, "k": 5}
    made = last(
        run(
            release_folder, "--out", tmp_path, "--users", users, "-k", "5", "--filter", json.dumps(asked["filter"]),
            "--no-exclude-seen", "--diversity", "0.3", "--reasons",
        )
    )  # fmt: skip
    assert made["out"] == str(tmp_path / "1.parquet")
    assert made["tiers"] == {"popular": 1, "taste": 2}
    assert (made["repeated"], made["unusable"], made["without_items"]) == (1, [5], 0)
    found = answers(tmp_path / "1.parquet")
    assert list(found) == ["00007", "nobody", "00003"]
    for user, rows in found.items():
        [answer] = recommender.recommend([Query(user_id=user, **asked)])  # type: ignore[arg-type]
        assert [(row["item_id"], row["score"]) for row in rows] == [(i.item_id, i.score) for i in answer.items]
        assert [json.loads(row["terms"]) for row in rows] == [
            {name: value for name, value in item.terms.items() if value} for item in answer.items
        ]
        assert [row["because"] for row in rows] == [item.because for item in answer.items]
        assert {row["tier"] for row in rows} == {answer.tier}


def test_users_for_whom_no_item_passes_are_counted(release_folder: Path, tmp_path: Path) -> None:
    """They have no row, and the file is one all the same."""
    users = strangers(tmp_path / "users.csv", 1)
    made = last(
        run(release_folder, "--out", tmp_path / "none.parquet", "--users", users, "--filter", '{"category": []}')
    )
    assert (made["users"], made["rows"], made["without_items"], made["tiers"]) == (6, 0, 6, {})
    assert pq.ParquetFile(tmp_path / "none.parquet").read().num_rows == 0


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(broken_off: Path, release_folder: Path, tmp_path: Path) -> None:
    """What is answered is not answered again, a part that a crash cut short is; the file has the very bytes that any
    number of processes write undisturbed. The same command again finds it there."""
    users = broken_off.with_name("users.csv")
    out = copy(broken_off, tmp_path)
    kept = parts(out)
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    lines = run(release_folder, "--out", out, "--users", users, "--workers", "3")
    done = 256 * (len(kept) - 1)
    said = [line["message"] for line in lines]
    assert (f"going on: {done:,} of 5,005 users are answered" in said) == (done > 0)
    assert last(lines)["answered"] == STRANGERS + 5 - done
    assert last(lines)["rows"] == 20 * (STRANGERS + 5)
    undisturbed = tmp_path / "undisturbed.parquet"
    run(release_folder, "--out", undisturbed, "--users", users, "--workers", "1")
    assert out.read_bytes() == undisturbed.read_bytes()
    before = out.stat()
    lines = run(release_folder, "--out", out, "--users", users)
    assert [line["message"] for line in lines[:-1]] == [f"{out} is there already: the same release, users and options"]
    assert last(lines)["answered"] == 0
    assert out.stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "undisturbed.parquet"]


def test_other_options_or_users_start_anew(broken_off: Path, release_folder: Path, tmp_path: Path) -> None:
    """Which is said; nothing of the parts that were there gets into the file. A file that is there is made anew."""
    out = copy(broken_off, tmp_path)
    few = strangers(tmp_path / "few.csv", 3)
    lines = run(release_folder, "--out", out, "--users", few, "-k", "7")
    assert lines[0]["message"] == "starting anew: k 7 in place of 20, other users"
    assert [len(rows) for rows in answers(out).values()] == [7] * 8
    lines = run(release_folder, "--out", out, "--users", few, "--no-exclude-seen")
    said = f"{out} is made anew: exclude_seen false in place of true, k 20 in place of 7"
    assert lines[0]["message"] == said
    assert [len(rows) for rows in answers(out).values()] == [20] * 8


def test_another_release_starts_anew(releases: Path, tmp_path: Path) -> None:
    """Parts of two releases never meet in a file."""
    users, out = strangers(tmp_path / "users.csv", 0), tmp_path / "all.parquet"
    run(releases / "1", "--out", out, "--users", users)
    lines = run(releases / "2", "--out", out, "--users", users)
    assert lines[0]["message"] == f"{out} is made anew: another release"
    assert pq.ParquetFile(out).schema_arrow.metadata[b"vitrine.release"] == b"2"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_leaves_parts_alone(
    number: signal.Signals, code: int, release_folder: Path, tmp_path: Path
) -> None:
    """No file, and no process that answers on for nobody."""
    users = strangers(tmp_path / "users.csv", STRANGERS)
    ended = break_off(release_folder, tmp_path / "all.parquet", "--users", users, "--workers", "2", number=number)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet.parts", "users.csv"]


def test_a_process_that_is_killed_ends_the_run_with_a_line(release_folder: Path, tmp_path: Path) -> None:
    """As the kernel does where memory is short. What was answered is kept."""
    out, users = tmp_path / "all.parquet", strangers(tmp_path / "users.csv", STRANGERS)
    with subprocess.Popen(
        command("--out", out, "--users", users, "--workers", "2"), cwd=HOME, env=environment(release_folder),
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until(lambda: bool(parts(out)))
        workers = children(process)
        workers[0].kill()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        "error: a process of the run was ended from outside, as happens where memory is short: ask for fewer "
        "--workers; what is answered is kept"
    )
    wait_until(lambda: not any(map(runs_on, workers)))
    assert parts(out)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A file that another run is making."""
    (tmp_path / "held.parquet.parts").mkdir()
    with (tmp_path / "held.parquet.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path / "held.parquet"


def test_two_runs_do_not_write_one_file(held: Path, release_folder: Path) -> None:
    """The second one says so."""
    [line] = run(release_folder, "--out", held, code=1)
    assert line["message"] == f"error: another run is writing {held}: let it end, or name another file"


def filter_of(text: str) -> Options:
    """With a filter as a command line takes it."""
    return Options(filter=read_filter(text))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda job: replace(job, options=Options(k=101)), "k must be a whole number from 1 to 100; got 101"),
        (lambda job: replace(job, options=Options(diversity=2.0)), "diversity must be a number from 0 to 1; got 2.0"),
        (lambda job: replace(job, options=filter_of("{")), "--filter is not JSON"),
        (lambda job: replace(job, options=filter_of("[1]")), "filter must be an object"),
        (lambda job: replace(job, options=filter_of('{"colr": 1}')), "filter: no column 'colr'; there are"),
        (lambda job: replace(job, users_file=Path("none.csv")), "--users none.csv: no such file"),
        (lambda job: replace(job, workers=0), "--workers must be 1 or more; got 0"),
        (lambda job: replace(job, out=HOME / "README.md"), "README.md is there, and is no file of recommendations"),
        (lambda job: replace(job, out=HOME / "README.md" / "a"), "cannot be written: Not a directory"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    wrong: Callable[[Job], Job], said: str, release_folder: Path, tmp_path: Path
) -> None:
    """What was expected, and what came."""
    job = Job(Source(release_folder, DEFAULT_USER_KEY), Options(), tmp_path / "all.parquet", None, 1)
    with pytest.raises(VitrineError) as refused:
        recommend_all(wrong(job), say=print, progress=print)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    assert not (HOME / "README.md.parts").exists()


def test_errors_are_one_line(tmp_path: Path) -> None:
    """Exit code 1, and 2 for an option that is none."""
    [line] = run(tmp_path, "--out", tmp_path / "all.parquet", code=1)
    assert line["message"].startswith(f"error: {tmp_path} is not a release")
    assert "unrecognized arguments: --otu" in run(tmp_path, "--out", "a", "--otu", "b", code=2)[-1]["message"]


def test_a_release_of_another_key_or_damaged_is_refused(
    release_folder: Path, copied_release: Path, tmp_path: Path
) -> None:
    """As the service refuses it."""
    out = tmp_path / "all.parquet"
    (copied_release / "items.parquet").write_bytes(b"damaged")
    for source, said in (
        (Source(release_folder, "another"), "hashed with another key"),
        (Source(copied_release, DEFAULT_USER_KEY), r"is not as it was sealed \(changed: items.parquet\)"),
    ):
        with pytest.raises(ReleaseError, match=said):
            recommend_all(Job(source, Options(), out, None, 1), say=print, progress=print)
    assert not out.exists()


def test_it_runs_where_nothing_of_training_is_installed(release_folder: Path, tmp_path: Path) -> None:
    """As in the image: no process of it finds torch, pandas, rich or `training`."""
    forbidden = ("torch", "pandas", "sklearn", "mlflow", "typer", "rich", "training")
    home = tmp_path / "home"
    home.mkdir()
    (home / "service").symlink_to(HOME / "service")
    (home / "sitecustomize.py").write_text(ABSENT.format(forbidden))
    out, users = tmp_path / "all.parquet", strangers(tmp_path / "users.csv", 1)
    alone = environment(release_folder.resolve(), PYTHONPATH=str(home), PYTHONSAFEPATH="1")
    program = [sys.executable, "-W", "ignore", *command("--out", out, "--users", users)[1:]]
    done = subprocess.run(program, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(answers(out)) == 6
