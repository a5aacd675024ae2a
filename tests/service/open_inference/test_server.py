"""The inference protocol over REST and gRPC, asked by Triton's own clients."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.recommender.pipeline import Recommender
from tests.processes import Service, serve
from tests.service.open_inference.tensors import recommender_inputs, tensor

KINDS = {"rest": triton_http, "grpc": triton_grpc}


@pytest.fixture(scope="module", params=KINDS)
def client(request: pytest.FixtureRequest, service: Service) -> Iterator[tuple[Any, Any]]:
    """One of Triton's clients, and the module that it is from."""
    kind = KINDS[request.param]
    with kind.InferenceServerClient(service.address if request.param == "rest" else service.grpc) as opened:
        yield opened, kind


def test_the_server_and_its_models_are_described(client: tuple[Any, Any], recommender: Recommender) -> None:
    """Live, ready, metadata, config and index, as Triton's clients ask for them."""
    asked, kind = client
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("encoder")
    assert asked.is_model_ready("encoder", "1")
    assert not asked.is_model_ready("encoder", "2")
    assert not asked.is_model_ready("nothing")
    described, config, index = (
        (asked.get_model_metadata("encoder"), asked.get_model_config("encoder"), asked.get_model_repository_index())
        if kind is triton_http
        else (
            asked.get_model_metadata("encoder", as_json=True),
            asked.get_model_config("encoder", as_json=True)["config"],
            asked.get_model_repository_index(as_json=True)["models"],
        )
    )
    assert described["versions"] == ["1"]
    assert [int(size) for size in described["inputs"][0]["shape"]] == [-1, 224, 224, 3]
    assert [int(size) for size in described["outputs"][0]["shape"]] == [-1, 32]
    assert config["max_batch_size"] == 32
    assert [int(size) for size in config["input"][0]["dims"]] == [224, 224, 3]
    assert {model["name"] for model in index} == {"encoder", "recommender", "similar"}


def test_the_encoder_gives_the_vectors_of_the_pipeline(client: tuple[Any, Any], recommender: Recommender) -> None:
    """Pixels in, unit vectors out; the id comes back, and the version."""
    asked, kind = client
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    answer = asked.infer("encoder", [tensor(kind, "IMAGES", pixels, "UINT8")], request_id="seven", model_version="1")
    assert np.abs(answer.as_numpy("EMBEDDINGS") - recommender.encode(pixels)).max() < 1e-5
    said = answer.get_response()
    assert (said["id"] if kind is triton_http else said.id) == "seven"
    assert (said["model_version"] if kind is triton_http else said.model_version) == "1"


def test_every_protocol_gives_the_same_items(service: Service, boutique_folder: Path) -> None:
    """200 queries, with photos, users, both and neither, over native HTTP, REST v2 and gRPC."""
    photos = [path.read_bytes() for path in sorted((boutique_folder / "images").iterdir())]
    asked = [
        (photos[n % len(photos)] if n % 4 < 2 else b"", f"{n % 60:05d}" if n % 2 else "", 1 + n % 20)
        for n in range(200)
    ]
    rest, rpc = triton_http.InferenceServerClient(service.address), triton_grpc.InferenceServerClient(service.grpc)
    with rest, rpc:
        for image, user_id, k in asked:
            data = {"k": str(k)} | ({"user_id": user_id} if user_id else {})
            native = service.http.post("/recommend", data=data, files={"image": image} if image else None).json()
            for kind, client in ((triton_http, rest), (triton_grpc, rpc)):
                answer = client.infer("recommender", recommender_inputs(kind, image=image, user_id=user_id, k=k))
                items = [item.decode() for item in answer.as_numpy("ITEM_ID")[0] if item]
                assert items == [item["item_id"] for item in native["items"]]
                scores = answer.as_numpy("SCORE")[0][: len(items)].astype(float)
                assert scores == pytest.approx([item["score"] for item in native["items"]], rel=1e-6)
                assert answer.as_numpy("TIER")[0].decode() == native["tier"]
                assert answer.as_numpy("RELEASE")[0].decode() == "1"


def test_several_rows_are_answered_as_each_alone(client: tuple[Any, Any], photo: bytes) -> None:
    """Rows share a request, not their answers; what is missing is padded with "" and NaN."""
    asked, kind = client
    rows = {
        "IMAGE": np.array([photo, b"", photo], object),
        "FILTER": np.array([b"", b'{"category": ["dress"]}', b'{"price": {"max": -1}}'], object),
    }

    def ask(chosen: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inputs = [tensor(kind, name, values[chosen], "BYTES") for name, values in rows.items()]
        answer = asked.infer("recommender", [*inputs, tensor(kind, "K", np.array([50], np.int32), "INT32")])
        return answer.as_numpy("ITEM_ID"), answer.as_numpy("SCORE").astype(float), answer.as_numpy("TIER")

    items, scores, tiers = ask(slice(None))
    assert items.shape == scores.shape == (3, 50)
    assert [tier.decode() for tier in tiers] == ["visual", "popular", "visual"]
    assert ((items == b"") == np.isnan(scores)).all()
    assert [int((row != b"").sum()) for row in items] == [50, 12, 0]
    for row in range(3):
        own_items, own_scores, own_tier = ask(slice(row, row + 1))
        assert own_items.tolist() == items[row : row + 1].tolist()
        np.testing.assert_allclose(own_scores, scores[row : row + 1], rtol=1e-5)
        assert own_tier.tolist() == tiers[row : row + 1].tolist()


def test_similar_takes_a_picture_or_an_item(client: tuple[Any, Any], photo: bytes) -> None:
    """The picture of an item is nearest to itself; the item is not its own neighbour."""
    asked, kind = client
    by_picture = asked.infer("similar", [tensor(kind, "IMAGE", np.array([photo], object), "BYTES")])
    by_item = asked.infer("similar", [tensor(kind, "ITEM_ID", np.array([b"0004"], object), "BYTES")])
    assert by_picture.as_numpy("ITEM_ID")[0, 0] == b"0004"
    assert by_picture.as_numpy("ITEM_ID")[0, 1:6].tolist() == by_item.as_numpy("ITEM_ID")[0, :5].tolist()


def test_statistics_count_what_was_asked(client: tuple[Any, Any]) -> None:
    """Rows, requests and failures, by model."""
    asked, kind = client

    def counted() -> tuple[int, int, int]:
        said = asked.get_inference_statistics("encoder", **({} if kind is triton_http else {"as_json": True}))
        [stats] = said["model_stats"]
        inner = stats["inference_stats"]
        numbers = (stats.get("inference_count", 0), stats.get("execution_count", 0), inner["fail"].get("count", 0))
        return tuple(int(number) for number in numbers)  # type: ignore[return-value]

    before = counted()
    pixels = np.zeros((2, 224, 224, 3), np.uint8)
    asked.infer("encoder", [tensor(kind, "IMAGES", pixels, "UINT8")])
    with pytest.raises(InferenceServerException):
        asked.infer("encoder", [tensor(kind, "IMAGES", pixels[:, :5], "UINT8")])
    assert tuple(np.subtract(counted(), before)) == (2, 1, 1)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(service: Service, algorithm: str) -> None:
    """As tritonclient does it."""
    pixels = np.full((1, 224, 224, 3), 9, np.uint8)
    with triton_http.InferenceServerClient(service.address) as client:
        inputs = [tensor(triton_http, "IMAGES", pixels, "UINT8")]
        plain = client.infer("encoder", inputs)
        packed = client.infer(
            "encoder", inputs, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
    assert (plain.as_numpy("EMBEDDINGS") == packed.as_numpy("EMBEDDINGS")).all()


def test_json_and_binary_tensors_mean_the_same(service: Service) -> None:
    """Input and output each in either form."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with triton_http.InferenceServerClient(service.address) as client:
        found = []
        for binary in (True, False):
            image = triton_http.InferInput("IMAGES", list(pixels.shape), "UINT8")
            image.set_data_from_numpy(pixels, binary_data=binary)
            for binary_out in (True, False):
                wanted = triton_http.InferRequestedOutput("EMBEDDINGS", binary_data=binary_out)
                found.append(client.infer("encoder", [image], outputs=[wanted]).as_numpy("EMBEDDINGS"))
    assert all(np.allclose(each, found[0], atol=1e-7) for each in found)


def test_the_asynchronous_clients_and_the_stream_work(service: Service) -> None:
    """tritonclient.http.aio, tritonclient.grpc.aio, and ModelStreamInfer."""

    async def ask(kind: Any, address: str) -> np.ndarray:
        async with kind.InferenceServerClient(address) as client:
            answer = await client.infer("recommender", recommender_inputs(kind, user_id="00007", k=5))
            return np.asarray(answer.as_numpy("ITEM_ID"))

    rest = asyncio.run(ask(triton_http_aio, service.address))
    rpc = asyncio.run(ask(triton_grpc_aio, service.grpc))
    streamed: list[Any] = []
    with triton_grpc.InferenceServerClient(service.grpc) as client:
        client.start_stream(lambda result, error: streamed.append(error or result.as_numpy("ITEM_ID")))
        client.async_stream_infer("recommender", recommender_inputs(triton_grpc, user_id="00007", k=5))
        client.async_stream_infer("recommender", recommender_inputs(triton_grpc, user_id="00007", k=1000))
        client.stop_stream()
    assert rest.tolist() == rpc.tolist() == streamed[0].tolist()
    assert "k must be a whole number from 1 to 100" in str(streamed[1])


def test_grpc_is_found_by_health_checks_and_reflection(service: Service) -> None:
    """As Kubernetes' gRPC probe and grpcurl ask."""
    with grpc.insecure_channel(service.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        [listed] = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)
        names = {each.name for each in listed.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


def test_an_old_connection_is_closed_and_the_next_call_answered(release_folder: Path, tmp_path: Path) -> None:
    """A client that keeps one would never find the pods that came later."""
    ready, left = threading.Event(), threading.Event()

    def watch(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            ready.set()
        elif ready.is_set():
            left.set()

    settings = {"VITRINE_GRPC_MAX_AGE": "1"}
    with serve(release_folder, tmp_path, settings) as service, grpc.insecure_channel(service.grpc) as channel:
        channel.subscribe(watch, try_to_connect=True)
        assert ready.wait(10)
        assert left.wait(10)
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
