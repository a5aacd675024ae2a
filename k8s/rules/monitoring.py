"""What Prometheus, its operator, Grafana and KEDA are told."""

import json
import re
from collections.abc import Iterator

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import of_kind, selected


def metrics_can_be_read(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Whatever has a port of metrics lets Prometheus in."""
    for pod in pods:
        if "metrics" not in pod.ports:
            continue
        policies = [
            each for each in of_kind(manifests, "NetworkPolicy") if pod in selected(pods, each["spec"]["podSelector"])
        ]
        rules = [rule for each in policies for rule in each["spec"].get("ingress", [])]
        if not any({"port": "metrics"} in rule.get("ports", []) for rule in rules):
            yield pod.name, "it has a port metrics, which nobody may read"


def queries_ask_for_their_namespace(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """One Prometheus sees staging and production: a figure over both is neither's."""
    for each in of_kind(manifests, "PrometheusRule"):
        for rule in (rule for group in each["spec"]["groups"] for rule in group["rules"]):
            for found in re.findall(r"\b(?:sum|min|max|avg|count|group)\b *(?:by *\(([^)]*)\))?", rule["expr"]):
                if "namespace" not in found:
                    yield name_of(each), f"{rule['alert']} adds up over namespaces: it must group by (namespace)"
            if "namespace" not in rule["annotations"]["summary"]:
                yield name_of(each), f"{rule['alert']} does not say in which namespace"
    for each in of_kind(manifests, "ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            own = f'namespace="{each["metadata"]["namespace"]}"'
            if own not in trigger["metadata"].get("query", own):
                yield name_of(each), f"its query must ask for {own}: {trigger['metadata']['query']}"
    for each in of_kind(manifests, "ConfigMap"):
        for panel in json.loads(each.get("data", {}).get("dashboard.json", "{}")).get("panels", []):
            for target in panel.get("targets", []):
                if 'namespace="$namespace"' not in target["expr"]:
                    yield name_of(each), f"the panel {panel['title']!r} adds up over namespaces: {target['expr']}"


def operators_find_them(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A Prometheus operator looks at what carries its labels, and at nothing else."""
    for each in of_kind(manifests, "ServiceMonitor", "PrometheusRule"):
        if not each["metadata"].get("labels", {}).get("release"):
            yield name_of(each), "it has no label `release`, by which an operator selects"
