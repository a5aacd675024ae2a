"""What becomes of pods and requests while one release replaces another, or a node goes."""

from collections.abc import Iterator
from typing import Any

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import environment, image_of, of_kind

ENGINES = "/tmp/vitrine-engines"  # as the encoder's configuration says
BUILDING = 900  # seconds
ADDED = 5  # seconds that a request may take beyond VITRINE_DEADLINE, see service/app.py


def requests_survive(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A rollout takes nobody away before another is ready, and a pod that ends has time for what it began."""
    for each in of_kind(manifests, "Deployment"):
        strategy = each["spec"].get("strategy", {})
        if _has_gpu(each["spec"]["template"]["spec"]):
            if strategy.get("type") != "Recreate":
                yield name_of(each), "it holds a GPU: without Recreate a new pod waits for the one that the old one has"
        elif strategy.get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield name_of(each), "maxUnavailable must be 0"
    for each in of_kind(manifests, "PodDisruptionBudget"):
        if each["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield (
                name_of(each),
                "unhealthyPodEvictionPolicy must be AlwaysAllow: else a pod that is not ready keeps a node",
            )
    for pod in pods:
        for container in pod.spec["containers"]:
            if image_of(container)[0] != "vitrine" or not container.get("ports"):
                continue
            said = environment(container, manifests)
            ends = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if ends[:1] != ["sleep"]:
                yield pod.name, f"{container['name']} must sleep in preStop, until it is out of every endpoint list"
                continue
            spent = (ends[1], said.get("VITRINE_DRAIN", "2"), said.get("VITRINE_DEADLINE", "5"))
            needed = sum(float(each) for each in spent if each.replace(".", "", 1).isdigit())
            if pod.spec.get("terminationGracePeriodSeconds", 30) < needed + ADDED:
                yield pod.name, f"terminationGracePeriodSeconds must be at least {needed + ADDED:g}"


def _has_gpu(pod: dict[str, Any]) -> bool:
    return any("nvidia.com/gpu" in each.get("resources", {}).get("limits", {}) for each in pod["containers"])


def pods_of_a_rollout_are_spread(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A constraint that counts the pods of the rollout before puts all new ones onto one node."""
    for pod in pods:
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if constraint.get("matchLabelKeys") != ["pod-template-hash"]:
                yield pod.name, "topologySpreadConstraints must have matchLabelKeys: [pod-template-hash]"


def volumes_fit_their_pods(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """What only one pod may mount is not mounted by two at once, and what is built for minutes is kept."""
    claims = {
        each["metadata"]["name"]: each["spec"]["accessModes"] for each in of_kind(manifests, "PersistentVolumeClaim")
    }
    for each in of_kind(manifests, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        for volume in spec.get("volumes", []):
            modes = claims.get(volume.get("persistentVolumeClaim", {}).get("claimName"), ["ReadWriteMany"])
            alone = each["spec"].get("strategy", {}).get("type") == "Recreate"
            if "ReadWriteMany" not in modes and not alone and volume["name"] == "engines":
                yield (
                    name_of(each),
                    f"volume {volume['name']} is mounted by one pod at a time: strategy must be Recreate",
                )
        if _has_gpu(spec):
            kept = [m["name"] for c in spec["containers"] for m in c["volumeMounts"] if m["mountPath"] == ENGINES]
            if not any(v["name"] in kept and "persistentVolumeClaim" in v for v in spec.get("volumes", [])):
                yield (
                    name_of(each),
                    f"{ENGINES}, where TensorRT's engines are kept, must be a volume that outlives the pod",
                )
            probe = spec["containers"][0].get("startupProbe", {})
            if probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) < BUILDING:
                yield name_of(each), f"startupProbe must wait {BUILDING} s: engines are built before anything answers"


def nothing_keeps_a_pod_from_starting(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Triton is a help, not a condition: no container that must end first writes into its repository."""
    for pod in pods:
        for container in pod.spec.get("initContainers", []) if pod.name.startswith("Deployment/") else []:
            if any(mount["mountPath"].startswith("/models") for mount in container.get("volumeMounts", [])):
                yield (
                    pod.name,
                    f"{container['name']} runs first and writes /models: a claim that cannot be written stops it",
                )
