"""Nothing that matters is open by default: keys, signatures, what is personal, and folders that lead elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from service.errors import ReleaseDamaged, ReleaseUntrusted, UnsafeSettings
from service.exposure import is_loopback, require_safe
from service.recommender.release import MANIFEST, Release, resolve
from service.settings import Settings
from service.signing import SIGNATURE, make_key, read_trusted, sign
from tests.processes import HOME, Service, serve

ADMIN = {"X-Admin-Key": "an admin's secret"}
KEYS = {"shop": {"key": "the shop's key"}, "batch": {"key": "the batch's key", "rate": 2}}


@pytest.fixture(scope="module")
def keyed(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two API keys and an admin key."""
    settings = {"VITRINE_API_KEYS": json.dumps(KEYS), "VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"]}
    with serve(release_folder, tmp_path_factory.mktemp("keyed"), settings) as started:
        yield started


def ask(service: Service, key: str) -> httpx.Response:
    return service.http.post("/recommend", json={"k": 1}, headers={"X-API-Key": key})


def test_each_of_several_keys_may_ask(keyed: Service) -> None:
    """So that one can be changed while the other still works."""
    assert ask(keyed, "the shop's key").status_code == 200
    assert ask(keyed, "the batch's key").status_code == 200
    assert ask(keyed, "nobody's key").status_code == 401
    assert keyed.http.post("/recommend", json={}).status_code == 401


def test_the_openapi_document_says_which_key_a_route_asks_for(keyed: Service) -> None:
    """One of the callers', the admin's, or none for the probes."""
    document = keyed.http.get("/docs.json", headers={"X-API-Key": "the shop's key"}).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key", "admin"}
    asks = {
        path: [set(each) for each in next(iter(said.values()))["security"]] for path, said in document["paths"].items()
    }
    assert asks["/recommend"] == asks["/release"] == [{"bearer"}, {"key"}]
    assert asks["/users/profile"] == asks["/admin/release"] == [{"admin", "bearer"}, {"admin", "key"}]
    assert asks["/livez"] == []
    body = document["paths"]["/users/profile"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["user_id"]


def test_a_key_with_a_rate_is_held_to_it(keyed: Service) -> None:
    """429 past it, over HTTP and gRPC alike; the other key is not affected."""
    time.sleep(2)
    statuses = [ask(keyed, "the batch's key").status_code for _ in range(12)]
    assert statuses[:2] == [200, 200]
    assert statuses[-1] == 429
    assert ask(keyed, "the shop's key").status_code == 200
    user = triton_grpc.InferInput("USER_ID", [1], "BYTES")
    user.set_data_from_numpy(np.array([b"00007"], object))
    with triton_grpc.InferenceServerClient(keyed.grpc) as client:
        refused = 0
        for _ in range(12):
            try:
                client.infer("recommender", [user], headers={"x-api-key": "the batch's key"})
            except InferenceServerException as error:
                refused += "times a second" in str(error)
        assert refused >= 6
        assert client.infer("recommender", [user], headers={"x-api-key": "the shop's key"})


def test_a_profile_needs_the_admin_key_and_no_url_names_a_user(keyed: Service) -> None:
    """Tastes, items that stand for them, the segment, and the data; of someone unknown nothing is held."""
    key = {"X-API-Key": "the shop's key"}
    assert keyed.http.post("/users/profile", json={"user_id": "00007"}, headers=key).status_code == 401
    assert keyed.http.get("/users/00007/profile", headers=key).status_code == 404
    both = key | ADMIN
    body = keyed.http.post("/users/profile", json={"user_id": "00007"}, headers=both).json()
    assert set(body) == {"release", "tastes", "items", "segment", "data"}
    assert body["data"]["items"] >= len(body["items"]) > 0
    assert {"category", "colour"} <= set(body["tastes"])
    assert all(taste["lift"] > 1 for found in body["tastes"].values() for taste in found)
    assert all(taste["lift"] == pytest.approx(taste["share"] / taste["usual"]) for taste in body["tastes"]["colour"])
    assert set(body["segment"]) == {"segment", "shoppers", "items"}
    assert keyed.http.post("/users/profile", json={"user_id": "nobody"}, headers=both).status_code == 404
    for wrong in ({}, {"user_id": 7}, {"user_id": "00007", "k": 1}, [], {"user_id": "\ud800"}):
        response = keyed.http.post("/users/profile", content=json.dumps(wrong), headers=both)
        assert response.status_code in (400, 422), wrong


def test_the_metrics_have_a_port_of_their_own(keyed: Service) -> None:
    """Who may ask need not be who may look."""
    assert "vitrine_release" in keyed.metrics_page()
    assert keyed.http.get("/metrics", headers={"X-API-Key": "the shop's key"}).status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "shop.example"])
def test_beyond_this_machine_nothing_is_open_by_default(host: str) -> None:
    """The public user key is refused, and so is a service that asks nobody for a key, unless somebody says so."""
    with pytest.raises(UnsafeSettings, match="VITRINE_USER_KEY"):
        require_safe([host], user_key="vitrine", has_api_key=True, allow_anonymous=True)
    with pytest.raises(UnsafeSettings, match="VITRINE_ALLOW_ANONYMOUS"):
        require_safe(["127.0.0.1", host], user_key="a secret", has_api_key=False, allow_anonymous=False)
    require_safe([host], user_key="a secret", has_api_key=True, allow_anonymous=False)
    require_safe([host], user_key="a secret", has_api_key=False, allow_anonymous=True)
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    require_safe(["127.0.0.1", "::1"], user_key="vitrine", has_api_key=False, allow_anonymous=False)


def started(release: Path, *arguments: str, **environment: str) -> str:
    """What `python -m service` says on standard error when it will not start."""
    command = [sys.executable, "-m", "service", "--port", "0", *arguments]
    settings = {"VITRINE_RELEASE": str(release), "VITRINE_GRPC_PORT": "0", "VITRINE_METRICS_PORT": "0", **environment}
    done = subprocess.run(
        command, cwd=HOME, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_service_that_would_be_open_does_not_start(release_folder: Path) -> None:
    """One line, exit code 1."""
    assert "VITRINE_USER_KEY" in started(release_folder, "--host", "0.0.0.0").splitlines()[-1]


def test_a_wrong_setting_is_one_line_without_its_value(release_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a secret; a name that is none is said, with the one that may be meant."""
    said = started(release_folder, VITRINE_API_KEY="short", VITRINE_DEADLINE="soon")
    assert "VITRINE_API_KEY" in said
    assert "VITRINE_DEADLINE" in said
    assert "short'" not in said
    assert len(said.strip().splitlines()) == 1
    monkeypatch.setenv("VITRINE_DEADLIN", "3")
    monkeypatch.setenv("VITRINE_SERVICE_HOST", "10.0.0.1")  # Kubernetes writes it
    assert Settings.mistyped() == ["VITRINE_DEADLIN is no setting; is VITRINE_DEADLINE meant?"]


@pytest.fixture(scope="module")
def signed(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed release, and the public key."""
    folder = tmp_path_factory.mktemp("signed")
    make_key(folder / "team.key", folder / "team.pub")
    release = Path(shutil.copytree(release_folder, folder / "1"))
    sign(release, folder / "team.key")
    return release, folder / "team.pub"


def test_a_signed_release_opens_where_its_key_is_trusted(signed: tuple[Path, Path], tmp_path: Path) -> None:
    """And where nobody asks; several keys may be trusted, in a file or a folder."""
    release, public = signed
    Release.open(release, trusted=read_trusted(public))
    Release.open(release)
    make_key(tmp_path / "other.key", tmp_path / "other.pub")
    (tmp_path / "team.pub").write_bytes(public.read_bytes())
    Release.open(release, trusted=read_trusted(tmp_path))
    (tmp_path / "both").write_bytes((tmp_path / "other.pub").read_bytes() + public.read_bytes())
    assert len(read_trusted(tmp_path / "both")) == 2
    assert (tmp_path / "other.key").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("harm", ["unsigned", "another key", "changed manifest", "garbage", "swapped"])
def test_what_is_not_signed_by_a_trusted_key_is_refused(
    signed: tuple[Path, Path], release_folder: Path, tmp_path: Path, harm: str
) -> None:
    """Before any file of it is parsed: a manifest that is no JSON is not looked at."""
    release, trusted = Path(shutil.copytree(signed[0], tmp_path / "1")), read_trusted(signed[1])
    if harm == "unsigned":
        (release / SIGNATURE).unlink()
    elif harm == "another key":
        make_key(tmp_path / "other.key", tmp_path / "other.pub")
        sign(release, tmp_path / "other.key")
    elif harm == "changed manifest":
        (release / MANIFEST).write_bytes((release / MANIFEST).read_bytes() + b"{")
    elif harm == "garbage":
        (release / SIGNATURE).write_bytes(os.urandom(10_000))
    else:
        said = json.loads((release / SIGNATURE).read_text())
        (release / SIGNATURE).write_text(json.dumps(said | {"signature": said["signature"][::-1]}))
    with pytest.raises(ReleaseUntrusted):
        Release.open(release, trusted=trusted)


def test_a_service_that_trusts_keys_starts_with_a_signed_release_alone(
    signed: tuple[Path, Path], release_folder: Path, tmp_path: Path
) -> None:
    """At start, and when another release is to take over."""
    releases = tmp_path / "releases"
    shutil.copytree(signed[0], releases / "1")
    shutil.copytree(release_folder, releases / "2")
    settings = {"VITRINE_TRUSTED_KEYS": str(signed[1]), "VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"]}
    assert "is not signed" in started(releases / "2", **settings)
    with serve(releases / "1", tmp_path / "home", settings) as service:
        refused = service.http.post("/admin/release", json={"release": "2"}, headers=ADMIN)
        assert refused.status_code == 409
        assert "is not signed" in refused.json()["detail"]


def test_links_in_a_release_are_refused(copied_release: Path, tmp_path: Path) -> None:
    """Also those to a file that is as it should be: a release is plain files."""
    elsewhere = tmp_path / "elsewhere"
    (copied_release / "vectors.npy").rename(elsewhere)
    (copied_release / "vectors.npy").symlink_to(elsewhere)
    with pytest.raises(ReleaseDamaged, match=r"links \(vectors.npy\)"):
        Release.open(copied_release)


@pytest.mark.parametrize("text", ["../../etc", "/etc", "1/../2", "7\n8", "", "latest", "\u0667"])
def test_a_pointer_holds_digits_alone(tmp_path: Path, text: str) -> None:
    """It can name nothing but a release beside it."""
    pointer = tmp_path / "current"
    pointer.write_text(text)
    with pytest.raises(ReleaseDamaged, match="must hold the number"):
        resolve(pointer)
    pointer.write_text("7\n")
    assert resolve(pointer) == tmp_path / "7"
