"""`vitrine recommend-all`, as a person and as a script would use it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.processes import HOME, wait_until
from tests.service.batch.runs import answers, parts, strangers
from tests.training.cli.test_commands import vitrine
from training.__main__ import INTERRUPTED


def test_it_says_what_was_made(release_folder: Path, tmp_path: Path) -> None:
    """Users by tier, rows and speed for people, and the path last; what is not in the file by its row."""
    users, out = strangers(tmp_path / "users.csv", 3), tmp_path / "all.parquet"
    with users.open("a") as file:
        file.write('00003\n""\n')
    done = vitrine("recommend-all", release_folder, "--out", out, "--users", users, "-k", "4")
    assert done.stdout.splitlines() == [str(out)]
    said = done.stderr
    assert "rows of users that repeat an earlier one: 1" in said
    assert "rows of users without a user_id: 1 (rows 10)" in said
    assert "release 1: 8 users (popular 3, taste 5), 32 rows" in said
    assert "8 users in " in said
    assert "users/s" in said
    assert [len(rows) for rows in answers(out).values()] == [4] * 8


def test_a_script_names_the_release_by_its_number_and_reads_json(release_folder: Path, tmp_path: Path) -> None:
    """With --releases, as verbs of the registry do; k is 20 where nothing is said."""
    out = tmp_path / "all.parquet"
    done = vitrine("recommend-all", "1", "--releases", release_folder.parent, "--out", out, "--json")
    made = json.loads(done.stdout)
    assert (made["release"], made["users"], made["rows"], made["out"]) == ("1", 200, 4000, str(out))
    assert made["users_per_second"] > 0


def test_ctrl_c_leaves_one_line_and_parts(release_folder: Path, tmp_path: Path) -> None:
    """A terminal sends it to every process of the run: none of them has more to say, and no file is there."""
    users, out = strangers(tmp_path / "users.csv", 5_000), tmp_path / "all.parquet"
    command = [sys.executable, "-m", "training", "recommend-all", release_folder, "--out", out, "--users", users]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
    with subprocess.Popen(
        list(map(str, command)), cwd=HOME, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        signal.signal(signal.SIGINT, handler)
        wait_until(lambda: bool(parts(out)))
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said
    assert said.count("interrupted") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet.parts", "users.csv"]
