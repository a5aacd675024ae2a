"""Metrics as services write them -> what promtool plays to alerts and queries."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import HOME

MONITORING = HOME / "k8s" / "components" / "monitoring"
STEP = 15  # seconds between two scrapes
ADDED = {"job", "namespace", "pod", "instance"}  # labels that Prometheus adds


def alerts() -> list[dict[str, Any]]:
    """The alerts of the manifest."""
    [group] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def queries() -> dict[str, str]:
    """Every query of alerts and dashboard, by where it stands; Grafana's variables are filled in."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = grafana(target["expr"])
    return found


def grafana(query: str) -> str:
    """As Grafana would send it."""
    return query.replace("$__rate_interval", "5m").replace("$namespace", "shop")


def series(scrapes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """pod -> its /metrics, scrape after scrape, "" where it did not answer -> promtool's input_series."""
    found: dict[str, list[str]] = {}
    longest = max(len(pages) for pages in scrapes.values())
    for pod, pages in scrapes.items():
        for at, page in enumerate(pages):
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    labels = {**sample.labels, "job": "vitrine", "namespace": "shop", "pod": pod, "instance": pod}
                    said = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
                    values = found.setdefault(f"{sample.name}{{{said}}}", ["_"] * longest)
                    values[at] = "NaN" if sample.value != sample.value else f"{sample.value:.12g}"
    return [{"series": name, "values": " ".join(values)} for name, values in found.items()]


def play(folder: Path, tests: Sequence[Mapping[str, Any]]) -> str:
    """`promtool test rules`: "" where all is as the tests say, else what promtool says."""
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(groups))
    played = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": [dict(each) for each in tests]}
    (folder / "test.yaml").write_text(yaml.safe_dump(played, width=10**6))
    command = ["promtool", "test", "rules", str(folder / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
