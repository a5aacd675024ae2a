"""Whether what kustomize renders would work: `python -m k8s.check [FOLDER ...]`; all overlays and components else.

Schemas say whether a field exists; `rules` says whether the parts fit each other and the service: that selectors
select, names resolve, ports and probes exist, settings are settings, and that nothing runs with more rights than it
needs. Exit code 1 where anything is wrong.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import jsonschema
import kubernetes_validate

from k8s.rendered import HOME, Manifest, components, name_of, pods_of, render, render_component
from k8s.rules import RULES

VERSIONS = ("1.31", "1.37")  # the oldest and the newest Kubernetes that the manifests are held against


def problems(manifests: Sequence[Manifest]) -> list[str]:
    """What is wrong with what was rendered together, in words."""
    pods = list(pods_of(manifests))
    whole = [(name_of(each), each) for each in manifests]
    # some kinds' own schema does not look into the pod
    whole += [
        (pod.name, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod.spec}) for pod in pods
    ]
    found = [f"{name}: {message}" for name, each in whole for message in _against_schemas(json.dumps(each))]
    return found + [f"{name}: {message}" for rule in RULES for name, message in rule(list(manifests), pods)]


@cache  # what several overlays have in common is held against them once
def _against_schemas(text: str) -> tuple[str, ...]:
    return tuple(_schema_errors(json.loads(text)))


def _schema_errors(manifest: Manifest) -> Iterator[str]:
    ours = HOME / "schemas" / f"{manifest['kind']}.json"
    if ours.exists():
        for error in jsonschema.Draft7Validator(json.loads(ours.read_text())).iter_errors(manifest):
            yield f"{error.message} (at {'.'.join(map(str, error.path))})"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{error.message} (at {'.'.join(map(str, error.path))}, Kubernetes {version})"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"Kubernetes {version} has no {manifest['apiVersion']} {manifest['kind']}"


def main(folders: Sequence[str]) -> int:
    """Check these overlays, or everything; returns how many problems there are."""
    paths = [Path(each) for each in folders] or sorted(path for path in HOME.glob("overlays/*") if path.is_dir())
    everything: list[tuple[str, Callable[[], list[Manifest]]]] = [(str(path), partial(render, path)) for path in paths]
    if not folders:
        everything += [(f"base + {name}", partial(render_component, name)) for name in components()]
    count = 0
    for what, make in everything:
        try:
            found = problems(make())
        except ValueError as error:
            found = [str(error)]
        print(f"{what}: {'as it should be' if not found else f'{len(found)} problems'}")
        for problem in found:
            print(f"  {problem}")
        count += len(found)
    return count


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
