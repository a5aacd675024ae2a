"""The last stage: the products of all others -> a release with its number, registered."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from service.recommender.pipeline import Recommender
from service.recommender.scoring.weights import Blend
from training.data.catalogue import Catalogue
from training.data.split import Split
from training.evaluation import evaluate
from training.evaluation.report import write_report
from training.options import Options
from training.packaging import package, release_numbers
from training.packaging.manifest import describe
from training.previous.release import Previous
from training.ranker.term_weights import UNLEARNED
from training.stage_cache import Product


@dataclass(frozen=True, slots=True)
class Source:
    """What the release is made from. split: None without interactions; fingerprint: of the catalogue; previous: what
    it goes on from; kept: what the manifest says of that."""

    catalogue: Catalogue
    options: Options
    split: Split | None
    fingerprint: str
    previous: Previous | None = None
    kept: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Products:
    """Of the stages before; None for one that the catalogue has no data for. precisions: the encoder in fewer bits;
    curve: of the encoder's training; colours: file of the pictures' colours."""

    encoder: Product | None
    index: Product | None
    ranker: Product | None
    precisions: dict[str, Product]
    curve: list[dict[str, float]] | None
    colours: Path | None = None


class Registry(Protocol):
    """Numbers releases and keeps them."""

    def reserve(self, releases: Path, *, began: datetime) -> int:
        """A number that no release has."""

    def add(self, path: Path) -> Any:
        """Keep a release."""


def build(
    folder: Path, source: Source, products: Products, *, registry: Registry | None, began: datetime
) -> dict[str, Any]:
    """Package the products, evaluate the release, give it its number; returns its folder's name as `release`.

    folder: keeps the number of a packaging that is killed; registry: None numbers by the folder of releases alone;
    began: when this training did."""
    releases, unlearned = source.options.releases, folder / "blend.json"
    Blend(UNLEARNED).save(unlearned)
    number = _number(folder / "number", releases, registry, began)
    path = releases / str(number)
    if not path.exists():
        path = package.package(
            _parts(source, products, unlearned),
            releases,
            number=number,
            user_key=source.options.user_key,
            signing_key=source.options.signing_key,
            report=partial(_report, source, products),
        )
    if registry is not None:
        registry.add(path)
    return {"release": path.name}


def _parts(source: Source, products: Products, unlearned: Path) -> package.Parts:
    index, ranker = products.index, products.ranker
    manifest = describe(
        source.catalogue,
        source.options,
        source.split,
        fingerprint=source.fingerprint,
        index=index.facts if index else None,
        ranker=ranker.facts if ranker else None,
        precisions={name: made.facts for name, made in products.precisions.items()},
        kept=source.kept,
    )
    return package.Parts(
        catalogue=source.catalogue,
        seen=source.split.train if source.split else None,
        encoder=products.encoder.folder if products.encoder else None,
        precisions={name: made.folder for name, made in products.precisions.items()},
        least_overlap=source.options.least_overlap,
        index=index.folder if index else None,
        ranker=ranker.folder if ranker else None,
        blend=ranker.folder / "blend.json" if ranker else unlearned,
        manifest=manifest,
        colours=products.colours,
        previous=source.previous,
    )


def _number(noted: Path, releases: Path, registry: Registry | None, began: datetime) -> int:
    """The release's number; of a packaging that was killed after its release was there, the same again."""
    if noted.exists() and (releases / noted.read_text()).exists():
        return int(noted.read_text())
    number = registry.reserve(releases, began=began) if registry else release_numbers.take(releases)
    noted.write_text(str(number))
    return number


def _report(source: Source, products: Products, recommender: Recommender, folder: Path) -> dict[str, Any]:
    """Times are left out: they belong to a machine, and the same inputs must give the same release."""
    found = evaluate.evaluate(recommender, source.catalogue, split_column=source.options.split_column)
    evaluate.write_metrics(found.metrics, folder)
    if products.curve is not None:
        (folder / "training.json").write_text(json.dumps(products.curve) + "\n")
    write_report(found, recommender.release, folder / "report.html")
    return found.metrics
