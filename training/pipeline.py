"""All stages in their order: a catalogue folder in, the path of a new release out."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from service.encoder.engines import OnnxRuntime
from service.encoder.preprocessing import PREPROCESSING
from service.errors import CatalogueError
from service.recommender.pipeline import Recommender
from service.recommender.release import Manifest, Release, digest, encoder_file
from service.recommender.scoring.weights import Blend
from service.recommender.user_keys import key_check
from service.serving import model_repository
from training.data import pictures, side_information, split
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import read
from training.data.side_information import Known
from training.encoder import batches, distributed, export, precisions, trainer
from training.encoder.batches import Examples
from training.evaluation import evaluate, retrieval
from training.evaluation.report import write_report
from training.index import embedding
from training.options import Options
from training.packaging import package, release_numbers
from training.progress import say
from training.ranker import fitting, item_neighbours, term_weights, tuning, user_segments
from training.source_code import code_revision
from training.stage_cache import CODE, STAGES, Product, Workshop
from training.triton import repository

if TYPE_CHECKING:  # MLflow takes longer to import than most commands to run
    from training.promotion.registry import Registry


def train(options: Options, registry: "Registry | None" = None) -> Path | None:
    """Run the stages; returns the path of the release, or None where `only` stopped before packaging.

    registry: gives the release its number and keeps it; None: its folder's name is all that numbers it."""
    workshop = Workshop(options.releases / ".stages")
    rank, _ = distributed.join()
    if rank > 0:  # the other processes of torchrun take part in the encoder's training alone
        distributed.wait_for_all()  # until the first one has decoded the pictures
        if options.only in (None, "encoder"):
            _Run(options, workshop).train_along()
        return None
    with workshop.locked():
        run = _Run(options, workshop, registry)
        distributed.wait_for_all()
        return run.all()


FEWEST_PICTURES = 2  # that an encoder can learn to tell apart


class _Run:
    """One run over one catalogue; each method is a stage, and asks for those before it."""

    def __init__(self, options: Options, workshop: Workshop, registry: "Registry | None" = None) -> None:
        self.began = datetime.now(UTC)
        self.options, self.workshop, self.registry = options, workshop, registry
        self._made: dict[str, Product] = {}
        catalogue = read(options.catalogue)
        catalogue.require_usable(options.max_unusable)
        if 0 < len(catalogue.pictured()) < FEWEST_PICTURES and catalogue.interactions is not None:
            say(f"{len(catalogue.pictured())} picture is too few to learn from: the release will have none")
            catalogue = catalogue.without_pictures()
        self.fingerprint = catalogue.fingerprint()
        self.pictures: pictures.Pictures | None = None
        self.pictures_key = ""
        self.catalogue = self._decode(catalogue) if len(catalogue.pictured()) else catalogue
        self.catalogue.require_usable(options.max_unusable)
        if len(self.catalogue.pictured()) < FEWEST_PICTURES and self.catalogue.interactions is None:
            raise CatalogueError(
                f"the catalogue has {len(self.catalogue.pictured())} usable pictures and no interactions: there is "
                f"nothing to learn from; {FEWEST_PICTURES} pictures, or a log, are needed"
            )
        self._say_what_became_of_it()
        self.split = self._split()

    def all(self) -> Path | None:
        """Run the stages in their order, or one of them alone."""
        only = self.options.only
        if only in ("encoder", "export", "index") and self.pictures is None:
            raise CatalogueError(f"the catalogue has no pictures: there is no stage {only}")
        if only == "ranker" and self.split is None:
            raise CatalogueError("the catalogue has no interactions: there is no stage ranker")
        if only is not None and only != "package":
            product = getattr(self, only)()
            if only == "export":
                self.precisions()
                self._install(lambda: repository.release_with(product.folder / "encoder.onnx", self.options.releases))
            return None
        path = self.package()
        self._install(lambda: path)
        return path

    def _install(self, release: Callable[[], Path]) -> None:
        if self.options.model_repository is not None and self.pictures is not None:
            opened = Release.open(release())
            say(f"Triton: {model_repository.install(opened, self.options.model_repository)}")

    def _make(self, stage: str, inputs: dict[str, Any], build: Any, *, resumable: bool = False) -> Product:
        """The product of a stage. With `--only`, stages before the named one must have been run."""
        if stage in self._made:
            return self._made[stage]
        only, code = self.options.only, CODE[stage]
        if only is not None and stage in STAGES and stage != only:
            product = self.workshop.find(stage, inputs, code=code)
            if product is None:
                raise CatalogueError(
                    f"--only {only} needs stage {stage}, whose inputs changed or which never ran: run --only {stage}"
                )
        else:
            product = self.workshop.make(stage, inputs, build, code=code, resumable=resumable)
        self._made[stage] = product
        return product

    def _decode(self, catalogue: Catalogue) -> Catalogue:
        def build(folder: Path) -> dict[str, Any]:
            pictures.decode_catalogue(catalogue, folder)
            return {"pictures": len(catalogue.pictured())}

        product = self._make("pictures", {"catalogue": self.fingerprint}, build)
        self.pictures, examined = pictures.open_pictures(product.folder)
        self.pictures_key = product.key
        return catalogue.with_pictures(examined.unreadable, examined.same)

    def _say_what_became_of_it(self) -> None:
        """What `vitrine check` would say of the catalogue, without the rows."""
        for (table, reason), count in self.catalogue.unusable_by_reason().items():
            say(f"{table}: {count} rows left out: {reason}")
        for note in self.catalogue.notes:
            say(note)
        if groups := self.catalogue.near_duplicates():
            say(f"items: {sum(map(len, groups))} have nearly the same picture as another, such as {groups[0][:3]}")
        for column in self.catalogue.columns:
            if column.why:
                say(f"{column.table}: {column.name} is {column.kind}: {column.why}")

    def _split(self) -> split.Split | None:
        interactions = self.catalogue.interactions
        return (
            None
            if interactions is None
            else split.make(
                interactions,
                self.options.protocol,
                test_from=self.options.test_from,
                seed=self.options.ranker.seed,
                things=self.catalogue.things(),
            )
        )

    def encoder(self) -> Product:
        """pixels -> weights of the CNN."""

        def build(folder: Path) -> dict[str, Any]:
            return trainer.train(self._examples(), self.options.encoder, folder)

        return self._make("encoder", self._encoder_inputs(), build, resumable=True)

    def train_along(self) -> None:
        """The part of a process that is not the first: what is trained is written by that one."""
        inputs, code = self._encoder_inputs(), CODE["encoder"]
        if self.pictures is not None and self.workshop.find("encoder", inputs, code=code) is None:
            trainer.train(
                self._examples(), self.options.encoder, self.workshop.unfinished("encoder", inputs, code=code)
            )

    def _encoder_inputs(self) -> dict[str, Any]:
        options = self.options
        parameters = asdict(options.encoder)
        if options.encoder.weights not in ("imagenet", "none"):
            path = Path(options.encoder.weights)
            parameters["weights"] = digest(path) if path.is_file() else options.encoder.weights
        cut = None if self.split is None else (self.split.cutoff, self.split.protocol)
        return {"pictures": self.pictures_key, "split": options.split_column, "cut": cut, **parameters}

    def _examples(self) -> Examples:
        pixels, options = self.pictures, self.options
        assert pixels is not None
        exclude = {options.split_column} if options.split_column else set()
        labels = batches.labels_of(self.catalogue, pixels.rows, exclude=exclude)
        train_rows, validation_rows = self._encoder_split(pixels.rows)
        neighbours = None
        if self.split is not None:
            matrix, _ = fitting.confidence_matrix(
                self.split.train, items=len(self.catalogue.items), parameters=options.ranker
            )
            neighbours = batches.co_touched(matrix > 0, pixels.rows)
            neighbours = batches.keep(neighbours, train_rows)
        elif not labels.columns:  # nothing says what is alike: learn that two views of one picture are
            neighbours = np.full((len(pixels.rows), 1), -1)
        say(f"encoder: learns from {', '.join(labels.columns) or 'pictures alone'}, {len(train_rows)} pictures")
        return Examples(pixels, labels, train_rows, validation_rows, neighbours)

    def _encoder_split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column = self.options.split_column
        things = self.catalogue.things()[rows]
        if column is None:
            return trainer.hold_out(things, 0.1, np.random.default_rng(self.options.encoder.seed))
        if column not in self.catalogue.items:
            raise CatalogueError(f"--split-column: items has no column {column!r}")
        part = self.catalogue.items[column].astype(str).str.lower().to_numpy()[rows]
        # rows that the column says nothing of are held out by nobody, and teach as well
        train_rows = np.flatnonzero(~np.isin(part, retrieval.HELD_OUT_SPLITS))
        validation_rows = np.flatnonzero(np.isin(part, ("validation", "val")))
        # a picture that is nearly one of those held out would give it away
        held = np.isin(things, things[np.isin(part, retrieval.HELD_OUT_SPLITS)])
        train_rows = train_rows[~held[train_rows]]
        if not (part == "train").any() or not len(validation_rows):
            raise CatalogueError(
                f"--split-column {column} must say train, validation (or val) and test; it has {sorted(set(part))[:5]}"
            )
        return train_rows, validation_rows

    def export(self) -> Product:
        """weights -> encoder.onnx."""
        trained = self.encoder()
        parameters, pixels = self.options.encoder, self.pictures
        assert pixels is not None

        def build(folder: Path) -> dict[str, Any]:
            sample = pixels.centre(np.linspace(0, len(pixels.rows) - 1, min(32, len(pixels.rows))).astype(int))
            ingredients: dict[str, object] = {
                "backbone": parameters.backbone, "dim": parameters.dim, "preprocessing": asdict(PREPROCESSING),
                "weights": digest(trained.folder / "weights.pt"),
            }  # fmt: skip
            model = trainer.load(trained.folder, parameters)
            difference = export.export(model, folder / "encoder.onnx", pictures=sample, ingredients=ingredients)
            say(f"export: largest difference from torch {difference:.1e}")
            return {}

        return self._make("export", {"encoder": trained.key}, build)

    def precisions(self) -> dict[str, Product]:
        """encoder.onnx -> the same in each of the precisions asked for, compared on pictures. Needs the index."""
        options = self.options
        if not options.precisions:
            return {}
        exported, looked = self.export(), self.index()
        inputs = {"index": looked.key, "least_overlap": options.least_overlap, "seed": options.encoder.seed}

        def build(precision: str, folder: Path) -> dict[str, Any]:
            parent, path = exported.folder / "encoder.onnx", folder / encoder_file(precision)
            if precision == "fp16":
                precisions.make_fp16(parent, path)
                return {}
            vectors = np.load(looked.folder / "vectors.npy")
            judge, calibration = precisions.pictures_for(self.catalogue, vectors, seed=options.encoder.seed)
            return precisions.make_int8(
                parent, path, calibration=calibration, judge=judge, least_overlap=options.least_overlap
            )

        return {name: self._make(name, inputs, partial(build, name)) for name in options.precisions}

    def index(self) -> Product:
        """encoder.onnx and pictures -> vectors.npy, index.faiss, and views of the items."""
        exported = self.export()
        options, pixels = self.options, self.pictures
        assert pixels is not None

        def build(folder: Path) -> dict[str, Any]:
            network = OnnxRuntime(exported.folder / "encoder.onnx", threads=torch.get_num_threads())
            embedded = embedding.embed_catalogue(self.catalogue, network)
            views = embedding.photograph(pixels, network, seed=options.encoder.seed)
            np.save(folder / "view_rows.npy", views.rows)
            np.save(folder / "views.npy", views.vectors)
            strange = embedding.draw_strangers(pixels, network, seed=options.encoder.seed)
            return embedding.build_index(
                embedded, views, strange, folder,
                kinds=self.catalogue.category_numbers(), exact_below=options.exact_below, recall=options.index_recall,
            )  # fmt: skip

        inputs = {"export": exported.key, "exact_below": options.exact_below, "recall": options.index_recall}
        return self._make("index", inputs, build)

    def ranker(self) -> Product:
        """interactions -> factors, history, and the weights of the final sum."""
        options, cut = self.options, self.split
        assert cut is not None
        looked = self.index() if self.pictures is not None else None
        inputs = {
            "catalogue": self.fingerprint, "cut": (cut.cutoff, cut.protocol), "index": looked.key if looked else None,
            "user_key": key_check(options.user_key), "exclude": options.split_column, "choose": options.choose,
            **asdict(options.ranker),
        }  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            items = len(self.catalogue.items)
            known, features = self._known(looked)
            parameters = options.ranker
            if options.choose:
                parameters = tuning.choose(cut.train, items=items, known=known, start=parameters)
            say("ranker: learning the weights of the final sum from the last days of shoppers")
            learned = term_weights.learn(
                cut.train, items=items, parameters=parameters, known=known, seed=parameters.seed
            )
            trained = fitting.train(
                cut.train, items=items, parameters=parameters, user_key=options.user_key, sides=known.sides
            )
            fitting.save(folder, trained, options.user_key)
            for name, array in item_neighbours.arrays(
                "together", item_neighbours.together(cut.train, items=items)
            ).items():
                np.save(folder / f"{name}.npy", array)
            learned.blend.save(folder / "blend.json")
            ids = self.catalogue.items["item_id"].tolist()
            user_segments.save(folder, *user_segments.find_segments(trained, ids=ids, seed=options.ranker.seed))
            (folder / "features.json").write_text(json.dumps(features))
            pairs = len(trained.arrays["history_items"])
            facts = {"users": len(trained.users), "pairs": pairs, "parameters": asdict(parameters)}
            return facts | {"trade": learned.trade}

        return self._make("ranker", inputs, build)

    def _known(self, looked: Product | None) -> tuple[Known, dict[str, Any]]:
        opened, views, vectors = None, None, None
        if looked is not None:
            opened, views, vectors = embedding.open_built(looked.folder, looked.facts)
        return side_information.know(self.catalogue, opened, views, vectors, exclude=self.options.split_column)

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
            "registry": self.registry.uri if self.registry else None,
        }  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            unlearned = folder / "blend.json"
            Blend(term_weights.UNLEARNED).save(unlearned)
            parts = package.Parts(
                catalogue=self.catalogue,
                seen=self.split.train if self.split else None,
                encoder=exported.folder if exported else None,
                precisions={name: made.folder for name, made in others.items()},
                least_overlap=options.least_overlap,
                index=looked.folder if looked else None,
                ranker=ranked.folder if ranked else None,
                blend=ranked.folder / "blend.json" if ranked else unlearned,
                manifest=self._manifest(looked, ranked, {name: made.facts for name, made in others.items()}),
            )
            number = self._number(folder / "number")
            path = options.releases / str(number)
            if not path.exists():
                path = package.package(
                    parts,
                    options.releases,
                    number=number,
                    user_key=options.user_key,
                    signing_key=options.signing_key,
                    report=self._report,
                )
            if self.registry is not None:
                self.registry.add(path)
            return {"release": path.name}

        product = self._make("package", inputs, build, resumable=True)
        path = options.releases / product.facts["release"]
        if not path.exists():  # its release was deleted since
            self.workshop.forget(product)
            del self._made["package"]
            return self.package()
        return path

    def _number(self, noted: Path) -> int:
        """The release's number; of a packaging that was killed after its release was there, the same again."""
        if noted.exists() and (self.options.releases / noted.read_text()).exists():
            return int(noted.read_text())
        releases = self.options.releases
        number = self.registry.reserve(releases, began=self.began) if self.registry else release_numbers.take(releases)
        noted.write_text(str(number))
        return number

    def _report(self, recommender: Recommender, folder: Path) -> dict[str, Any]:
        """Times are left out: they belong to a machine, and the same inputs must give the same release."""
        found = evaluate.evaluate(recommender, self.catalogue, split_column=self.options.split_column)
        evaluate.write_metrics(found.metrics, folder)
        if self.pictures is not None:
            (folder / "training.json").write_text(json.dumps(self.encoder().facts["curve"]) + "\n")
        write_report(found, recommender.release, folder / "report.html")
        return found.metrics

    def _manifest(
        self, looked: Product | None, ranked: Product | None, precisions: dict[str, dict[str, Any]]
    ) -> Manifest:
        """All but the number, the time, the digests and the metrics."""
        options, cut = self.options, self.split
        weights = options.encoder.weights
        shown = weights if weights in ("imagenet", "none") else Path(weights).name  # never a path of this machine
        return Manifest(
            release=0,
            created="",
            preprocessing=asdict(PREPROCESSING),
            rows={
                "items": len(self.catalogue.items),
                "pictured": len(self.catalogue.pictured()),
                "users": ranked.facts["users"] if ranked else 0,
                "interactions": 0 if cut is None else len(cut.train),
            },
            data={
                "fingerprint": self.fingerprint,
                "cutoff": None if cut is None else cut.cutoff,
                "protocol": options.protocol,
            },
            training={
                "encoder": asdict(replace(options.encoder, weights=shown)) if looked else None,
                "ranker": ranked.facts["parameters"] if ranked else None,
                "trade": ranked.facts["trade"] if ranked else None,
                "chosen": options.choose,
                "split_column": options.split_column,
            },
            code=code_revision(),
            encoder={"backbone": options.encoder.backbone, "dim": options.encoder.dim, "precisions": precisions}
            if looked
            else None,
            index=dict(looked.facts) if looked else None,
            ranker={"factors": options.ranker.factors, "user_key": key_check(options.user_key)} if ranked else None,
        )
