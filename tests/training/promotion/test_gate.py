"""The gate: what may take over from what is in production, and what is refused, by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import PromotionRefused, ReleaseMismatch
from service.recommender.catalogue import Items
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.recommendation import Recommendation
from service.recommender.release import Manifest, Release, encoder_file, golden_file
from service.recommender.user_keys import DEFAULT_USER_KEY
from tests.shop import Shop
from training.data.catalogue_reader import read
from training.evaluation.diff import Figure, compare
from training.evaluation.held_out_questions import HeldOutQuestions, Measures
from training.measures import median_interval
from training.packaging import package
from training.promotion import gate, gate_checks
from training.promotion.gate import Report
from training.promotion.gate_checks import Check
from training.promotion.policy import GateOptions, open_proven


def opened(folder: Path) -> Recommender:
    """A release, proven, as the gate is given it."""
    return open_proven(folder, GateOptions(folder.parent, user_key=DEFAULT_USER_KEY))


def run(shop: Shop, release: int, production: int | None, **changes: dict[str, float]) -> Report:
    limits = gate.read_thresholds(None)
    limits["cost"]["most_latency"] = 100.0  # other tests share the machine
    for section, values in changes.items():
        limits[section] |= values
    folders = [None if number is None else shop.releases / str(number) for number in (release, production)]
    assert folders[0] is not None
    return gate.run(opened(folders[0]), folders[1], read(shop.catalogue), limits, user_key=DEFAULT_USER_KEY)


def named(report: Report) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def test_a_first_release_has_gates_without_comparison(trained_shop: Shop) -> None:
    """It must beat popularity, keep its golden answers and the schema; the rest is shown."""
    report = run(trained_shop, 1, None)
    assert report.passed
    assert report.against is None
    checks = named(report)
    assert checks["warm.ndcg_at_10"].passed is None
    assert checks["over popularity"].passed is True
    assert all(check.production is None for check in report.checks)


def test_more_data_passes(trained_shop: Shop) -> None:
    """Beside release 1, on what happened after both were trained; intervals are of the paired difference."""
    report = run(trained_shop, 2, 1)
    assert report.failed == []
    warm = named(report)["warm.ndcg_at_10"]
    assert warm.value is not None
    assert warm.production is not None
    assert warm.value > warm.production
    assert warm.interval[0] < warm.value - warm.production < warm.interval[1]


def test_shuffled_labels_are_refused_and_the_measures_named(trained_shop: Shop) -> None:
    """Release 3 has learnt that everybody likes what somebody else does."""
    report = run(trained_shop, 3, 2)
    assert not report.passed
    assert {"warm.ndcg_at_10", "warm.recall_at_20"} <= {check.name for check in report.failed}
    prove(Recommender(Release.open(trained_shop.releases / "3")))  # it is whole, and still no good


def test_production_passes_beside_itself(trained_shop: Shop) -> None:
    """Every share is one, every overlap whole."""
    checks = named(run(trained_shop, 2, 2))
    assert all(check.passed is not False for check in checks.values())
    assert checks["overlap@10 with production"].value == 1
    assert checks["warm.ndcg_at_10"].interval == [0, 0]


def test_every_bound_can_refuse(trained_shop: Shop) -> None:
    """Of bounds that nothing can keep every check with a bound fails: those of photos and of new items and users,
    which are not asked for here, and those without a bound have tests of their own below."""
    impossible = {
        "ranking": {
            "least_share": 9.0, "least_share_cold": 9.0, "least_share_group": 9.0, "least_over_popularity": 9.0,
            "least_coverage_share": 9.0, "fewest_shoppers": 1.0,
        },
        "likeness": {"least_overlap": 1.1},
        "cost": {"most_latency": 0.0, "most_memory": 0.0, "most_size": 0.0, "largest_megabytes": 0.0},
    }  # fmt: skip
    checks = named(run(trained_shop, 1, 2, **impossible))
    assert {name.partition(":")[0] for name, check in checks.items() if check.passed is False} == {
        "warm.ndcg_at_10", "warm.recall_at_20", "over popularity", "worst group", "coverage",
        "overlap@10 with production", "latency, median ms", "memory, MB", "size, MB", "size in all, MB",
    }  # fmt: skip
    unbound = {"golden answers", "answers what production answers", "schema of replies"}
    assert {name for name, check in checks.items() if check.passed is not False} == unbound


def resealed(release: Path) -> None:
    """A manifest that lists it as it is now."""
    package.seal(release, Manifest.read(release))


def test_a_release_without_its_golden_answers_is_refused(shop: Shop) -> None:
    """Other items come back than were recorded, under valid digests: no check is made, and so none can pass."""
    cases = shop.releases / "2" / "golden" / "cases.json"
    recorded = json.loads(cases.read_text())
    assert recorded[0]["items"]
    recorded[0]["items"] = [f"not {item}" for item in recorded[0]["items"]]
    cases.write_text(json.dumps(recorded))
    resealed(shop.releases / "2")
    with pytest.raises(PromotionRefused, match=r"golden case .*: 0\.00 of the recorded items came back"):
        run(shop, 2, 1)


def with_int8(release: Path, folder: Path) -> Path:
    """A copy whose int8 network is its own network: it answers alike."""
    made = Path(shutil.copytree(release, folder / release.name))
    shutil.copy(made / "encoder.onnx", made / encoder_file("int8"))
    shutil.copy(made / "golden" / golden_file("fp32"), made / "golden" / golden_file("int8"))
    manifest = Manifest.read(made)
    assert manifest.encoder is not None
    manifest.encoder["precisions"] = {"int8": {}}
    package.seal(made, manifest)
    return made


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


def test_a_user_must_add_something_to_the_photo(release_folder: Path, boutique_folder: Path, tmp_path: Path) -> None:
    """A release whose trade gives taste nothing is refused beside one that learned a trade, which passes."""
    shop = Shop(boutique_folder, Path(shutil.copytree(release_folder.parent, tmp_path / "releases")))
    learned = named(run(shop, 1, 1))["photo_and_shopper.lift"]
    assert learned.passed
    assert learned.value is not None
    assert learned.value > 0
    blend = json.loads((shop.releases / "1" / "ranker" / "blend.json").read_text())
    looks = blend["trade"]["looks"]
    blend["trade"]["default"], blend["tiers"]["ranked"] = 0.0, looks
    changed = Path(shutil.copytree(shop.releases / "1", shop.releases / "2"))
    (changed / "ranker" / "blend.json").write_text(json.dumps(blend))
    package.seal(changed, replace(Manifest.read(changed), release=2))
    found = named(run(shop, 2, 1))["photo_and_shopper.lift"]
    assert found.passed is False
    assert found.value is not None
    assert found.value < learned.value / 2  # what is left is of photos that nothing here looks like: taste answers them


def test_of_pictures_it_asks_for_kind_index_and_precision(release_folder: Path, boutique_folder: Path) -> None:
    """Photos are answered with items of their category as often; the index finds what looking at all would."""
    shop = Shop(boutique_folder, release_folder.parent)
    checks = named(run(shop, 1, 1))
    assert checks["photos.precision_at_10"].passed
    assert checks["index recall@10"].value == 1
    failed = named(run(shop, 1, 1, pictures={"least_index_recall": 1.1}))
    assert failed["index recall@10"].passed is False


def test_a_small_fall_that_chance_explains_does_not_refuse() -> None:
    """Over few users a mean may fall without meaning anything; the same fall over many does."""
    rng = np.random.default_rng(0)
    for users, passed in ((20, True), (20_000, False)):
        theirs = rng.random(users)
        own = theirs - 0.1 + rng.normal(0, 0.5, users)
        marks = [Measures({"m": values}, [], 0.0) for values in (own, theirs)]
        assert gate_checks._not_worse("m", marks[0], marks[1], 0.95).passed is passed


def test_a_tampered_release_does_not_get_that_far(shop: Shop) -> None:
    """Its digests say so before anything is asked."""
    (shop.releases / "2" / "items.parquet").write_bytes(b"other items")
    with pytest.raises(PromotionRefused, match=r"changed: items.parquet"):
        run(shop, 2, 1)


def test_a_result_is_fresh_for_these_releases_and_thresholds_and_a_day(shop: Shop, tmp_path: Path) -> None:
    """Another production, other bounds, yesterday's: the gate must run again."""
    one, two, three = (shop.releases / number for number in "123")
    limits = gate.read_thresholds(None)
    report = gate.run(opened(two), one, read(shop.catalogue), limits, user_key=DEFAULT_USER_KEY)
    facts, page = report.save(tmp_path / "gates")
    assert Report.read(facts) == report
    assert json.loads(facts.read_text())["passed"] is report.passed
    assert "Release 2" in page.read_text()
    assert report.is_fresh(two, one, limits)
    assert not report.is_fresh(two, three, limits)
    assert not report.is_fresh(two, None, limits)
    assert not report.is_fresh(three, one, limits)
    assert not report.is_fresh(two, one, limits | {"likeness": {"least_overlap": 0.5}})
    assert not replace(report, created="2020-01-01T00:00:00+00:00").is_fresh(two, one, limits)
    assert Report.read(tmp_path / "none.json") is None


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


def test_diff_shows_the_same_queries_answered_by_both(shop: Shop, tmp_path: Path) -> None:
    """Sorted by how much changed; a release and itself differ in nothing."""
    page = tmp_path / "diff.html"
    found = compare(shop.releases / "1", shop.releases / "2", page, user_key=DEFAULT_USER_KEY)
    assert 0 < found.overlap < 1
    assert {"data.fingerprint", "rows.interactions"} <= {change.name for change in found.changes}
    assert "Release 1 and release 2" in page.read_text()
    assert found.figures == []
    assert not [change.name for change in found.changes if change.name.startswith("metrics")]
    shutil.copytree(shop.releases / "1", tmp_path / "1")
    same = compare(shop.releases / "1", tmp_path / "1", page, user_key=DEFAULT_USER_KEY)
    assert same.changes == []
    assert same.overlap == 1


def test_diff_asks_both_releases_what_was_held_out_of_both(trained_shop: Shop, tmp_path: Path) -> None:
    """As the gate does: the one of shuffled labels is far behind, the one of more data is not."""
    today = read(trained_shop.catalogue)

    def difference(first: int, second: int) -> Figure:
        folders = [trained_shop.releases / str(number) for number in (first, second)]
        found = compare(*folders, tmp_path / "diff.html", user_key=DEFAULT_USER_KEY, catalogue=today)
        figures = {figure.name: figure for figure in found.figures}
        assert "questions" in (tmp_path / "diff.html").read_text()
        return figures["warm.ndcg_at_10"]

    better, spoilt, same = difference(1, 2), difference(2, 3), difference(2, 2)
    assert better.second == spoilt.first  # the same questions, whatever else was compared
    assert spoilt.interval[1] < 0 < better.second
    assert (same.difference, same.interval) == (0, [0, 0])


def test_noise_alone_refuses_nobody_and_a_slower_release_is_refused(trained_shop: Shop) -> None:
    """Pairs of answers are judged, until their interval lies on one side of the bound."""
    equal = named(run(trained_shop, 2, 2, cost={"most_latency": 1.15}))["latency, median ms"]
    assert equal.passed is True, equal
    assert "pairs" in equal.note
    slower = named(run(trained_shop, 2, 1, cost={"most_latency": 0.2}))["latency, median ms"]
    assert slower.passed is False


def test_the_interval_of_a_median_holds_it() -> None:
    """In 95 of 100 samples, within some; it narrows with more of them."""
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for low, high in (median_interval(rng.exponential(1 / np.log(2), 60)) for _ in range(400))]
    assert 0.92 <= np.mean(held) <= 0.99
    few, many = (np.ptp(median_interval(rng.normal(size=n))) for n in (60, 6000))
    assert many < few / 5
