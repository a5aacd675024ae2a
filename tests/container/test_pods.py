"""What the dev overlay describes, run: the image of a release, Triton beside it, as podman runs pods."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from service.files import digest
from service.recommender.release import MANIFEST
from tests.container.conftest import BASE, tampered
from tests.container.load import Balancer, OpenLoop
from tests.container.pods import IMAGE, Pod, memory_group, memory_limit, memory_used, overlay_of, pod, podman, render
from tests.processes import wait_until
from tests.team import Team

PATIENCE = 20  # seconds in which a release that is whole has long been ready


def metric(made: Pod, name: str) -> float:
    """A value of its /metrics."""
    lines = httpx.get(f"{made.metrics}/metrics").text.splitlines()
    return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), "nan"))


def recommend(made: Pod, photo: bytes) -> dict:
    """An answer over HTTP."""
    sent = {"files": {"image": photo}, "data": {"user_id": "00007"}, "timeout": 30}
    return httpx.post(f"{made.http}/recommend", **sent).raise_for_status().json()


def test_the_image_is_small_and_holds_nothing_to_build_or_test_with(first: Pod) -> None:
    """At most 940 MB; no compiler, no pip, no cache of it, no test file."""
    [facts] = json.loads(podman("image", "inspect", f"{IMAGE}:1"))
    assert facts["Size"] <= 940e6
    assert podman("exec", first.container, "sh", "-c", "command -v gcc cc g++ make git pip", check=False) == ""
    unwanted = r"find /opt /root /tmp -type d \( -name tests -o -name test -o -path '*/.cache/pip' -o -name pip \)"
    assert podman("exec", first.container, "sh", "-c", f"{unwanted} 2>/dev/null", check=False) == ""


def test_the_image_says_what_it_is(team: Team) -> None:
    """Numeric user, both ports, no telemetry, labels with release and digests; not built again for nothing."""
    [facts] = json.loads(podman("image", "inspect", f"{IMAGE}:1"))
    config = facts["Config"]
    assert config["User"] == "1034:1034"
    assert set(config["ExposedPorts"]) == {"3000/tcp", "3001/tcp", "3002/tcp"}
    assert {"BENTOML_DO_NOT_TRACK=True", "ORT_DISABLE_TELEMETRY=1"} <= set(config["Env"])
    assert config["Labels"]["vitrine.release"] == "1"
    assert config["Labels"]["vitrine.manifest"] == digest(team.releases / "1" / MANIFEST)
    said = team.run("image", 1, "--engine", "podman", "--repository", IMAGE, "--out", team.folder / "dist")
    assert re.fullmatch(rf"{IMAGE}:1-[0-9a-f]{{8}}", said.splitlines()[-1])  # no tag ever means two images
    assert json.loads(podman("image", "inspect", f"{IMAGE}:1"))[0]["Id"] == facts["Id"]


def test_the_list_of_parts_is_what_is_in_the_image(team: Team, first: Pod) -> None:
    """Debian's packages as dpkg names them, Python's as they lie on the disk, nothing else; valid CycloneDX."""
    text = (team.folder / "dist" / "vitrine-1.image.cdx.json").read_text()
    parts = json.loads(text)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {part["purl"].partition("?")[0] for part in parts["components"] if "purl" in part}
    debian = podman("exec", first.container, "dpkg-query", "--show", "--showformat", "${Package}@${Version}\n").split()
    assert {name for name in listed if name.startswith("pkg:deb")} == {
        f"pkg:deb/debian/{name.replace(':', '%3A')}" for name in debian
    }
    found = podman("exec", first.container, "find", "/opt/vitrine/python/lib", "-name", "*.dist-info").split()
    python = {Path(path).name.removesuffix(".dist-info").rpartition("-")[0].lower().replace("_", "-") for path in found}
    assert {name.split("@")[0] for name in listed if name.startswith("pkg:pypi")} == {f"pkg:pypi/{n}" for n in python}
    [release] = [part for part in parts["components"] if part["type"] == "machine-learning-model"]
    assert release["hashes"] == [{"alg": "SHA-256", "content": digest(team.releases / "1" / MANIFEST)}]
    [base] = json.loads(podman("image", "inspect", BASE))
    built_on = parts["metadata"]["component"]["properties"][1]["value"]
    assert built_on in {each.rpartition("@")[2] for each in base["RepoDigests"]}


def test_it_is_ready_when_the_golden_pictures_were_answered(first: Pod, k8s: Path) -> None:
    """And not a moment earlier; within ten seconds of being played, most of which is podman's."""
    again = pod(render(overlay_of(k8s, 1)), "vitrine", "vitrine-again")
    seen = []
    try:
        again.play()
        began = time.monotonic()
        while not (ready := again.ready()) and time.monotonic() < began + 10:
            seen.append(ready)
            time.sleep(0.05)
        assert ready, again.logs()
        assert seen, "it was ready before it could have been"
        assert "release 1: 144 items, ready in" in again.logs()
    finally:
        again.remove()


def test_real_clients_are_answered_over_each_protocol(first: Pod, photo: bytes) -> None:
    """BentoML's client, and Triton's over REST and gRPC: the same items."""
    items = [item["item_id"] for item in recommend(first, photo)["items"]]
    with bentoml.SyncHTTPClient(first.http) as client:
        assert "/recommend" in {f"/{name}" for name in client.endpoints}
    for module, address in ((tritonclient.http, "http"), (tritonclient.grpc, "grpc")):
        client = module.InferenceServerClient(f"127.0.0.1:{first.ports[address]}")
        inputs = []
        for name, value in (("IMAGE", photo), ("USER_ID", b"00007")):
            tensor = module.InferInput(name, [1], "BYTES")
            tensor.set_data_from_numpy(np.array([value], object))
            inputs.append(tensor)
        answered = client.infer("recommender", inputs).as_numpy("ITEM_ID")
        assert [item.decode() for item in answered[0]] == items
        client.close()


def test_the_encoder_runs_in_tritons_pod_and_here_while_that_is_away(first: Pod, triton: Pod, photo: bytes) -> None:
    """Killed, the service goes on by itself and says so; back again, Triton is used again."""
    wait_until(lambda: metric(first, 'vitrine_triton_there{release="1"}') == 1)
    assert recommend(first, photo)["degraded"] == []
    items = [item["item_id"] for item in recommend(first, photo)["items"]]
    podman("kill", triton.container)
    alone = recommend(first, photo)
    assert alone["degraded"] == ["encoder"]
    assert [item["item_id"] for item in alone["items"]] == items
    podman("start", triton.container)
    wait_until(lambda: recommend(first, photo)["degraded"] == [], seconds=60)


@pytest.mark.parametrize("which", ["vitrine", "triton"])
def test_the_process_has_the_rights_that_the_manifest_says(first: Pod, triton: Pod, which: str) -> None:
    """Read from /proc: a user that is not root, no capability, no new privileges, seccomp, a root that is read-only."""
    made = first if which == "vitrine" else triton
    process = Path(f"/proc/{made.state()['Pid']}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {"1034" if which == "vitrine" else "1000"}
    assert set(status["Gid"].split()) == {"1034"}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    assert ("rw" if which == "vitrine" else "ro") in options["/models"]  # the service brings what Triton serves
    assert podman("exec", made.container, "sh", "-c", "touch /x 2>&1", check=False).endswith("Read-only file system")


def test_memory_stays_within_the_limit_under_load(first: Pod, photo: bytes) -> None:
    """Thirty-two clients for ten seconds; the kernel's own count, and nothing was killed."""
    [group] = Path(f"/proc/{first.state()['Pid']}/cgroup").read_text().splitlines()[-1:]
    folder = memory_group(first)
    limit = memory_limit(folder)
    assert limit == 2 * 2**30, group
    ending = time.monotonic() + 10
    used = []

    def ask(_: int) -> None:
        with httpx.Client(base_url=first.http, timeout=30) as client:
            while time.monotonic() < ending:
                assert client.post("/recommend", files={"image": photo}).status_code == 200
                used.append(memory_used(folder))

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(32)))
    assert max(used) < 0.8 * limit
    assert not first.state()["OOMKilled"]


def test_sigterm_under_load_loses_nothing(first: Pod, k8s: Path, photo: bytes, tmp_path: Path) -> None:
    """One of two pods is told to end, out of the blue: what it began is answered, and all else goes to the other."""
    other = pod(render(overlay_of(k8s, 1)), "vitrine", "vitrine-other")
    other.remove()
    other.play()
    try:
        other.wait()
        with Balancer(tmp_path / "balancer", [first, other]) as at, OpenLoop(at.url, photo, rate=20) as load:
            time.sleep(3)
            other.terminate()
            wait_until(lambda: not other.state()["Running"], seconds=30)
            time.sleep(2)
        assert not load.failed
        assert len(load.answers) > 100
        assert other.state()["ExitCode"] == 0
    finally:
        other.remove()


COPY = 'cp -r "$VITRINE_RELEASE" /other/release; cd /other/release; '
DAMAGED = COPY + "printf x | dd of=vectors.npy bs=1 seek=999 conv=notrunc"
# sealed as if it were whole, by someone who changed what the golden pictures are to give
RESEALED = f"""{COPY} python3 -c '
import hashlib, json, numpy as np
path = "golden/vectors.npy"
np.save(path, -np.load(path))
manifest = json.load(open("manifest.json"))
data = open(path, "rb").read()
manifest["files"][path] = dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
json.dump(manifest, open("manifest.json", "w"))'
"""


@pytest.mark.parametrize(("script", "said"), [(DAMAGED, "changed: vectors.npy"), (RESEALED, "golden")])
def test_a_corrupted_release_never_becomes_ready(triton: Pod, first: Pod, k8s: Path, script: str, said: str) -> None:
    """Neither one whose files were changed, nor one that is whole and answers otherwise than it should."""
    broken = tampered(pod(render(overlay_of(k8s, 1)), "vitrine", "vitrine-broken"), script)
    broken.remove()
    try:
        broken.play()
        ending = time.monotonic() + PATIENCE
        while time.monotonic() < ending:
            assert not broken.ready()
            if not broken.state()["Running"] and re.search(said, broken.logs()):
                break
            time.sleep(0.1)
        assert re.search(said, broken.logs()), broken.logs()
    finally:
        broken.remove()
