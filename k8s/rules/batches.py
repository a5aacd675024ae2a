"""What the Jobs that answer every user are made of."""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import PurePosixPath
from typing import Any

from k8s.rendered import Manifest, Pod, name_of
from k8s.rules.common import environment, of_kind
from service.batch.__main__ import parser

MODULE = "service.batch"


def batches_are_kept(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """Options are those that it takes, and what is answered outlives the pod."""
    for pod in pods:
        for container in _batches(pod):
            try:
                with redirect_stderr(io.StringIO()) as said:
                    asked = parser().parse_args([*container["command"][3:], *container.get("args", [])])
            except SystemExit:
                yield pod.name, f"it would not start: {said.getvalue().strip().splitlines()[-1]}"
                continue
            claims = {each["name"] for each in pod.spec.get("volumes", []) if "persistentVolumeClaim" in each}
            kept = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in claims]
            if not any(PurePosixPath(asked.out).is_relative_to(path) for path in kept):
                yield pod.name, f"--out {asked.out} must lie on a claim: what is answered would go with the pod"


def batches_answer_as_the_service(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """From the same release, whose users are hashed with the same key."""
    served = [(pod, pod.spec["containers"][0]) for pod in pods if pod.name == "Deployment/vitrine"]
    for pod in pods:
        for container in _batches(pod):
            for service, serving in served:
                own, theirs = _release(pod, container, manifests), _release(service, serving, manifests)
                if own != theirs:
                    yield pod.name, f"it answers from the release of {own}, and the service from that of {theirs}"
                if _user_key(container) != _user_key(serving):
                    yield pod.name, "VITRINE_USER_KEY must come from where the service's comes: no user is known else"


def batches_go_on(manifests: list[Manifest], pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """A pod that a node loses is followed by another, and is no failure."""
    jobs = {name_of(each): each["spec"] for each in of_kind(manifests, "Job")}
    for pod in pods:
        if pod.name not in jobs or not any(_batches(pod)):
            continue
        rules = jobs[pod.name].get("podFailurePolicy", {}).get("rules", [])
        ignored = [each["type"] for rule in rules if rule["action"] == "Ignore" for each in rule["onPodConditions"]]
        if "DisruptionTarget" not in ignored:
            yield pod.name, "podFailurePolicy must ignore DisruptionTarget: what is drained goes on"


def _batches(pod: Pod) -> Iterator[dict[str, Any]]:
    return (each for each in pod.containers if MODULE in each.get("command", []))


def _release(pod: Pod, container: dict[str, Any], manifests: list[Manifest]) -> str:
    """Where it comes from: the image, another one that is mounted, or a path."""
    mounted = [each["image"]["reference"] for each in pod.spec.get("volumes", []) if "image" in each]
    named = environment(container, manifests).get("VITRINE_RELEASE")
    return str(mounted[0] if mounted else named or container["image"])


def _user_key(container: dict[str, Any]) -> Any:
    return next((each.get("valueFrom") for each in container["env"] if each["name"] == "VITRINE_USER_KEY"), None)
