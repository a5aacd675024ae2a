"""What the stages begin with: a catalogue that can be learned from, and what says whether an encoder is another."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import scipy.sparse

from service.errors import CatalogueError
from service.files import digest
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import read
from training.data.split import Split
from training.options import Options
from training.picture_digests import remembered_in
from training.progress import say
from training.ranker import fitting
from training.ranker.fitting import RankerParameters

FEWEST_PICTURES = 2  # that an encoder can learn to tell apart


def read_catalogue(options: Options) -> Catalogue:
    """The catalogue before its pictures are decoded. Raises CatalogueError."""
    catalogue = read(options.catalogue, remembered=remembered_in(options.releases))
    catalogue.require_key(options.user_key)
    catalogue.require_usable(options.max_unusable)
    if 0 < len(catalogue.pictured()) < FEWEST_PICTURES and catalogue.interactions is not None:
        say(f"{len(catalogue.pictured())} picture is too few to learn from: the release will have none")
        return catalogue.without_pictures()
    return catalogue


def require_enough(catalogue: Catalogue, options: Options) -> None:
    """catalogue: after its pictures were decoded. Raises CatalogueError where nothing can be learned from it."""
    catalogue.require_usable(options.max_unusable)
    if len(catalogue.pictured()) < FEWEST_PICTURES and catalogue.interactions is None:
        found = f"{len(catalogue.pictured())} usable pictures and no interactions"
        needed = f"{FEWEST_PICTURES} pictures, or a log, are needed"
        raise CatalogueError(f"the catalogue has {found}: there is nothing to learn from; {needed}")


def touched_pairs(cut: Split | None, *, items: int, parameters: RankerParameters) -> scipy.sparse.csr_matrix | None:
    """(users, items), True where a user touched an item in training, and did not dismiss it."""
    if cut is None:
        return None
    matrix, _ = fitting.confidence_matrix(cut.train, items=items, parameters=parameters)
    return matrix > 0


def encoder_parameters(options: Options) -> dict[str, Any]:
    """How the encoder is trained; a file of weights by its digest."""
    parameters = asdict(options.encoder)
    if options.encoder.weights not in ("imagenet", "none"):
        path = Path(options.encoder.weights)
        parameters["weights"] = digest(path) if path.is_file() else options.encoder.weights
    return parameters
