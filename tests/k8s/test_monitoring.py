"""Every query asks for what the service really exports, and every alert fires when it should, and only then."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.observability.metrics import Metrics
from tests.k8s.prometheus import ADDED, STEP, alerts, play, queries, series
from tests.processes import HOME, Service, serve

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (of Prometheus), not here")
METRIC = re.compile(r"\b((?:vitrine|process)_[a-z_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")


@pytest.fixture(scope="module")
def exported(service: Service, photo: bytes) -> dict[str, set[str]]:
    """Name of a series -> its labels, of a service that has answered over each protocol."""
    service.http.post("/recommend", files={"image": photo})
    service.http.post("/v2/models/recommender/infer", json={"inputs": []})
    page = service.metrics_page()
    declared = {
        family._name: set(family._labelnames) for family in vars(Metrics()).values() if hasattr(family, "_name")
    }
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        labels = declared.get(family.name, set())
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        for suffix in suffixes.get(family.type, ("",)):
            found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
        for sample in family.samples:
            assert set(sample.labels) <= found[sample.name], sample
    return found


@pytest.mark.parametrize("where", queries())
def test_a_query_asks_for_what_is_exported(exported: dict[str, set[str]], where: str) -> None:
    """Its metrics, and the labels that it selects or groups by."""
    query = queries()[where]
    named = METRIC.findall(query)
    assert named, query
    labels = set(ADDED)
    for name, selector in named:
        assert name in exported, f"{name} is not exported"
        labels |= exported[name]
        for label in re.findall(r"(\w+)\s*(?:=~|!=|=)", selector):
            assert label in exported[name] | ADDED, f"{name} has no label {label}"
    for group in GROUPED.findall(query):
        assert set(re.findall(r"\w+", group)) <= labels, query


def test_every_alert_has_its_page() -> None:
    """A heading of k8s/README.md with its name, where its annotation points to."""
    text = (HOME / "k8s" / "README.md").read_text()
    for rule in alerts():
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"k8s/README.md#{name.lower()}"
        page = re.search(rf"^#+ {name}\n(.*?)(?=^#|\Z)", text, re.S | re.M)
        assert page, f"no page of {name}"
        assert len(page[1].split()) > 25


FOREVER = 240  # scrapes: an hour
OK = 'vitrine_requests_total{{namespace="shop", job="vitrine", status="{status}", instance="{pod}"}}'


def requests(status: str, each: float) -> dict[str, str]:
    """So many answers a scrape."""
    return {"series": OK.format(status=status, pod="a"), "values": f"0+{each}x{FOREVER}"}


def latency(release: str, quick: float, slow: float) -> list[dict[str, str]]:
    """Answers a scrape that took under 5 ms, and those that took half a second to a second."""
    labels = f'namespace="shop", job="vitrine", route="/recommend", release="{release}", instance="a"'
    counts = {"0.005": quick, "0.5": quick, "1.0": quick + slow, "+Inf": quick + slow}
    return [
        {"series": f'vitrine_request_seconds_bucket{{{labels}, le="{le}"}}', "values": f"0+{each}x{FOREVER}"}
        for le, each in counts.items()
    ]


def calls(name: str, quick: float, slow: float, labels: str = "") -> list[dict[str, str]]:
    """Observations a scrape that took under 5 ms, and those that took one to two and a half seconds."""
    named = ", ".join(filter(None, ('namespace="shop"', 'job="vitrine"', 'instance="a"', labels)))
    counts = {"0.005": quick, "1.0": quick, "2.5": quick + slow, "+Inf": quick + slow}
    return [
        {"series": f'{name}_bucket{{{named}, le="{le}"}}', "values": f"0+{each}x{FOREVER}"}
        for le, each in counts.items()
    ]


def writes(each: float, failed: float) -> list[dict[str, str]]:
    """So many writes a scrape, and how many of them failed."""
    named = 'namespace="shop", job="vitrine", instance="a", call="write"'
    return [
        {"series": f"vitrine_store_seconds_count{{{named}}}", "values": f"0+{each}x{FOREVER}"},
        {"series": f"vitrine_store_failures_total{{{named}}}", "values": f"0+{failed}x{FOREVER}"},
    ]


def constant(name: str, value: float | str, labels: str = "") -> dict[str, str]:
    """A gauge that stands still."""
    labels = ", ".join(filter(None, ('namespace="shop"', 'job="vitrine"', 'instance="a"', labels)))
    return {"series": f"{name}{{{labels}}}", "values": " ".join([str(value)] * FOREVER)}


def mean(name: str, value: float) -> list[dict[str, str]]:
    """A summary whose observations are all this."""
    return [
        {"series": f'{name}_{part}{{namespace="shop", job="vitrine", instance="a"}}', "values": f"0+{each}x{FOREVER}"}
        for part, each in (("sum", value), ("count", 1))
    ]


def once(name: str) -> dict[str, str]:
    """A counter that goes from 0 to 1 after half an hour."""
    values = f"0x{FOREVER // 2} 1x{FOREVER // 2}"
    return {"series": f'{name}{{namespace="shop", job="vitrine", instance="a"}}', "values": values}


def drift(psi: float, chance: float, what: str = "embeddings") -> list[dict[str, str]]:
    """How far photos are from what is expected, and how far chance alone would be."""
    found = {"vitrine_drift": psi, "vitrine_drift_chance": chance}
    return [constant(name, value, f'what="{what}"') for name, value in found.items()]


HERE = constant("vitrine_release", 1, 'release="1"')
TRITON = constant("vitrine_encoder", 1, 'engine="triton", precision="fp32"')
AWAY = constant("vitrine_triton_there", 0, 'release="1"')
BESIDE = 'vitrine_release{namespace="shop", job="vitrine", instance="b", release="1"}'
GONE = 'vitrine_release{namespace="staging", job="vitrine", instance="c", release="1"}'
# alert -> what makes it fire, and what is next to that and must not
PLAYED: dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]] = {
    "VitrineAbsent": (  # one of two namespaces loses its pods after half an hour
        [constant("up", 1), HERE, {"series": GONE, "values": f"1x{FOREVER // 2} _x{FOREVER // 2}"}], [HERE]),
    "VitrineFails": (
        [HERE, requests("200", 97), requests("503", 3)], [HERE, requests("200", 997), requests("503", 3)]),
    "VitrineRefuses": (
        [HERE, requests("200", 97), requests("429", 3)], [HERE, requests("200", 97), requests("400", 3)]),
    "VitrineSlow": ([HERE, *latency("1", 95, 5)], [HERE, *latency("1", 999, 1)]),
    "VitrineReleaseSlower": (
        [HERE, *latency("1", 99, 0), *latency("2", 10, 30)], [HERE, *latency("1", 99, 0), *latency("2", 50, 0)]),
    "VitrineCandidateDrifts": (
        [HERE, *mean("vitrine_shadow_overlap", 0.3)], [HERE, *mean("vitrine_shadow_overlap", 0.8)]),
    "VitrineCandidateStopped": (
        [HERE, once("vitrine_candidate_stops_total")], [HERE, constant("vitrine_candidate_stops_total", 1)]),
    "VitrineReleasesDiffer": (
        [HERE, constant("vitrine_release", 1, 'release="2"')],
        [HERE, {"series": BESIDE, "values": f"1x{FOREVER}"}]),
    "VitrineSwitchFailed": (
        [HERE, once("vitrine_switch_failures_total")], [HERE, constant("vitrine_switch_failures_total", 0)]),
    "VitrineTritonAway": (
        [HERE, TRITON, AWAY], [HERE, AWAY, constant("vitrine_encoder", 1, 'engine="openvino"')]),
    "VitrineStoreAway": (  # a service that keeps nothing says NaN
        [HERE, constant("vitrine_store_there", 0)], [HERE, constant("vitrine_store_there", "NaN")]),
    "VitrineStoreFails": ([HERE, *writes(100, 3)], [HERE, *writes(1000, 3)]),
    "VitrineStoreSlow": (
        [HERE, *calls("vitrine_store_seconds", 95, 5, 'call="write"')],
        [HERE, *calls("vitrine_store_seconds", 999, 1, 'call="write"'),
         *calls("vitrine_store_seconds", 0, 1, 'call="prune"')]),
    "VitrineBehind": (
        [HERE, constant("vitrine_store_behind_seconds", 90)], [HERE, constant("vitrine_store_behind_seconds", 3)]),
    "VitrineEffectSlow": (
        [HERE, *calls("vitrine_effect_seconds", 0.5, 0.1)], [HERE, *calls("vitrine_effect_seconds", 0.66, 0.004)]),
    "VitrineReleaseDue": (
        [HERE, constant("vitrine_release_due", 1)], [HERE, constant("vitrine_release_due", 0)]),
    "VitrineRecallLow": (
        [HERE, constant("vitrine_index_recall", 0.9)], [HERE, constant("vitrine_index_recall", "NaN")]),
    "VitrineDrift": (  # a large index of few photos is chance
        [HERE, *drift(0.4, 0.05)], [HERE, *drift(0.4, 0.6), *drift(0.2, 0.05, "scores")]),
}  # fmt: skip


@promtool
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """An hour of each, played to promtool; the alert is asked for 40 minutes in."""
    assert set(PLAYED) == {rule["alert"] for rule in alerts()}
    for name, (fires, quiet) in PLAYED.items():
        for number, (given, expected) in enumerate(((fires, True), (quiet, False))):
            query = {"expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) > 0', "eval_time": "40m"}
            query["exp_samples"] = [{"labels": "{}", "value": 1}] if expected else []
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            said = play(folder, [{"interval": f"{STEP}s", "input_series": given, "promql_expr_test": [query]}])
            assert not said, f"{name}, {'fires' if expected else 'quiet'}: {said}"


@pytest.fixture(scope="module")
def keeping(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has a store."""
    home = tmp_path_factory.mktemp("keeping")
    with serve(release_folder, home, {"VITRINE_STORE": str(home / "store.db")}) as started:
        yield started


@promtool
@pytest.mark.parametrize("which", ["service", "keeping"])
def test_alerts_are_quiet_on_what_a_service_exports(
    which: str, photo: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Recorded from a real one that does its work, without a store and with one: nothing fires, and every query of the
    dashboard can be asked."""
    service: Service = request.getfixturevalue(which)
    pages = []
    for number in range(12):
        service.http.post("/recommend", files={"image": photo}).raise_for_status()
        if which == "keeping":
            service.http.post("/events", json={"user_id": str(number), "item_id": "0004"}).raise_for_status()
        pages.append(service.metrics_page())
    given: list[Any] = series({"vitrine-1": pages})
    at = f"{STEP * 11}s"
    silence = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": []}
    served = {"expr": 'count(vitrine_release{namespace="shop", release="1"})', "eval_time": at,
              "exp_samples": [{"labels": "{}", "value": 1}]}  # fmt: skip
    parsed = [{"expr": query, "eval_time": at} for query in queries().values()]
    assert not play(tmp_path, [{"interval": f"{STEP}s", "input_series": given, "promql_expr_test": [silence, served]}])
    # promtool names a query that it cannot parse; what the others give is not said here
    said = play(tmp_path, [{"interval": f"{STEP}s", "input_series": given, "promql_expr_test": parsed}])
    assert "FAILED" in said
    assert "parse error" not in said, said
    assert service.metric("vitrine_store_there") == 1 or which == "service"
