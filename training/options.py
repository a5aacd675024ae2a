"""What `vitrine train` was asked for, in one place."""

from dataclasses import dataclass
from pathlib import Path

from service.recommender.index.vector_index import EXACT_BELOW
from training.encoder.precisions import LEAST_OVERLAP
from training.encoder.trainer import EncoderParameters
from training.index import embedding
from training.ranker.fitting import RankerParameters


@dataclass(frozen=True, slots=True)
class Options:
    """The catalogue, where releases go, and how each stage is to work."""

    catalogue: Path
    releases: Path
    encoder: EncoderParameters
    ranker: RankerParameters
    user_key: str
    signing_key: Path | None = None  # that the release is signed with
    only: str | None = None
    split_column: str | None = None
    test_from: int | None = None
    protocol: str = "temporal"
    choose: bool = False  # the ranker's regularisation, by trying a few
    max_unusable: float = 0.05
    exact_below: int = EXACT_BELOW
    precisions: tuple[str, ...] = ()  # of the encoder, beside fp32
    least_overlap: float = LEAST_OVERLAP
    index_recall: float = embedding.RECALL
    previous: Path | None = None  # a release to go on from: its encoder and vectors, factors, chosen parameters
    keep_encoder: bool = False  # whether or not it holds on pictures that are new
    new_encoder: str = ""  # why that encoder is not kept
    model_repository: Path | None = None  # that the release's encoder is installed in, for Triton
