"""A Triton server that dies, and a service that ends: no request is lost, and none is answered wrongly."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc

from tests.end_to_end.load import Load, behind, expected, photos, same_items
from tests.processes import Service, Triton, free_port, serve, triton, wait_until

pytestmark = pytest.mark.slow


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
