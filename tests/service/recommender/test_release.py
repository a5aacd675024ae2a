"""A release verifies as a whole, or is refused with what is wrong."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import ReleaseDamaged, ReleaseMismatch, ReleaseTooNew
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import MANIFEST, Manifest, Release, list_files
from tests.processes import FIXTURES
from tests.stored_text import READERS, ids_in


def reseal(folder: Path, **changes: object) -> None:
    """Give a changed release a manifest that lists it as it is now."""
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**values, "files": list_files(folder), **changes}))


def test_a_release_opens_and_answers_its_golden_cases(release_folder: Path) -> None:
    """What was packaged verifies, and the golden queries give the recorded items."""
    prove(Recommender(Release.open(release_folder)))


def test_damage_is_listed_as_missing_extra_and_changed(copied_release: Path) -> None:
    """One error names every file that is not as it was sealed."""
    (copied_release / "index.faiss").unlink()
    (copied_release / "notes.txt").write_text("mine")
    with (copied_release / "vectors.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ReleaseDamaged) as refused:
        Release.open(copied_release)
    assert "missing: index.faiss; extra: notes.txt; changed: vectors.npy" in str(refused.value)


def test_a_newer_format_is_refused(copied_release: Path) -> None:
    """A release of a later format version is not guessed at."""
    reseal(copied_release, format=2)
    with pytest.raises(ReleaseTooNew, match="format version 2"):
        Release.open(copied_release)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_broken_manifest_is_refused(copied_release: Path, text: str) -> None:
    """A manifest that says nothing sensible is damage."""
    (copied_release / MANIFEST).write_text(text)
    with pytest.raises(ReleaseDamaged):
        Release.open(copied_release)


def test_parts_of_different_sizes_are_refused(copied_release: Path) -> None:
    """Vectors of another dimension do not belong to this encoder, also under a valid digest."""
    vectors = np.load(copied_release / "vectors.npy")
    np.save(copied_release / "vectors.npy", vectors[:, :16])
    reseal(copied_release)
    with pytest.raises(ReleaseMismatch, match=r"vectors.npy is \(144, 16\)"):
        Release.open(copied_release)


def test_an_index_of_another_encoder_is_refused(copied_release: Path) -> None:
    """Index and encoder must carry one fingerprint."""
    index = Manifest.read(copied_release).index
    reseal(copied_release, index={**(index or {}), "fingerprint": "0" * 64})
    with pytest.raises(ReleaseMismatch, match="index fingerprint"):
        Release.open(copied_release)


def test_golden_cases_catch_wrong_vectors(copied_release: Path) -> None:
    """A release that fits together but answers otherwise than when it was made is not served."""
    vectors = np.load(copied_release / "golden" / "vectors.npy")
    np.save(copied_release / "golden" / "vectors.npy", vectors[::-1])
    reseal(copied_release)
    with pytest.raises(ReleaseMismatch, match="golden picture"):
        prove(Recommender(Release.open(copied_release)))


def test_another_user_key_is_refused(release_folder: Path) -> None:
    """With the wrong key every user would silently be unknown."""
    with pytest.raises(ReleaseMismatch, match="VITRINE_USER_KEY"):
        Recommender(Release.open(release_folder), user_key="another")


def test_nothing_in_a_release_names_a_user(release_folder: Path, boutique_folder: Path) -> None:
    """User ids are keyed hashes, and nobody's profile is copied: what is stored of it is common to many."""
    with (boutique_folder / "users.csv").open() as file:
        users = {row["user_id"] for row in csv.DictReader(file)}
    assert len(users) == 200
    files = [path for path in release_folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == set(READERS)
    assert {path.name: found for path in files if (found := ids_in(path, users))} == {}
    assert pq.read_table(release_folder / "ranker" / "users.parquet").column_names == ["user"]
    told = json.loads((release_folder / "features.json").read_text())["user_features"]
    ages = {column["name"]: column["values"] for column in told}["age"]
    assert ages == [], "an age that few have would tell who they are"


USERS = [f"{number:05d}" for number in range(200)]
NAMING: dict[str, Callable[[Path], object]] = {
    "values.parquet": lambda path: pq.write_table(pa.table({"user": USERS}), path),
    "lists.parquet": lambda path: pq.write_table(pa.table({"users": [USERS]}), path),
    "bytes.parquet": lambda path: pq.write_table(pa.table({"user": [user.encode() for user in USERS]}), path),
    "column.parquet": lambda path: pq.write_table(pa.table({user: [1] for user in USERS}), path),
    "metadata.parquet": lambda path: pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"u": "00007"}), path),
    "strings.npy": lambda path: np.save(path, np.array(USERS)),
    "bytes.npy": lambda path: np.save(path, np.array([user.encode() for user in USERS])),
    "letters.npy": lambda path: np.save(path, np.array([list(user.encode()) for user in USERS], np.uint8)),
    "escaped.json": lambda path: path.write_text(r'{"a": ["\u00300007"]}'),
    "key.json": lambda path: path.write_text('{"00007": 1}'),
    "page.html": lambda path: path.write_text('<img src="data:image/jpeg;base64,AAAA">of &#48;0007'),
    "network.onnx": lambda path: path.write_bytes(b"\x0800007\x12"),
    "thumbnails.bin": lambda path: path.write_bytes(b"\xff\xd8" + "00007".encode("utf-16")),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMING)
def test_a_user_is_found_in_every_format(name: str, tmp_path: Path) -> None:
    """So that a search that finds nobody means that nobody is there, and not that it cannot read."""
    NAMING[name](tmp_path / name)
    assert "00007" in ids_in(tmp_path / name, USERS)
    assert ids_in(tmp_path / name, ["00200", "0000"]) == set()


@pytest.mark.parametrize("version", [1])
def test_each_released_format_still_opens(version: int) -> None:
    """Releases of every format version that was ever written open, and answer as they did."""
    recommender = Recommender(Release.open(FIXTURES / f"release-format-{version}"))
    prove(recommender)
    assert recommender.recommend([Query(user_id="u1", k=3)])[0].tier == "taste"
