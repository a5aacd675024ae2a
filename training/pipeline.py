"""All stages in their order: a catalogue folder in, the path of a new release out."""

from pathlib import Path
from typing import TYPE_CHECKING

from training.encoder import distributed
from training.options import Options
from training.stage_cache import StageCache
from training.stages.continued import open_run

if TYPE_CHECKING:  # MLflow takes longer to import than most commands to run
    from training.promotion.registry import Registry


def train(options: Options, registry: "Registry | None" = None) -> Path | None:
    """Run the stages; returns the path of the release, or None where `only` stopped before packaging.

    registry: gives the release its number and keeps it; None: its folder's name is all that numbers it."""
    cache = StageCache(options.releases / ".stages")
    rank, _ = distributed.join()
    if rank > 0:  # the other processes of torchrun take part in the encoder's training alone
        distributed.wait_for_all()  # until the first one has decoded the pictures
        if options.only in (None, "encoder"):
            open_run(options, cache, None).train_along()
        return None
    with cache.locked():
        run = open_run(options, cache, registry)
        distributed.wait_for_all()
        return run.all()
