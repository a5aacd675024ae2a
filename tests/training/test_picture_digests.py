"""A picture is read once, as long as its file stays as it is."""

import hashlib
import os
from pathlib import Path

import pytest

from training.picture_digests import digest_all

LONG_AGO = 1_600_000_000


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files that have long been there."""
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name)
        os.utime(path, (LONG_AGO, LONG_AGO))
    return paths


def sha256(text: str) -> bytes:
    """Of what a file holds."""
    return hashlib.sha256(text.encode()).digest()


def test_what_is_remembered_is_not_read(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no file is opened."""
    found = digest_all(files, remembered=tmp_path / "digests")
    assert found == [sha256("a"), sha256("b")]
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    assert digest_all(files, remembered=tmp_path / "digests") == found


def test_a_file_that_was_changed_is_read(files: list[Path], tmp_path: Path) -> None:
    """By its time, its size, or because another file took its place with both."""
    remembered = tmp_path / "digests"
    digest_all(files, remembered=remembered)
    files[0].write_text("c")
    (tmp_path / "new").write_text("d")
    os.utime(tmp_path / "new", (LONG_AGO, LONG_AGO))
    (tmp_path / "new").replace(files[1])
    assert digest_all(files, remembered=remembered) == [sha256("c"), sha256("d")]


def test_what_was_changed_a_moment_ago_is_not_trusted(tmp_path: Path) -> None:
    """It may be changed again within the same tick of the clock."""
    path = tmp_path / "a"
    path.write_text("a")
    digest_all([path], remembered=tmp_path / "digests")
    status = path.stat()
    path.write_text("b")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_all([path], remembered=tmp_path / "digests") == [sha256("b")]


def test_a_memory_that_is_spoilt_is_made_again(files: list[Path], tmp_path: Path) -> None:
    """It says nothing that the files do not."""
    (tmp_path / "digests").write_text("spoilt")
    assert digest_all(files, remembered=tmp_path / "digests") == [sha256("a"), sha256("b")]
