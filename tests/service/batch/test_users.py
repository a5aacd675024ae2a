"""Who is answered: ids stay what they are, each user counts once, and what is no id is said by its row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.batch.users import read_users, users_of
from service.errors import VitrineError
from service.recommender.pipeline import Recommender
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.service.batch.runs import without_interactions


def test_the_users_of_a_release_are_its_keys(recommender: Recommender) -> None:
    """Each once: all that it holds of who they are."""
    users = users_of(recommender.release)
    assert users.column == "user_key"
    assert sorted(users.names) == sorted(hash_user(f"{number:05}", DEFAULT_USER_KEY) for number in range(200))


def test_a_release_without_interactions_asks_for_users(recommender: Recommender) -> None:
    """It knows nobody, and says what to do."""
    with pytest.raises(VitrineError, match="knows no users: name users by --users FILE"):
        users_of(without_interactions(recommender.release))


def test_a_file_of_users_is_read_in_its_order(tmp_path: Path) -> None:
    """`007` is not 7, blanks around an id do not belong to it, and other columns may hold what they like."""
    file = tmp_path / "users.csv"
    file.write_text('\ufeffname,user_id\nJosé,007\n"two\nlines",7\n"a,b", 007 \n,\n,7\n"x","Zoë, the 2nd"\n')
    users = read_users(file)
    assert users.column == "user_id"
    assert users.names == ["007", "7", "Zoë, the 2nd"]
    assert (users.repeated, users.unusable) == (2, [4])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(["b", "a", None, "b", "x" * 513]), ["b", "a"]),
        (pa.array([30, 4, 30]), ["30", "4"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a"]),
    ],
    ids=["text", "whole numbers", "a dictionary"],
)
def test_parquet_is_read_as_well(ids: pa.Array, expected: list[str], tmp_path: Path) -> None:
    """Text, whole numbers, or what pandas writes of categories."""
    pq.write_table(pa.table({"user_id": ids, "since": range(len(ids))}), tmp_path / "users.parquet")
    users = read_users(tmp_path / "users.parquet")
    assert users.names == expected
    assert users.repeated + len(users.unusable) == len(ids) - len(expected)


WRONG = {
    "gone.csv": (None, "no such file"),
    "other.csv": ("user;id\n1;2\n", "no column user_id in its first line, 'user;id'"),
    "latin.csv": ("user_id\nJosé\n".encode("latin-1"), "expected CSV in UTF-8"),
    "ragged.csv": ("user_id,a\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "nobody.csv": ("user_id,a\n,2\n", "names no user: none of its 1 rows has a user_id"),
    "void.csv": ("", "cannot be read"),
    "text.parquet": ("user_id\n1\n", "cannot be read"),
    "other.parquet": (pa.table({"user": ["1"]}), "no column user_id; there are user"),
    "floats.parquet": (pa.table({"user_id": [1.0]}), "user_id is double; ids are text, or whole numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    """By name, with what was found and what is expected."""
    content, said = WRONG[name]
    if isinstance(content, pa.Table):
        pq.write_table(content, tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VitrineError, match="--users") as refused:
        read_users(tmp_path / name)
    assert said in str(refused.value)
    assert name in str(refused.value)
