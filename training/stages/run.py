"""The stages of a training over one catalogue, each of which asks for those before it."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

from service.encoder.engines import OnnxRuntime
from service.errors import CatalogueError
from service.files import digest
from service.recommender.release import MANIFEST, Release, encoder_file
from service.recommender.user_keys import key_check
from service.serving import model_repository
from training.data import pictures, side_information, split
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import say_what_was_read
from training.data.side_information import Known
from training.encoder import examples, export, precisions, trainer
from training.encoder.batches import Examples
from training.index import embedding
from training.options import Options
from training.packaging import stage as packaging
from training.packaging.stage import Products, Source
from training.previous.release import Previous
from training.progress import say
from training.ranker import stage as ranking
from training.ranker.continued import chosen_before, start_of
from training.stage_cache import CODE, STAGES, Product, StageCache
from training.stages.inputs import encoder_parameters, read_catalogue, require_enough, touched_pairs

if TYPE_CHECKING:  # MLflow takes longer to import than most commands to run
    from training.promotion.registry import Registry


class Run:
    """One run over one catalogue; each method is a stage, and asks for those before it."""

    def __init__(
        self,
        options: Options,
        cache: StageCache,
        registry: "Registry | None" = None,
        *,
        previous: Previous | None = None,
        kept: dict[str, Any] | None = None,
    ) -> None:
        """previous: a release whose factors and chosen parameters are gone on from; kept: what the manifest says of
        it."""
        self.began = datetime.now(UTC)
        self.options, self.cache, self.registry = options, cache, registry
        self.previous, self.kept = previous, kept
        self._made: dict[str, Product] = {}
        catalogue = read_catalogue(options)
        self.fingerprint = catalogue.fingerprint()
        self.pictures: pictures.Pictures | None = None
        self.examined: Product | None = None
        self.catalogue = self._decode(catalogue) if len(catalogue.pictured()) else catalogue
        require_enough(self.catalogue, options)
        say_what_was_read(self.catalogue)
        self.split = self._split()

    def all(self) -> Path | None:
        """Run the stages in their order, or one of them alone."""
        only = self.options.only
        if only in ("encoder", "export", "index") and self.pictures is None:
            raise CatalogueError(f"the catalogue has no pictures: there is no stage {only}")
        if only == "ranker" and self.split is None:
            raise CatalogueError("the catalogue has no interactions: there is no stage ranker")
        if only is not None and only != "package":
            getattr(self, only)()
            if only == "export":
                self.precisions()
            return None
        path = self.package()
        if self.options.model_repository is not None and self.pictures is not None:
            say(f"Triton: {model_repository.install(Release.open(path), self.options.model_repository)}")
        return path

    def _make(self, stage: str, inputs: dict[str, Any], build: Any, *, resumable: bool = False) -> Product:
        """The product of a stage. With `--only`, stages before the named one must have been run."""
        if stage in self._made:
            return self._made[stage]
        only, code = self.options.only, CODE[stage]
        if only is not None and stage in STAGES and stage != only:
            product = self.cache.find(stage, inputs, code=code)
            if product is None:
                raise CatalogueError(
                    f"--only {only} needs stage {stage}, whose inputs changed or which never ran: run --only {stage}"
                )
        else:
            product = self.cache.make(stage, inputs, build, code=code, resumable=resumable)
        self._made[stage] = product
        return product

    def _decode(self, catalogue: Catalogue) -> Catalogue:
        def build(folder: Path) -> dict[str, Any]:
            pictures.decode_catalogue(catalogue, folder)
            return {"pictures": len(catalogue.pictured())}

        product = self._make("pictures", {"catalogue": self.fingerprint}, build)
        self.pictures, examined = pictures.open_pictures(product.folder)
        self.examined = product
        return catalogue.with_pictures(examined.unreadable, examined.same)

    def _split(self) -> split.Split | None:
        options, interactions = self.options, self.catalogue.interactions
        if interactions is None:
            return None
        things = self.catalogue.things()
        return split.make(
            interactions, options.protocol, test_from=options.test_from, seed=options.ranker.seed, things=things
        )

    def encoder(self) -> Product:
        """pixels -> weights of the CNN."""

        def build(folder: Path) -> dict[str, Any]:
            return trainer.train(self._examples(), self.options.encoder, folder)

        return self._make("encoder", self._encoder_inputs(), build, resumable=True)

    def train_along(self) -> None:
        """The part of a process that is not the first: what is trained is written by that one."""
        inputs, code = self._encoder_inputs(), CODE["encoder"]
        if self.pictures is not None and self.cache.find("encoder", inputs, code=code) is None:
            unfinished = self.cache.unfinished("encoder", inputs, code=code)
            trainer.train(self._examples(), self.options.encoder, unfinished)

    def _encoder_inputs(self) -> dict[str, Any]:
        cut = None if self.split is None else (self.split.cutoff, self.split.protocol)
        return {
            "pictures": self.examined.key if self.examined else "",
            "split": self.options.split_column,
            "cut": cut,
            "touched": examples.digest_of(self._touched()),
            **encoder_parameters(self.options),
        }

    def _touched(self) -> scipy.sparse.csr_matrix | None:
        return touched_pairs(self.split, items=len(self.catalogue.items), parameters=self.options.ranker)

    def _examples(self) -> Examples:
        pixels, options = self.pictures, self.options
        assert pixels is not None
        return examples.make(
            self.catalogue, pixels, self._touched(), split_column=options.split_column, seed=options.encoder.seed
        )

    def export(self) -> Product:
        """weights -> encoder.onnx."""
        trained = self.encoder()
        parameters, pixels = self.options.encoder, self.pictures
        assert pixels is not None

        def build(folder: Path) -> dict[str, Any]:
            sample = pixels.centre(np.linspace(0, len(pixels.rows) - 1, min(32, len(pixels.rows))).astype(int))
            export.write(folder, trained.folder / "weights.pt", parameters, pictures=sample)
            return {}

        return self._make("export", {"encoder": trained.key}, build)

    def precisions(self) -> dict[str, Product]:
        """encoder.onnx -> the same in each of the precisions asked for, compared on pictures. Needs the index."""
        return self._make_precisions(self.options.precisions)

    def _make_precisions(self, names: tuple[str, ...]) -> dict[str, Product]:
        options = self.options
        if not names:
            return {}
        exported, looked = self.export(), self.index()
        inputs = {"index": looked.key, "least_overlap": options.least_overlap, "seed": options.encoder.seed}

        def build(precision: str, folder: Path) -> dict[str, Any]:
            return precisions.make(
                exported.folder / "encoder.onnx",
                folder / encoder_file(precision),
                precision,
                catalogue=self.catalogue,
                vectors=np.load(looked.folder / "vectors.npy"),
                seed=options.encoder.seed,
                least_overlap=options.least_overlap,
            )

        return {name: self._make(name, inputs, partial(build, name)) for name in names}

    def index(self) -> Product:
        """encoder.onnx and pictures -> vectors.npy, index.faiss, and views of the items."""
        exported = self.export()
        options, pixels = self.options, self.pictures
        assert pixels is not None

        def build(folder: Path) -> dict[str, Any]:
            network = OnnxRuntime(exported.folder / "encoder.onnx", threads=torch.get_num_threads())
            return embedding.write(
                folder,
                self.catalogue,
                pixels,
                network,
                exact_below=options.exact_below,
                recall=options.index_recall,
                seed=options.encoder.seed,
                previous=self.same_encoder,
            )

        assert self.examined is not None
        inputs = {
            "export": exported.key, "pictures": self.examined.key, "exact_below": options.exact_below,
            "recall": options.index_recall,
        }  # fmt: skip
        return self._make("index", inputs, build)

    def ranker(self) -> Product:
        """interactions -> factors, history, and the weights of the final sum."""
        options, cut = self.options, self.split
        assert cut is not None
        looked = self.index() if self.pictures is not None else None
        inputs = {
            "catalogue": self.fingerprint, "cut": (cut.cutoff, cut.protocol), "index": looked.key if looked else None,
            "user_key": key_check(options.user_key), "exclude": options.split_column, "choose": options.choose,
            "previous": self._previous_key(), **asdict(options.ranker),
        }  # fmt: skip
        chosen = chosen_before(self.previous, options.ranker) if options.choose else None
        parameters = chosen or options.ranker

        def build(folder: Path) -> dict[str, Any]:
            known, features = self._known(looked)
            (folder / "features.json").write_text(json.dumps(features))
            return ranking.build(
                folder,
                cut.train,
                ids=self.catalogue.items["item_id"].tolist(),
                known=known,
                parameters=parameters,
                choose=options.choose and chosen is None,
                user_key=None if self.catalogue.keyed else options.user_key,
                start=start_of(self.previous, self.catalogue, cut, parameters),
            )

        return self._make("ranker", inputs, build)

    def curve(self) -> Any:
        """Of the encoder's training."""
        return self.encoder().facts["curve"]

    def _known(self, looked: Product | None) -> tuple[Known, dict[str, Any]]:
        opened, views, vectors = None, None, None
        if looked is not None:
            opened, views, vectors = embedding.open_built(looked.folder, looked.facts)
        return side_information.know(self.catalogue, opened, views, vectors, exclude=self.options.split_column)

    @property
    def same_encoder(self) -> Previous | None:
        """A release whose vectors are those of this run's encoder."""
        return None

    def _previous_key(self) -> str | None:
        return None if self.previous is None else digest(self.previous.release.path / MANIFEST)

    def package(self) -> Path:
        """Everything -> a release with its number."""
        options = self.options
        exported = self.export() if self.pictures is not None else None
        looked = self.index() if self.pictures is not None else None
        others = self.precisions() if self.pictures is not None else {}
        ranked = self.ranker() if self.split is not None else None
        inputs = {
            "catalogue": self.fingerprint, "export": exported.key if exported else None,
            "index": looked.key if looked else None, "ranker": ranked.key if ranked else None,
            "split": options.split_column, "precisions": {name: made.key for name, made in others.items()},
            "registry": self.registry.uri if self.registry else None, "previous": self._previous_key(),
            "store": asdict(self.catalogue.store) if self.catalogue.store else None,
        }  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            source = Source(self.catalogue, options, self.split, self.fingerprint, self.previous, self.kept)
            colours = self.examined.folder / pictures.COLOURS if exported and self.examined else None
            products = Products(exported, looked, ranked, others, self.curve() if exported else None, colours)
            return packaging.build(folder, source, products, registry=self.registry, began=self.began)

        product = self._make("package", inputs, build, resumable=True)
        path = options.releases / product.facts["release"]
        if not path.exists():  # its release was deleted since
            self.cache.forget(product)
            del self._made["package"]
            return self.package()
        return path
