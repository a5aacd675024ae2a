"""The encoder in a real Triton server: the same answers, and versions that come and go.

Its onnxruntime backend is the stand-in of triton/backends: what is proven here is configuration, protocol and wiring,
not NVIDIA's C++ backend.
"""

import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc

from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.serving.model_repository import install, put
from tests.end_to_end.load import Load, behind, expected, photos, same_items
from tests.processes import Triton, serve, triton, wait_until
from tests.quick import options
from training.pipeline import train
from training.triton import repository

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def second_release(boutique_folder: Path, release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 2, of another network with the same shape: its vectors have nothing to do with those of release 1, which
    lies beside it."""
    releases = tmp_path_factory.mktemp("releases2")
    shutil.copytree(release_folder, releases / "1")
    first = options(boutique_folder, releases)
    path = train(replace(first, encoder=replace(first.encoder, seed=1, epochs=1, last_layer_steps=100)))
    assert path is not None
    assert path.name == "2"
    return path


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
