"""The verbs of the store, and training that watches."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import VitrineError
from service.live.operations import AddEvents, LinkSession, NewEvent, PatchItem
from service.live.store import Store
from service.recommender.user_keys import hash_session, hash_user
from tests.processes import HOME
from training.watch import read_duration, state_of

KEY = "vitrine"
ITEMS = "item_id,title,category\n1,Red dress,dress\n2,Blue hat,hat\n"


def vitrine(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """What it says."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False, input=typed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two items without pictures."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.csv").write_text(ITEMS)
    return tmp_path / "shop"


def test_a_user_is_erased_by_an_id_that_is_typed(tmp_path: Path) -> None:
    """Events and sessions go, and it says how many; the id is on no command line."""
    store = Store.open(str(tmp_path / "live.db"))
    anna, visit = hash_user("anna", KEY), hash_session("v", KEY)
    store.write([AddEvents([NewEvent(anna, "1", "view"), NewEvent(visit, "1", "like")]), LinkSession(visit, anna)])
    done = vitrine("erase", "-", "--store", tmp_path / "live.db", "--json", typed="anna\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sequence": 4, "events": 2, "sessions": 1}
    assert store.held(anna) == {"events": [], "sessions": 0}
    assert "which store" in vitrine("erase", "anna").stderr


def test_an_export_prints_its_path(folder: Path, tmp_path: Path) -> None:
    """Its counts with --json."""
    Store.open(str(tmp_path / "live.db")).write([PatchItem("1", {"price": 3}, known=True)])
    arguments = ("export-store", tmp_path / "live.db", "--catalogue", folder, "--out", tmp_path / "out")
    assert vitrine(*arguments).stdout.strip() == str(tmp_path / "out")
    found = json.loads(vitrine(*arguments, "--json").stdout)
    assert (found["items"], found["mark"]["sequence"]) == (2, 1)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400)])
def test_how_often_is_said_as_people_say_it(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "0h", "6 h", "-1h", "h"])
def test_another_way_to_say_it_is_refused(text: str) -> None:
    """It says what is expected."""
    with pytest.raises(VitrineError, match="such as 30m"):
        read_duration(text)


def test_a_change_of_folder_or_store_is_seen(folder: Path, tmp_path: Path) -> None:
    """And nothing else is one."""
    store = Store.open(str(tmp_path / "live.db"))
    states = [state_of(folder, str(tmp_path / "live.db")) for _ in range(2)]
    store.write([PatchItem("1", {"price": 3}, known=True)])
    states.append(state_of(folder, str(tmp_path / "live.db")))
    os.utime(folder / "items.csv", (1, 1))
    states.append(state_of(folder, str(tmp_path / "live.db")))
    assert states[0] == states[1]
    assert len(set(states)) == 3


def test_watching_says_one_line_a_round_and_ends_when_told_to(tmp_path: Path) -> None:
    """A round that fails is said and tried again; SIGTERM ends it with code 0."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.csv").write_text("item_id,title\n1,Red dress\n")  # nothing to learn from
    command = [sys.executable, "-m", "training", "train", str(tmp_path / "shop"), "--releases", str(tmp_path / "r"),
               "--no-register", "--watch", "1s"]  # fmt: skip
    with subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=60) == 0
    assert all("the training failed" in line for line in lines)
    assert time.monotonic() - began < 60
