"""The gate: what may take over from what is in production, and what is refused, by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import PromotionRefused
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Manifest, Release
from service.recommender.user_keys import DEFAULT_USER_KEY
from tests.shop import Shop
from tests.training.promotion.gated import opened, resealed
from training.data.catalogue_reader import read
from training.packaging import package
from training.promotion import gate
from training.promotion.gate import Report
from training.promotion.gate_checks import Check


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_of_pictures_it_asks_for_kind_index_and_precision(release_folder: Path, boutique_folder: Path) -> None:
    """Photos are answered with items of their category as often; the index finds what looking at all would."""
    shop = Shop(boutique_folder, release_folder.parent)
    checks = named(run(shop, 1, 1))
    assert checks["photos.precision_at_10"].passed
    assert checks["index recall@10"].value == 1
    failed = named(run(shop, 1, 1, pictures={"least_index_recall": 1.1}))
    assert failed["index recall@10"].passed is False


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


def test_noise_alone_refuses_nobody_and_a_slower_release_is_refused(trained_shop: Shop) -> None:
    """Pairs of answers are judged, until their interval lies on one side of the bound."""
    equal = named(run(trained_shop, 2, 2, cost={"most_latency": 1.15}))["latency, median ms"]
    assert equal.passed is True, equal
    assert "pairs" in equal.note
    slower = named(run(trained_shop, 2, 1, cost={"most_latency": 0.2}))["latency, median ms"]
    assert slower.passed is False
