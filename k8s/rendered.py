"""What kustomize renders, and the pods that would come of it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HOME = Path(__file__).resolve().parent
# what a component needs before it; `overlays/` show the usual combinations
NEEDS = {
    "gpu": ("triton",), "tensorrt": ("triton", "gpu"), "hpa-requests": ("hpa",), "postgres-dev": ("store",),
}  # fmt: skip
IMAGES = ("vitrine", "vitrine-candidate", "vitrine-code", "vitrine-training")  # that an overlay names
WORKLOADS = ("Deployment", "Job", "CronJob", "Pod", "StatefulSet", "DaemonSet")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as some manifest makes it. name: Kind/name of that; selector: by which it finds its pods, if by any."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    selector: dict[str, str] | None = None

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first first."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    @property
    def ports(self) -> dict[str, int]:
        """By name."""
        return {
            port["name"]: port["containerPort"]
            for each in self.containers
            for port in each.get("ports", [])
            if "name" in port
        }


def render(folder: Path) -> list[Manifest]:
    """What kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        raise ValueError("kubectl, which renders the manifests, is not here: https://kubernetes.io/docs/tasks/tools")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{folder} cannot be rendered: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def render_component(name: str) -> list[Manifest]:
    """The base with one component, and with what that needs."""
    with tempfile.TemporaryDirectory() as folder:

        def there(path: str) -> str:
            return os.path.relpath(HOME / path, Path(folder).resolve())

        images = [{"name": each, "newName": "vitrine", "newTag": "1"} for each in IMAGES]
        (Path(folder) / "namespace.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: check}}\n")
        kustomization = {
            "resources": ["namespace.yaml", there("base")], "namespace": "check", "images": images,
            "components": [there(f"components/{each}") for each in (*NEEDS.get(name, ()), name)],
        }  # fmt: skip
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(Path(folder))


def components() -> list[str]:
    """Every component, by its path below components/."""
    return sorted(
        str(path.parent.relative_to(HOME / "components")) for path in HOME.glob("components/**/kustomization.yaml")
    )


def pods_of(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    for each in manifests:
        kind, spec = each["kind"], each.get("spec", {})
        if kind in WORKLOADS:
            template = each if kind == "Pod" else _template(spec)
            labels = template["metadata"].get("labels", {})
            yield Pod(name_of(each), labels, template["spec"], spec.get("selector", {}).get("matchLabels"))
        elif kind == "InferenceService":  # KServe puts the pod together from two manifests
            predictor = dict(spec["predictor"])
            runtime = next(m["spec"] for m in manifests if m["kind"] == "ServingRuntime")
            pod = {key: value for key, value in predictor.items() if key in POD_FIELDS}
            yield Pod(
                name_of(each),
                predictor.get("labels", {}),
                pod | {"containers": runtime["containers"], "volumes": runtime.get("volumes", [])},
            )


def _template(spec: dict[str, Any]) -> dict[str, Any]:
    """Of the pods; a CronJob makes Jobs of its own."""
    template: dict[str, Any] = (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]
    return template


# of a predictor, that are a pod's
POD_FIELDS = (
    "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds",
    "securityContext", "tolerations", "nodeSelector",
)  # fmt: skip


def name_of(manifest: Manifest) -> str:
    """Kind/name."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
