"""What a candidate answered in the shadow, over one or several services, and what to think of it."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.errors import PromotionRefused, VitrineError
from service.files import write_text

FRESH = timedelta(hours=24)
OVERLAP = "overlap@10 with production"  # of a shadow alone
Samples = dict[tuple[str, str], list[float]]  # name and outcome or side -> the value of each service


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. passed: None where it decides nothing."""

    name: str
    value: float
    bound: str
    passed: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of a candidate."""

    release: int
    production: int
    queries: int
    services: int
    created: str
    lines: list[Line]

    @property
    def failed(self) -> list[str]:
        """The names of what speaks against it."""
        return [line.name for line in self.lines if line.passed is False]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps({**asdict(self), "passed": not self.failed}, indent=1) + "\n")


def judge(releases: Sequence[dict[str, Any]], metrics: Sequence[str], thresholds: dict[str, float]) -> Verdict:
    """releases, metrics: what GET /release and GET /metrics of each service said.

    Raises VitrineError where they do not try one and the same candidate beside one and the same release."""
    tried = {(each["release"], (each.get("candidate") or {}).get("release")) for each in releases}
    if len(tried) != 1 or not all(next(iter(tried))):
        said = ", ".join(f"release {release} with candidate {other}" for release, other in sorted(tried, key=str))
        raise VitrineError(f"expected one candidate beside one release in every service; they run {said}")
    production, candidate = map(int, tried.pop())
    found = _samples(metrics)

    def total(name: str, label: str = "") -> float:
        return sum(found.get((name, label), [0.0]))

    def mean(name: str, label: str = "") -> float:
        return total(f"{name}_sum", label) / max(1e-12, total(f"{name}_count", label))

    answered, failed = (total("vitrine_shadow_queries_total", outcome) for outcome in ("answered", "failed"))
    canary, fallen = (total("vitrine_canary_requests_total", outcome) for outcome in ("answered", "failed"))
    queries = int(answered + failed + canary + fallen)
    stopped = [each["candidate"]["why"] for each in releases if each["candidate"]["state"] == "stopped"]

    def lines() -> Iterator[Line]:
        fewest, most = int(thresholds["fewest"]), thresholds["most_errors"]
        yield Line("services that took it out", len(stopped), "none", not stopped)
        yield Line("queries", queries, f"at least {fewest}", queries >= fewest)
        errors = (failed + fallen) / max(1, queries)
        yield Line("share that failed", errors, f"at most {most:g}", errors <= most)
        if not answered:
            return
        overlap = mean("vitrine_shadow_overlap")
        least = thresholds["least_overlap"]
        yield Line(OVERLAP, overlap, f"at least {least:g}", overlap >= least)
        yield Line("rank correlation", mean("vitrine_shadow_rank_correlation"), "", None)
        for side in ("candidate", "production"):
            yield Line(f"cold items, {side}", mean("vitrine_shadow_cold_share", side), "", None)
        shown = {side: max(found.get(("vitrine_shadow_coverage", side), [0.0])) for side in ("candidate", "production")}
        least = thresholds["least_coverage_share"] * shown["production"]
        yield Line("coverage", shown["candidate"], f"at least {least:.4g}", shown["candidate"] >= least)
        slower = mean("vitrine_shadow_seconds", "candidate") / max(1e-12, mean("vitrine_shadow_seconds", "production"))
        if total("vitrine_shadow_seconds_count", "candidate"):
            yield Line(
                "latency ratio", slower, f"at most {thresholds['most_latency']:g}", slower <= thresholds["most_latency"]
            )

    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Verdict(candidate, production, queries, len(releases), created, list(lines()))


def read_verdict(path: Path, number: int) -> Verdict:
    """What `Verdict.save` wrote of this release, of late. Raises PromotionRefused."""
    try:
        values = json.loads(path.read_text())
        del values["passed"]
        verdict = Verdict(**{**values, "lines": [Line(**line) for line in values["lines"]]})
        age = datetime.now(UTC) - datetime.fromisoformat(verdict.created)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromotionRefused(f"{path} is not what shadow-report --out writes ({error})") from error
    if OVERLAP not in {line.name for line in verdict.lines}:
        raise PromotionRefused(f"{path} compares no answers: it is of a canary, or nothing was asked in the shadow")
    if verdict.release != number or age > FRESH:
        raise PromotionRefused(
            f"{path} is about release {verdict.release} and from {verdict.created}; release {number} needs one of the "
            "last 24 hours: vitrine shadow-report"
        )
    return verdict


def _samples(texts: Sequence[str]) -> Samples:
    found: Samples = defaultdict(list)
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.name.startswith(("vitrine_shadow", "vitrine_canary")):
                    label = sample.labels.get("outcome") or sample.labels.get("side") or ""
                    if "le" not in sample.labels:
                        found[(sample.name, label)].append(sample.value)
    return found
