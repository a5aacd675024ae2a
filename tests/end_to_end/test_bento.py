"""A bento answers on a machine that has nothing else of the project."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port, wait_until
from tests.team import QUICK, Team

pytestmark = pytest.mark.slow
USER_KEY = "of this test alone"


@pytest.fixture(scope="module")
def packed(boutique_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A team with release 1 in its registry, a user key of its own, and a store of BentoML's of its own."""
    folder = tmp_path_factory.mktemp("packed")
    team = Team(folder, BENTOML_HOME=str(folder / "bentoml"), VITRINE_USER_KEY=USER_KEY)
    team.run("train", boutique_folder, *QUICK)
    return team


def answered(port: int, photo: bytes) -> dict:
    """What a service on this port says of a photo, once it is ready."""

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, seconds=90)
    reply = httpx.post(f"http://127.0.0.1:{port}/recommend", files={"image": photo}, timeout=30)
    return reply.raise_for_status().json()


def test_a_bento_answers_on_a_machine_without_the_repository(packed: Team, tmp_path: Path, photo: bytes) -> None:
    """Imported into another store, in an environment made from its own lock, from another folder."""
    tag = json.loads(packed.run("bento", 1, "--out", packed.folder / "dist", "--json"))
    assert tag["tag"] == "vitrine:1"
    parts = json.loads((packed.folder / "dist" / "vitrine-1.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    assert {"bentoml", "faiss-cpu", "onnxruntime"} <= {part["name"] for part in parts["components"]}
    assert not {"torch", "mlflow", "pytest"} & {part["name"] for part in parts["components"]}
    lock = packed.folder / "bentoml" / "bentos" / "vitrine" / "1" / "env" / "python" / "requirements.txt"
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clean], check=True)
    uv = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", clean / "bin" / "python"]
    # uv holds packages against their hashes; BentoML names itself once more in the lock, without one
    subprocess.run([*uv, "--no-deps", "--verify-hashes", "-r", lock], check=True)
    port = free_port()
    environment = {
        "PATH": f"{clean}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "store"),
        "BENTOML_DO_NOT_TRACK": "True", "VITRINE_GRPC_PORT": "0", "VITRINE_METRICS_PORT": "0",
        "VITRINE_USER_KEY": USER_KEY, "VITRINE_ALLOW_ANONYMOUS": "true",
    }  # fmt: skip
    bentoml = [clean / "bin" / "bentoml"]
    subprocess.run(
        [*bentoml, "import", packed.folder / "dist" / "vitrine-1.bento"], env=environment, cwd=tmp_path, check=True
    )
    with subprocess.Popen(
        [*bentoml, "serve", "vitrine:1", "--port", str(port)], env=environment, cwd=tmp_path
    ) as server:
        try:
            assert answered(port, photo)["release"] == "1"
        finally:
            server.terminate()
