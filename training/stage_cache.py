"""Each stage leaves its product whole or not at all, and is skipped when its inputs have not changed."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import source_code
from training.progress import say
from training.source_code import files_behind

STAGES = ("encoder", "export", "index", "ranker", "package")

# The modules that make a stage's product: a change of theirs, or of anything of ours that they import, calls for a new
# one.
CODE = {
    "pictures": ("training.data.pictures",),
    "examined": ("training.previous.pictures",),
    "encoder": ("training.encoder.examples", "training.encoder.trainer"),
    "export": ("training.encoder.export",),
    "index": ("training.index.embedding",),
    "ranker": ("training.data.side_information", "training.ranker.stage"),
    "int8": ("training.encoder.precisions",),
    "fp16": ("training.encoder.precisions",),
    "package": ("training.packaging.stage",),
}
# what no product depends on: how things are said, stored and signed
NEUTRAL = frozenset(
    (
        "service.errors",
        "training.picture_digests",
        "training.progress",
        "training.source_code",
        "training.sqlite",
        "training.stage_cache",
    )
)

KEPT = 2  # products of each stage, the latest ones


@dataclass(frozen=True, slots=True)
class Product:
    """What a stage left: a folder, the digest of what it was made from, and what the stage had to say of it."""

    folder: Path
    key: str
    facts: dict[str, Any]


class StageCache:
    """Holds the products of stages in one folder, each named by the digest of its inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def make(
        self,
        stage: str,
        inputs: dict[str, Any],
        build: Callable[[Path], dict[str, Any]],
        *,
        code: tuple[str, ...],
        resumable: bool = False,
    ) -> Product:
        """Return the product of a stage, building it if there is none for these inputs.

        inputs: JSON values; code: the modules that make it, see CODE;
        build: fills a folder and returns facts; resumable: an unfinished folder is handed to it again."""
        if (product := self.find(stage, inputs, code=code)) is not None:
            say(f"{stage}: skipped, its inputs have not changed")
            return product
        unfinished = self.unfinished(stage, inputs, code=code)
        folder = unfinished.with_suffix("")
        if unfinished.exists() and not resumable:
            shutil.rmtree(unfinished)
        unfinished.mkdir(exist_ok=True)
        facts = build(unfinished)
        (unfinished / "stage.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
        unfinished.replace(folder)
        self._forget_old(stage)
        return Product(folder, self.key(inputs, code), facts)

    def unfinished(self, stage: str, inputs: dict[str, Any], *, code: tuple[str, ...]) -> Path:
        """Where the product for these inputs is made before it has its name."""
        return self.folder / f"{stage}-{self.key(inputs, code)[:16]}.part"

    def find(self, stage: str, inputs: dict[str, Any], *, code: tuple[str, ...]) -> Product | None:
        """The finished product for these inputs, if there is one."""
        key = self.key(inputs, code)
        folder = self.folder / f"{stage}-{key[:16]}"
        if not folder.exists():
            return None
        return Product(folder, key, json.loads((folder / "stage.json").read_text()))

    def forget(self, product: Product) -> None:
        """Drop a product, so that it is made again."""
        shutil.rmtree(product.folder)

    @staticmethod
    def key(inputs: dict[str, Any], code: tuple[str, ...]) -> str:
        """sha256 over inputs and the text of the code."""
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode())
        for file in files_behind(code, NEUTRAL):
            digest.update(str(file.relative_to(source_code.HOME)).encode() + file.read_bytes())
        return digest.hexdigest()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One training at a time in one folder: a second one waits."""
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another training that works in {self.folder}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _forget_old(self, stage: str) -> None:
        finished = [path for path in self.folder.glob(f"{stage}-*") if path.suffix != ".part"]
        for path in sorted(finished, key=lambda p: p.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(path)
