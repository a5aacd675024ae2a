"""What is in a bento and in an image, as CycloneDX: the lock's packages, or what an image was found to hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from service.errors import VitrineError
from service.files import digest, replacing, write_text
from service.recommender.release import MANIFEST, Manifest

# run in the image by its own interpreter: what dpkg, Python and the release say of themselves
LIST = """
import importlib.metadata, json, pathlib, platform, sys
packages = []
status = pathlib.Path("/var/lib/dpkg/status")
for block in status.read_text().split("\\n\\n") if status.exists() else []:
    fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
    if fields.get("Status", "").endswith(" installed"):
        packages.append(["deb", fields["Package"], fields["Version"], fields["Architecture"]])
for each in importlib.metadata.distributions():
    packages.append(["pypi", each.metadata["Name"], each.version, ""])
system = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
print(json.dumps({
    "system": system["ID"].strip('"'), "python": platform.python_version(), "packages": sorted(packages),
}))
"""


def write_for_lock(lock: Path, project: Path, path: Path) -> None:
    """Write what a lock pins, with its hashes. Raises VitrineError where the generator fails."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(lock), "--output-reproducible"]
    with replacing(path) as aside:
        _output([*command, "--output-format", "JSON", "--output-file", str(aside), "--pyproject", str(project)])


def write_for_image(engine: str, tag: str, base: tuple[str, str], release: Path, path: Path) -> None:
    """Write what an image holds: Debian's and Python's packages as it lists them itself, its interpreter, and the
    release. base: name and digest of the image that it was built on.

    Raises VitrineError where the engine cannot run it."""
    run = [engine, "run", "--rm", "--network=none", "--entrypoint=python3", tag, "-c", LIST]
    found = json.loads(_output(run))
    image = _output([engine, "image", "inspect", "--format", "{{.Id}}", tag]).strip().removeprefix("sha256:")
    document = document_of_image(tag, image, base, found, Manifest.read(release).release, digest(release / MANIFEST))
    write_text(path, json.dumps(document, indent=1) + "\n")


def document_of_image(
    tag: str, image: str, base: tuple[str, str], found: dict[str, Any], number: int, sealed: str
) -> dict[str, Any]:
    """CycloneDX 1.6 of an image. image: its id; found: as LIST prints it; sealed: sha256 of the release's manifest."""
    components = [_package(found["system"], *package) for package in found["packages"]]
    components.append({
        "type": "application", "bom-ref": "python", "name": "python", "version": found["python"],
        "purl": f"pkg:generic/python@{found['python']}",
    })  # fmt: skip
    components.append({
        "type": "machine-learning-model", "bom-ref": "release", "name": "vitrine-release", "version": str(number),
        "hashes": [{"alg": "SHA-256", "content": sealed}],
    })  # fmt: skip
    about = {
        "type": "container", "bom-ref": "image", "name": tag.rpartition(":")[0], "version": tag.rpartition(":")[2],
        "hashes": [{"alg": "SHA-256", "content": image}],
        "properties": [{"name": "base.name", "value": base[0]}, {"name": "base.digest", "value": base[1]}],
    }  # fmt: skip
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, image)}",
        "metadata": {"component": about},
        "components": components,
    }  # fmt: skip


def _package(system: str, kind: str, name: str, version: str, architecture: str) -> dict[str, Any]:
    """One package, with the address that scanners know it by (package-url.github.io)."""
    if kind == "deb":
        purl = f"pkg:deb/{system}/{name}@{version.replace(':', '%3A')}?arch={architecture}"
    else:
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VitrineError(f"writing the SBOM failed with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
