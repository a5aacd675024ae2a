"""Each check of the gate by itself, and the bounds that it is held to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import PromotionRefused, ReleaseMismatch
from service.recommender.catalogue.items import Items
from service.recommender.pipeline import Recommender
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release, golden_file
from tests.shop import Shop
from tests.training.promotion.gated import opened, resealed, with_int8
from training.data.catalogue_reader import read
from training.evaluation.held_out_questions import HeldOutQuestions, Measures
from training.promotion import gate, gate_checks


def test_golden_answers_are_asked_for_in_every_precision(release_folder: Path, tmp_path: Path) -> None:
    """One whose int8 network gives other vectors than were recorded is refused, whatever float32 gives."""
    release = with_int8(release_folder, tmp_path)
    gate.prove_precisions(opened(release))
    vectors = np.load(release / "golden" / golden_file("int8"))
    np.save(release / "golden" / golden_file("int8"), -vectors)
    resealed(release)
    with pytest.raises(ReleaseMismatch, match=r"golden picture \d+: cosine -1\.0"):
        gate.prove_precisions(opened(release))


def test_new_items_and_new_users_have_a_bound_of_their_own() -> None:
    """Half of production's measure is refused under 0.85, and passes under 0.4."""
    kinds = [f"{kind}.{measure}" for kind in ("cold_items", "cold_users") for measure in ("ndcg_at_10", "recall_at_20")]
    values = np.linspace(0.4, 0.6, 50)
    mine, theirs = (Measures(dict.fromkeys(kinds, share * values), [], 0.0) for share in (0.5, 1.0))
    exam = HeldOutQuestions(catalogue=None, held={}, photos=np.empty(0, int))  # type: ignore[arg-type]
    for share, passed in ((0.85, False), (0.4, True)):
        asked = gate.read_thresholds(None)["ranking"] | {"least_share_cold": share}
        assert {
            check.name: check.passed for check in gate_checks.of_ranking(mine, theirs, exam, asked)
        } == dict.fromkeys(kinds, passed)


def test_every_bound_of_pictures_can_refuse(release_folder: Path, boutique_folder: Path, tmp_path: Path) -> None:
    """Of items of other kinds than production shows, of a bound on the index, and of one on each precision."""
    recommender = Recommender(Release.open(with_int8(release_folder, tmp_path)))
    exam = HeldOutQuestions(read(boutique_folder), {}, np.arange(12))
    mine, theirs = (Measures({"photos.precision_at_10": np.full(144, kind)}, [], 0.0) for kind in (0.5, 0.9))
    names = ["photos.precision_at_10", "index recall@10", "int8 overlap@10 with float32"]
    asked = gate.read_thresholds(None)["pictures"]
    alike = gate_checks.of_pictures(recommender, theirs, theirs, exam, asked)
    assert {check.name: check.passed for check in alike} == dict.fromkeys(names, True)
    impossible = asked | {"least_index_recall": 1.1, "least_precision_overlap": 1.1}
    worse = gate_checks.of_pictures(recommender, mine, theirs, exam, impossible)
    assert {check.name: check.passed for check in worse} == dict.fromkeys(names, False)


def test_a_release_must_answer_what_production_answers(
    release_folder: Path, trained_shop: Shop, boutique_folder: Path
) -> None:
    """Photos, users, every attribute of an item, in replies that are as documented."""
    exam = HeldOutQuestions(read(boutique_folder), {}, np.empty(0, int))
    release = Release.open(release_folder)
    whole, blind = Recommender(release), Recommender(Release.open(trained_shop.releases / "2"))
    without = {name: kind for name, kind in release.items.kinds.items() if name != "price"}
    priceless = Recommender(replace(release, items=Items.open(release_folder / "items.parquet", without)))

    class Untrue(Recommender):
        """One whose replies say their tier by a number."""

        def recommend(self, *asked: Any, **more: Any) -> list[Recommendation]:
            """As others do, but for that."""
            return [replace(answer, tier=7) for answer in super().recommend(*asked, **more)]

    answers, schema = "answers what production answers", "schema of replies"
    for mine, passed, notes in (
        (whole, {answers: True, schema: True}, ""),
        (blind, {answers: False, schema: True}, "no answer to photos"),
        (priceless, {answers: True, schema: False}, "without price"),
        (Untrue(release), {answers: True, schema: False}, "1 validation error for RecommendationOut"),
    ):
        checks = list(gate_checks.of_answers([mine, whole], exam))
        assert {check.name: check.passed for check in checks} == passed
        assert "".join(check.note for check in checks) == notes


def test_a_small_fall_that_chance_explains_does_not_refuse() -> None:
    """Over few users a mean may fall without meaning anything; the same fall over many does."""
    rng = np.random.default_rng(0)
    for users, passed in ((20, True), (20_000, False)):
        theirs = rng.random(users)
        own = theirs - 0.1 + rng.normal(0, 0.5, users)
        marks = [Measures({"m": values}, [], 0.0) for values in (own, theirs)]
        assert gate_checks._not_worse("m", marks[0], marks[1], 0.95).passed is passed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[ranking]\nleast_shar = 0.9", "no threshold ranking.least_shar; there are ranking.least_share"),
        ("least_share = 0.9", "no threshold least_share"),
        ("[ranking]\nleast_share = true", "must be a number"),
        ("[ranking]\nleast_share = -1", "must be a number from 0"),
        ("[ranking", "cannot be read"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(tmp_path: Path, text: str, says: str) -> None:
    """A misspelt bound would never hold anybody back."""
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(PromotionRefused, match=says):
        gate.read_thresholds(path)
    with pytest.raises(PromotionRefused, match="cannot be read"):
        gate.read_thresholds(tmp_path / "none.toml")


def test_thresholds_of_a_file_stand_beside_the_defaults(tmp_path: Path) -> None:
    """What it leaves out stays as it is."""
    path = tmp_path / "gates.toml"
    path.write_text("[ranking]\nleast_share = 0.5\n")
    defaults = gate.read_thresholds(None)
    assert gate.read_thresholds(path) == defaults | {"ranking": defaults["ranking"] | {"least_share": 0.5}}
