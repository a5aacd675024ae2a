"""The encoder in a real Triton server: the same answers, versions that come and go, and a server that dies.

Its onnxruntime backend is the stand-in of triton/backends: what is proven here is configuration, protocol and wiring,
not NVIDIA's C++ backend.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as triton_grpc

from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.serving.model_repository import install, put
from tests.processes import HOME, Clients, Service, Triton, free_port, serve, triton, wait_until
from tests.quick import options
from training.pipeline import train
from training.triton import repository

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def tritonserver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed from PyPI into an environment of its own."""
    if (HOME / ".triton" / "installed").exists():
        return HOME / ".triton" / "tritonserver"
    folder = tmp_path_factory.mktemp("triton")
    done = subprocess.run(
        [HOME / "triton" / "install.sh", folder], env={**os.environ, "PYTHON": sys.executable}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no Triton server can be installed here: {done.stderr[-300:]}")
    return folder / "tritonserver"


@pytest.fixture(scope="session")
def second_release(boutique_folder: Path, release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 2, of another network with the same shape: its vectors have nothing to do with those of release 1, which
    lies beside it."""
    releases = tmp_path_factory.mktemp("releases2")
    shutil.copytree(release_folder, releases / "1")
    first = options(boutique_folder, releases)
    path = train(replace(first, encoder=replace(first.encoder, seed=1)))
    assert path is not None
    assert path.name == "2"
    return path


@pytest.fixture
def server(tritonserver: Path, release_folder: Path, tmp_path: Path) -> Iterator[Triton]:
    """A Triton that serves release 1 from the project's repository, unchanged."""
    with triton(tritonserver, tmp_path) as made:
        install(Release.open(release_folder), made.repository)
        made.start()
        yield made


def behind(server: Triton, **more: str) -> dict[str, str]:
    """Settings of a service whose encoder is there."""
    return {"VITRINE_ENCODER": "triton", "VITRINE_TRITON_URL": server.grpc, **more}


def photos(boutique_folder: Path) -> list[bytes]:
    """All pictures of the catalogue."""
    return [path.read_bytes() for path in sorted((boutique_folder / "images").iterdir())]


class Load(Clients):
    """Clients that ask for recommendations one after the other, until they are told to stop."""

    def __init__(self, service: Service, pictures: list[bytes], *, clients: int = 8) -> None:
        self.url = str(service.http.base_url)
        self.answers: list[tuple[float, int, dict]] = []  # when, status, body
        self.lost: list[str] = []
        self._pictures = pictures
        super().__init__([partial(self._ask, number) for number in range(clients)])

    @property
    def statuses(self) -> Counter[int]:
        """How often each came."""
        return Counter(status for _, status, _ in self.answers)

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not self.done.is_set():
                number += 1
                at = number * 7 % len(self._pictures)
                try:
                    answer = client.post(f"{self.url}/recommend", files={"image": self._pictures[at]}, data={"k": "10"})
                    self.answers.append((time.monotonic(), answer.status_code, {"at": at} | answer.json()))
                except httpx.TransportError as error:
                    self.lost.append(repr(error))


def expected(release: Path, pictures: list[bytes]) -> list[list[str]]:
    """The items that a release gives for each picture, in this process."""
    from service.recommender.query import Query

    recommender = Recommender(Release.open(release))
    return [[item.item_id for item in recommender.recommend([Query(image=picture)])[0].items] for picture in pictures]


def same_items(body: dict, answers: dict[str, list[list[str]]]) -> bool:
    """Whether an answer is wholly that of the release that it names."""
    return [item["item_id"] for item in body["items"]] == answers[body["release"]][body["at"]]


def test_the_answers_are_those_of_the_encoder_in_process(
    server: Triton, release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """Vectors within 1e-5, and the same ten items for 500 queries."""
    pictures = photos(boutique_folder)
    local = Recommender(Release.open(release_folder))
    answers = {"1": expected(release_folder, pictures)}
    with serve(release_folder, tmp_path / "service", behind(server)) as service:
        for picture in pictures[:40]:
            found = service.http.post("/embed", files={"image": picture}).json()
            assert found["degraded"] == []
            assert np.abs(np.array(found["embedding"]) - local.embed([picture])[0]).max() < 1e-5
        for number in range(500):
            at = number % len(pictures)
            body = service.http.post("/recommend", files={"image": pictures[at]}).json() | {"at": at}
            assert same_items(body, answers)


def test_a_release_is_rolled_out_and_back_under_load(
    server: Triton, second_release: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """Install 2, let the poll find it, switch to it, back, remove it: no request fails, none mixes the two releases."""
    pictures = photos(boutique_folder)
    first_release = second_release.with_name("1")
    answers = {"1": expected(first_release, pictures), "2": expected(second_release, pictures)}
    assert answers["1"] != answers["2"]
    admin = {"X-Admin-Key": "an admin's secret"}
    settings = behind(server, VITRINE_ADMIN_KEY=admin["X-Admin-Key"])
    with serve(first_release, tmp_path / "service", settings) as service, Load(service, pictures) as load:
        time.sleep(1)
        install(Release.open(second_release), server.repository)
        wait_until(lambda: server.has(2))
        for number in ("2", "1"):
            switched = service.http.post("/admin/release", json={"release": number}, headers=admin)
            assert switched.json().items() >= {"release": number, "encoder": "triton fp32"}.items()
            time.sleep(3)
        repository.prune(server.repository, {1})
        wait_until(lambda: not server.has(2))
        time.sleep(2)
    assert load.lost == []
    assert set(load.statuses) == {200}
    released = Counter(body["release"] for _, _, body in load.answers)
    assert released["1"] > 20
    assert released["2"] > 20
    assert all(same_items(body, answers) for _, _, body in load.answers)
    assert not any(body["degraded"] for _, _, body in load.answers)


def test_versions_of_two_dimensions_are_served_side_by_side(server: Triton, release_folder: Path) -> None:
    """Each version completes its own output; an encoder may change its size while the one before still serves."""
    model = onnx.load(release_folder / "encoder.onnx")
    model.graph.output[0].name = "half"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16
    for name, value in (("first", 0), ("end", 16), ("axis", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    model.graph.node.append(onnx.helper.make_node("Slice", ["embeddings", "first", "end", "axis"], ["half"]))
    for node in model.graph.node:  # the output has the same name in every version
        for names in (node.input, node.output):
            names[:] = [{"embeddings": "whole", "half": "embeddings"}.get(name, name) for name in names]
    model.graph.output[0].name = "embeddings"
    smaller = server.repository / "smaller.onnx"
    smaller.write_bytes(model.SerializeToString())
    put(smaller, "model.onnx", server.repository / "encoder", 2, config="", prove=lambda copy: None)
    smaller.unlink()
    wait_until(lambda: server.has(2))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    asked = triton_grpc.InferInput("images", list(pixels.shape), "UINT8")
    asked.set_data_from_numpy(pixels)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        found = [client.infer("encoder", [asked], model_version=version).as_numpy("embeddings") for version in "12"]
    assert [vectors.shape for vectors in found] == [(3, 32), (3, 16)]
    np.testing.assert_allclose(found[0][:, :16], found[1], atol=1e-6)


def test_another_network_under_the_same_number_is_never_believed(
    tritonserver: Path, release_folder: Path, second_release: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """The golden vectors tell it: with a fallback the service answers by itself, without one it does not start."""
    with triton(tritonserver, tmp_path) as wrong:
        install(Release.open(second_release), wrong.repository)
        (wrong.repository / "encoder" / "2").rename(wrong.repository / "encoder" / "1")
        wrong.start()
        pictures = photos(boutique_folder)[:5]
        settings = behind(wrong, VITRINE_TRITON_FALLBACK="true")
        with serve(release_folder, tmp_path / "service", settings) as service:
            for at, items in enumerate(expected(release_folder, pictures)):
                body = service.http.post("/recommend", files={"image": pictures[at]}).json()
                assert [item["item_id"] for item in body["items"]] == items
                assert body["degraded"] == ["encoder"]
            assert "cosine" in service.log.read_text()
        with pytest.raises(AssertionError, match="did not serve encoder version 1"), serve(
            release_folder, tmp_path / "strict", behind(wrong, VITRINE_TRITON_WAIT="3")
        ):  # fmt: skip
            pass


def backends(server: Triton) -> list[psutil.Process]:
    """The processes that run its models."""
    assert server.process is not None
    return psutil.Process(server.process.pid).children(recursive=True)


@contextmanager
def killed(server: Triton, how: str) -> Iterator[None]:
    """It is dead inside; back, and ready, afterwards."""
    if how == "server":
        server.kill()
        yield
        server.start()
        return
    # the process behind the model alone: the server goes on to report itself ready
    for process in backends(server):
        process.kill()
    assert server.answers("/v2/health/ready")
    yield
    server.kill()
    server.start()


@pytest.mark.parametrize("how", ["server", "backend"])
def test_with_a_fallback_no_request_fails_when_triton_dies(
    server: Triton, release_folder: Path, boutique_folder: Path, tmp_path: Path, how: str
) -> None:
    """Answers say that they were computed here, the metrics too; when it is back, it is used again within 5 s."""
    pictures = photos(boutique_folder)
    answers = {"1": expected(release_folder, pictures)}
    settings = behind(server, VITRINE_TRITON_FALLBACK="true")
    with serve(release_folder, tmp_path / "service", settings) as service, Load(service, pictures) as load:
        time.sleep(1)
        with killed(server, how):
            time.sleep(4)
            assert service.metric('vitrine_triton_there{release="1"}') == 0
        back = wait_until(lambda: service.metric('vitrine_triton_there{release="1"}') == 1, seconds=10)
        assert back < 5
        since = time.monotonic() + 0.5  # what was under way has been answered by then
        time.sleep(2)
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert all(same_items(body, answers) for _, _, body in load.answers)
    degraded = [when for when, _, body in load.answers if body["degraded"] == ["encoder"]]
    assert len(degraded) > 20
    assert max(degraded) < since


@pytest.mark.parametrize("how", ["server", "backend"])
def test_without_a_fallback_there_are_only_503s_until_it_is_back(
    server: Triton, release_folder: Path, boutique_folder: Path, tmp_path: Path, how: str
) -> None:
    """Each with Retry-After; within 5 s of its return answers come again."""
    pictures = photos(boutique_folder)
    with serve(release_folder, tmp_path / "service", behind(server)) as service, Load(service, pictures) as load:
        time.sleep(1)
        with killed(server, how):
            wait_until(lambda: service.metric('vitrine_triton_there{release="1"}') == 0, seconds=5)
            refused = service.http.post("/recommend", files={"image": pictures[0]})
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert service.http.post("/recommend", json={"user_id": "00007"}).status_code == 200  # needs no encoder
            client = triton_grpc.InferenceServerClient(service.grpc)
            image = triton_grpc.InferInput("IMAGES", [1, 224, 224, 3], "UINT8")
            image.set_data_from_numpy(np.zeros((1, 224, 224, 3), np.uint8))
            with client, pytest.raises(triton_grpc.InferenceServerException, match="UNAVAILABLE"):
                client.infer("encoder", [image])
        back = wait_until(
            lambda: service.http.post("/recommend", files={"image": pictures[0]}).status_code == 200, seconds=10
        )
        assert back < 5
    assert load.lost == []
    assert set(load.statuses) == {200, 503}


def test_the_service_starts_a_triton_of_its_own_and_watches_it(
    tritonserver: Path, release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """It is given the release's encoder. Killed, it is started again and used again; when the service ends, nothing is
    left running."""
    with triton(tritonserver, tmp_path) as unused:
        settings = {
            "VITRINE_ENCODER": "triton", "VITRINE_TRITON_URL": f"127.0.0.1:{free_port()}",
            "VITRINE_TRITON_SERVER": str(tritonserver), "VITRINE_MODEL_REPOSITORY": str(unused.repository),
        }  # fmt: skip
        with serve(release_folder, tmp_path / "service", settings) as service:
            own = _tritons(service)
            assert len(own) == 1
            assert service.http.post("/recommend", files={"image": photos(boutique_folder)[0]}).status_code == 200
            own[0].kill()
            wait_until(lambda: service.metric("vitrine_triton_starts_total") == 2)
            wait_until(lambda: service.metric('vitrine_triton_there{release="1"}') == 1)
            left = [process.pid for process in _tritons(service)]
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in left), seconds=15)


def _tritons(service: Service) -> list[psutil.Process]:
    children = psutil.Process(service.process.pid).children(recursive=True)
    return [child for child in children if child.name() == "tritonserver"]


def test_sigterm_under_load_loses_no_request_on_either_transport(
    release_folder: Path, boutique_folder: Path, tmp_path: Path
) -> None:
    """Callers are asked to leave, and what was accepted is answered."""
    pictures = photos(boutique_folder)
    dropped: list[str] = []
    answered: Counter[str] = Counter()
    stop = threading.Event()

    def over_http(service: Service) -> None:
        with httpx.Client(base_url=service.http.base_url, timeout=30) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/recommend", files={"image": pictures[0]})
                except httpx.TransportError as error:
                    dropped.append(f"http {error!r}")
                    return
                if answer.status_code != 200:
                    dropped.append(f"http {answer.status_code}")
                answered["http"] += 1
                if answer.headers.get("connection") == "close":  # asked to leave
                    return

    def over_grpc(service: Service) -> None:
        image = triton_grpc.InferInput("IMAGE", [1], "BYTES")
        image.set_data_from_numpy(np.array([pictures[0]], object))
        with triton_grpc.InferenceServerClient(service.grpc) as client:
            while not stop.is_set():
                try:
                    client.infer("recommender", [image])
                    answered["grpc"] += 1
                except triton_grpc.InferenceServerException as error:
                    # told that the server goes away, before the call was taken
                    if not any(said in str(error) for said in ("Connection refused", "GOAWAY", "server is ending")):
                        dropped.append(f"grpc {error}")
                    return

    with serve(release_folder, tmp_path / "service", {"VITRINE_ENCODER": "onnxruntime"}) as service:
        threads = [threading.Thread(target=ask, args=(service,)) for ask in (over_http, over_grpc) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(timeout=30)
        stop.set()
        for thread in threads:
            thread.join()
        said = service.log.read_text()
    assert dropped == []
    assert answered["http"] > 20
    assert answered["grpc"] > 20
    assert "Traceback" not in said
