"""A stage is made anew when code that it rests on has changed, wherever that lies."""

from pathlib import Path

import pytest

from training import source_code
from training.source_code import files_behind
from training.stage_cache import CODE, NEUTRAL, StageCache


def write(folder: Path, **files: str) -> None:
    """Modules, by their dotted names with two underscores for each dot."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project: a stage that imports a package, one of whose modules imports another deep below."""
    monkeypatch.setattr(source_code, "HOME", tmp_path)
    write(
        tmp_path,
        training__stage="from training.ranker import model\n",
        training__ranker__model="def learn():\n    from service.deep.down.terms import ONE\n    return ONE\n",
        service__deep__down__terms="ONE = 1\n",
        service__deep__unused="TWO = 2\n",
    )
    return tmp_path


def key() -> str:
    """Of the stage's product, as a new process computes it."""
    files_behind.cache_clear()
    return StageCache.key({}, ("training.stage",))


def test_a_change_far_below_gives_another_key(home: Path) -> None:
    """In a module of a folder within a folder, imported within a function; and in a template beside it."""
    keys = [key()]
    write(home, service__deep__down__terms="ONE = 3\n")
    keys.append(key())
    (home / "service" / "deep" / "down" / "page.html.j2").write_text("<p>")
    keys.append(key())
    assert len(set(keys)) == 3


def test_what_a_stage_does_not_import_leaves_its_key(home: Path) -> None:
    """Another module of the same package, and what Python compiled."""
    before = key()
    write(home, service__deep__unused="TWO = 4\n")
    compiled = home / "service" / "deep" / "down" / "__pycache__"
    compiled.mkdir()
    (compiled / "terms.cpython-311.pyc").write_bytes(b"compiled")
    assert key() == before


def test_a_module_that_moves_gives_another_key(home: Path) -> None:
    """The same text under another name is other code."""
    before = key()
    write(home, training__stage="from training.fitting import model\n", training__fitting__model="ONE = 1\n")
    moved = key()
    write(home, training__stage="from training.fitter import model\n", training__fitter__model="ONE = 1\n")
    assert len({before, moved, key()}) == 3


def test_a_change_of_the_page_does_not_train_the_encoder_anew() -> None:
    """It is made by what the encoder's training imports; the index by the service's search as well."""
    files_behind.cache_clear()
    behind = {
        stage: {str(path.relative_to(source_code.HOME)) for path in files_behind(CODE[stage], NEUTRAL)}
        for stage in CODE
    }
    assert "training/encoder/losses.py" in behind["encoder"]
    assert not [path for path in behind["encoder"] if path.startswith(("training/evaluation", "training/ranker"))]
    assert "service/recommender/index/vector_index.py" in behind["index"]
    assert "service/recommender/scoring/terms.py" in behind["ranker"]
    assert "training/evaluation/report.html.j2" in behind["package"]
