"""The same stages where the encoder of an earlier release is kept: pictures that it knows are not looked at again."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.encoder.preprocessing import PREPROCESSING
from service.errors import CatalogueError
from training.data import pictures
from training.data.catalogue import Catalogue
from training.encoder.trainer import EncoderParameters
from training.options import Options
from training.previous.pictures import examine_new, on_demand
from training.previous.release import Previous
from training.previous.verdict import Verdict, judge
from training.progress import say
from training.stage_cache import Product, StageCache
from training.stages.run import Run

if TYPE_CHECKING:
    from training.promotion.registry import Registry


class ContinuedRun(Run):
    """A run with the encoder of an earlier release."""

    previous: Previous

    def __init__(
        self, options: Options, cache: StageCache, registry: "Registry | None" = None, *, previous: Previous
    ) -> None:
        own = replace(options, encoder=EncoderParameters(**previous.encoder_parameters))
        super().__init__(own, cache, registry, previous=previous)

    @property
    def same_encoder(self) -> Previous:
        """A release whose vectors are those of this run's encoder."""
        return self.previous

    def _decode(self, catalogue: Catalogue) -> Catalogue:
        def build(folder: Path) -> dict[str, Any]:
            return {"new": examine_new(catalogue, self.previous, folder)}

        inputs = {"catalogue": self.fingerprint, "previous": self._previous_key()}
        self.examined = self._make("examined", inputs, build)
        examined = pictures.open_examined(self.examined.folder)
        found = catalogue.with_pictures(examined.unreadable, examined.same)
        self.pictures = on_demand(found)
        return found

    def export(self) -> Product:
        """The encoder as it is."""
        fingerprint = self.previous.release.manifest.files["encoder.onnx"]["sha256"]
        return Product(self.previous.release.path, fingerprint, {})

    def precisions(self) -> dict[str, Product]:
        """Those that the release has; others are made of its encoder."""
        release = self.previous.release
        made = dict((release.manifest.encoder or {})["precisions"])
        missing = tuple(name for name in self.options.precisions if name not in made)
        kept = {
            name: Product(
                release.path,
                release.manifest.files[release.encoders[name].name]["sha256"],
                {key: value for key, value in facts.items() if key not in ("parent", "whole_chain")},
            )
            for name, facts in made.items()
            if name in self.options.precisions
        }
        return kept | self._make_precisions(missing)

    def train_along(self) -> None:
        """There is nothing to train."""

    def curve(self) -> Any:
        """Of the encoder's training, as the release reports it."""
        told = self.previous.release.path / "report" / "training.json"
        return json.loads(told.read_text()) if told.exists() else None


def open_run(options: Options, cache: StageCache, registry: "Registry | None") -> Run:
    """A run that goes on from a release where one is named, with its encoder where that holds.

    Raises CatalogueError where it is asked for and cannot be kept."""
    if options.previous is None:
        return Run(options, cache, registry)
    previous = Previous.open(options.previous)
    why = _why_not(options, previous)
    if why is None:
        run = ContinuedRun(options, cache, registry, previous=previous)
        why = _why_not_of_data(run)
        if why is None:
            verdict = judge(run.catalogue, previous)
            if verdict.kept or options.keep_encoder:
                say(f"encoder: that of release {previous.number} is kept: {verdict.why}")
                run.kept = _told(previous, verdict, encoder=True)
                return run
            say(f"encoder: trained anew, that of release {previous.number} no longer holds: {verdict.why}")
            return Run(options, cache, registry, previous=previous, kept=_told(previous, verdict, encoder=False))
    if options.keep_encoder:
        raise CatalogueError(f"the encoder of release {previous.number} cannot be kept: {why}")
    say(f"encoder: trained anew: {why}")
    return Run(options, cache, registry, previous=previous, kept=_told(previous, None, encoder=False))


def _why_not(options: Options, previous: Previous) -> str | None:
    """What keeps an encoder from being kept, as far as the release itself says it."""
    release = previous.release
    if options.new_encoder:
        return options.new_encoder
    if release.manifest.encoder is None:
        return f"release {previous.number} has none"
    if release.preprocessing != PREPROCESSING:
        return f"release {previous.number} reads pictures otherwise than this code does"
    if (column := release.manifest.training["split_column"]) != options.split_column:
        return f"release {previous.number} was trained with --split-column {column}"
    return None


def _why_not_of_data(run: ContinuedRun) -> str | None:
    if run.pictures is None:
        return "the catalogue has no pictures"
    cut, before = run.split, run.previous
    if cut is not None and not (before.is_before(cut.cutoff) and before.protocol == cut.protocol):
        return f"release {before.number} was taught some of what is held out here"
    return None


def _told(previous: Previous, verdict: Verdict | None, *, encoder: bool) -> dict[str, Any]:
    """What the manifest says."""
    return {
        "release": previous.number,
        "encoder": encoder,
        "verdict": None if verdict is None else asdict(verdict),
        "chosen_by": previous.chosen_by,
    }
