"""Training that takes seconds."""

from pathlib import Path

from training.encoder.trainer import EncoderParameters
from training.options import Options
from training.ranker.fitting import RankerParameters


def options(catalogue: Path, releases: Path, **changes: object) -> Options:
    """Training that takes seconds."""
    fields: dict = {
        "catalogue": catalogue,
        "releases": releases,
        "encoder": EncoderParameters(
            backbone="convnet",
            weights="none",
            dim=32,
            epochs=4,
            batch_size=32,
            image_size=96,
            learning_rate=3e-3,
            last_layer_steps=400,
        ),
        "ranker": RankerParameters(factors=16, sweeps=5),
        "user_key": "vitrine",
    }
    return Options(**(fields | changes))
