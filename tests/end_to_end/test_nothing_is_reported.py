"""No library reports to anybody, and nothing is written outside the folders that a command works in."""

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port
from tests.traced import Traced, needs_strace, run_traced, serve_traced

pytestmark = needs_strace


def assert_quiet(traced: Traced) -> None:
    """Nobody was called, nothing was written elsewhere, and the home folder is as empty as it was."""
    assert traced.connections() == set()
    assert traced.written() == set()
    assert list((traced.folder / "home").iterdir()) == []


# addresses of RFC 5737 and RFC 3849, which nobody has; a datagram socket that is connected sends nothing
REPORTS = {
    "192.0.2.1:443": "socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 443))",
    "2001:db8::1:443": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect(('2001:db8::1', 443))",
    "192.0.2.1:8125": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'used', ('192.0.2.1', 8125))",
    "192.0.2.1:8126": "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'used'], [], 0, ('192.0.2.1', 8126))",
    "127.0.0.53:53": "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.53', 53))",
}


@pytest.mark.parametrize("address", REPORTS)
def test_who_reports_is_caught(address: str, tmp_path: Path) -> None:
    """Over IPv4, IPv6, in a datagram, or by asking this machine's name server for an address; also where the network
    gives no way to it. What stays on this machine is no report."""
    local = "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 443))"
    tried = f"import contextlib, socket\nwith contextlib.suppress(OSError): {REPORTS[address]}\n{local}"
    assert run_traced(tmp_path, "-c", tried).connections() == {address}


def test_who_writes_elsewhere_is_caught(tmp_path: Path) -> None:
    """In another folder, and in the home folder, where libraries keep who you are."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "own").mkdir()
    kept = str(elsewhere / "id")
    tried = f"from pathlib import Path; Path({kept!r}).touch(); (Path.home() / 'id').touch()"
    traced = run_traced(tmp_path / "own", "-c", tried)
    assert traced.written() == {kept}
    with pytest.raises(AssertionError):
        assert_quiet(traced)
    quiet = run_traced(tmp_path / "own", "-c", "pass")
    with pytest.raises(AssertionError, match="home"):
        assert_quiet(quiet)


def test_serving_is_quiet(release_folder: Path, photo: bytes, tmp_path: Path) -> None:
    """All engines are tried at start; a photo and a user are answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/readyz").status_code == 200
        return False

    def use() -> None:
        answer = httpx.post(f"{url}/recommend", files={"image": photo}, data={"user_id": "00007"}, timeout=30)
        assert answer.json()["tier"] == "ranked"

    arguments = (release_folder, "--port", str(port), "--grpc-port", "0", "--metrics-port", "0")
    assert_quiet(serve_traced(tmp_path, *arguments, ready=ready, use=use))


@pytest.mark.slow
def test_every_command_is_quiet(boutique_folder: Path, tmp_path: Path) -> None:
    """check, train, tune, gate, promote, status, recommend, evaluate, and bento; the registry is a file here."""
    releases, catalogue = tmp_path / "releases", boutique_folder
    quick = ("--backbone", "convnet", "--weights", "none", "--epochs", "1", "--image-size", "64",
             "--last-layer-steps", "100", "--precision", "int8", "--least-overlap", "0")  # fmt: skip
    thresholds = tmp_path / "gates.toml"  # what one epoch has learned, int8 may answer otherwise
    thresholds.write_text("[pictures]\nleast_precision_overlap = 0.0\n")
    commands: list[tuple[str | Path, ...]] = [
        ("check", catalogue),
        ("train", catalogue, "--releases", releases, *quick),
        ("tune", catalogue, "--releases", releases, "--trials", "2"),
        ("gate", "1", "--releases", releases, "--catalogue", catalogue, "--thresholds", thresholds),
        ("promote", "1", "--to", "production", "--reason", "first", "--releases", releases, "--thresholds", thresholds),
        ("status", "--releases", releases),
        ("recommend", releases / "1", "--user", "00007"),
        ("evaluate", releases / "1", "--catalogue", catalogue, "--out", tmp_path / "evaluation"),
    ]
    for command in commands:
        assert_quiet(run_traced(tmp_path, "-m", "training", *command))
    # a bento goes into BentoML's store, which lies in the home folder
    packing = ("bento", "1", "--releases", releases, "--out", tmp_path / "dist", "--default-user-key")
    traced = run_traced(tmp_path, "-m", "training", *packing)
    assert traced.connections() == set()
    assert traced.written() == set()
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["bentoml"]
