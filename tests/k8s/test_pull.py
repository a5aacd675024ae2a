"""components/release-volume/pull: a release from a real MLflow server, whole or not at all."""

import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from service.recommender.release import verify
from tests.processes import HOME, mlflow
from training.promotion.registry import Registry

pytestmark = pytest.mark.slow
SCRIPT = HOME / "k8s" / "components" / "release-volume" / "pull" / "pull_release.py"


@pytest.fixture(scope="module")
def registry(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that holds release 1; gives its address, and its folder."""
    folder = tmp_path_factory.mktemp("registry")
    with mlflow(folder / "server") as uri:
        held = Registry(uri)
        assert held.reserve(folder) == 1
        held.add(Path(shutil.copytree(release_folder, folder / "1")))
        yield uri, folder / "server"


def pull(folder: Path, number: str, uri: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As the init container does."""
    environment = {**os.environ, "PYTHONPATH": str(HOME), "RELEASE": number, "MLFLOW_TRACKING_URI": uri, **more}
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_release_is_pulled_and_named(registry: tuple[str, Path], tmp_path: Path) -> None:
    """Its folder as it was sealed, and a pointer to it; once more changes nothing."""
    for _ in range(2):
        done = pull(tmp_path, "1", registry[0])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "current").read_text() == "1\n"
        verify(tmp_path / "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "current"]


def test_what_was_changed_in_the_registry_does_not_arrive(registry: tuple[str, Path], tmp_path: Path) -> None:
    """It says which file, and leaves neither a release nor a pointer."""
    [stored] = (registry[1] / "artefacts").rglob("release/items.parquet")
    kept = stored.read_bytes()
    stored.write_bytes(b"another catalogue")
    try:
        done = pull(tmp_path, "1", registry[0])
    finally:
        stored.write_bytes(kept)
    assert done.returncode == 1
    assert "changed: items.parquet" in done.stderr
    assert not list(tmp_path.glob("[!.]*"))


class Guard(BaseHTTPRequestHandler):
    """Before a registry: TLS, a token, and a list of the hosts that it answers for, as MLflow's own."""

    behind = ""
    token = "a token of the registry"

    def do_GET(self) -> None:
        """Ask for both, then pass it on."""
        if not self.headers["Host"].startswith("127.0.0.1"):
            self.send_error(403, "Invalid Host header")
        elif self.headers["Authorization"] != f"Bearer {self.token}":
            self.send_error(401)
        else:
            answer = httpx.get(f"{self.behind}{self.path}", timeout=60)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def guarded(registry: tuple[str, Path], tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and the authority that signed its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here, and the certificate of this test is made with it")
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Guarded", (Guard,), {"behind": registry[0]}))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, certificate
    server.shutdown()
    server.server_close()


def test_a_registry_that_asks_who_is_there(guarded: tuple[int, Path], tmp_path: Path) -> None:
    """With the token and the authority that the component mounts it is pulled; without, or under a name that the
    server does not know, one line says what is missing."""
    port, authority = guarded
    trusted = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority)}
    token = {"MLFLOW_TRACKING_TOKEN": Guard.token}
    for name, more, said in (
        ("127.0.0.1", {**token, "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca/absent"}, "the config map mlflow-ca"),
        ("127.0.0.1", trusted, "the Secret mlflow must hold its token"),
        ("localhost", {**trusted, **token}, "--allowed-hosts"),
    ):
        done = pull(tmp_path / "releases", "1", f"https://{name}:{port}", **more)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not list((tmp_path / "releases").glob("[!.]*"))
    done = pull(tmp_path / "releases", "1", f"https://127.0.0.1:{port}", **trusted, **token)
    assert done.returncode == 0, done.stderr
    verify(tmp_path / "releases" / "1")


def test_a_release_that_is_not_there_is_named(registry: tuple[str, Path], tmp_path: Path) -> None:
    """In one line."""
    done = pull(tmp_path, "9", registry[0])
    assert done.returncode == 1
    assert "version=9" in done.stderr
    assert "Traceback" not in done.stderr
