"""Inputs that are nearly right, by the thousand: each is answered, or refused with a clear error, and nothing leaks.

`make test` runs some hundreds of each; `make fuzz` (VITRINE_FUZZ=1) a hundred thousand in all, within ten minutes.
"""

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.errors import VitrineError
from tests.fuzz import inputs
from tests.processes import Service, serve
from training.data.catalogue_reader import inspect

LONG = os.environ.get("VITRINE_FUZZ") == "1"
SEED = int(os.environ.get("VITRINE_FUZZ_SEED", "0"))
CLIENTS = 4
FAILED = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
MOST_GROWTH = 64 * 2**20  # bytes of the service's memory


def many(short: int, long: int) -> int:
    """How many inputs of a kind."""
    return long if LONG else short


@pytest.fixture(scope="module")
def target(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has been asked some things, so that its memory has its usual size."""
    with serve(release_folder, tmp_path_factory.mktemp("target"), {"VITRINE_MAX_WAITING": "1000"}) as started:
        yield started
        assert "Traceback" not in started.log.read_text()
        assert "unexpected error" not in started.log.read_text()


def send_all(service: Service, sent: Iterator[Any], count: int, ask: Callable[[Any], int | str]) -> Counter:
    """Ask with so many, from several clients; how often each status came. The service's memory stays what it was after
    the first fifth, and so does its health."""
    process = psutil.Process(service.process.pid)
    answers: Counter = Counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers.update(pool.map(ask, itertools.islice(sent, count // 5)))
        before = process.memory_info().rss
        answers.update(pool.map(ask, itertools.islice(sent, count - count // 5)))
    assert process.memory_info().rss < before + MOST_GROWTH
    assert service.ready()
    print(dict(answers))
    return answers


def test_harmed_pictures(target: Service) -> None:
    """Of every format: a picture, 415, 422, or 413."""
    client = target.http

    def ask(picture: bytes) -> int:
        response = client.post("/embed", files={"image": ("photo", picture, "image/jpeg")})
        assert response.status_code in (200, 413, 415, 422), response.text
        return response.status_code

    answers = send_all(target, inputs.pictures(random.Random(SEED)), many(600, 30_000), ask)
    assert answers[200] > 0
    assert answers[422] > 0


def test_odd_queries(target: Service) -> None:
    """In JSON, of every field: an answer, 422, 400 or 404."""
    client = target.http

    def ask(query: tuple[str, dict]) -> int:
        path, fields = query
        response = client.post(path, content=json.dumps(fields), headers={"content-type": "application/json"})
        assert response.status_code in (200, 400, 404, 422), (response.text, fields)
        return response.status_code

    assert send_all(target, inputs.queries(random.Random(SEED)), many(600, 25_000), ask)[200] > 0


def test_odd_tensors_over_rest(target: Service) -> None:
    """Also with bytes of the body harmed."""
    client, rng = target.http, random.Random(SEED)

    def ask(request: dict) -> int:
        body = json.dumps(request).encode()
        if rng.random() < 0.3:
            body = inputs.harmed(body, rng)
        model = rng.choice(("recommender", "similar", "encoder"))
        response = client.post(f"/v2/models/{model}/infer", content=body, headers={"content-type": "application/json"})
        assert response.status_code < 500, (response.text, request)
        return response.status_code

    send_all(target, inputs.tensors(random.Random(SEED)), many(600, 20_000), ask)


def test_odd_messages_over_grpc(target: Service) -> None:
    """Tensors of wrong kinds and sizes, and messages whose bytes are harmed."""
    rng = random.Random(SEED)
    with grpc.insecure_channel(target.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask(request: dict) -> str:
            message = service_pb2.ModelInferRequest(model_name=rng.choice(("recommender", "similar", "encoder", "x")))
            for given in request["inputs"]:
                shape = [size % 2**63 for size in given["shape"]]
                tensor = message.inputs.add(name=given["name"], datatype=given["datatype"], shape=shape)
                content = str(given["data"][0]).encode(errors="replace")
                if rng.random() < 0.5:
                    tensor.contents.bytes_contents.append(content)
                else:
                    message.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
            try:
                if rng.random() < 0.3:
                    raw(inputs.harmed(message.SerializeToString(), rng), timeout=30)
                else:
                    stub.ModelInfer(message, timeout=30)
            except grpc.RpcError as error:
                said = error
            else:
                return "OK"
            assert said.code() not in FAILED, (said, request)
            return str(said.code())

        assert send_all(target, inputs.tensors(random.Random(SEED)), many(600, 15_000), ask)["OK"] > 0


def test_harmed_catalogues(tmp_path: Path) -> None:
    """CSV and Parquet: what can be used is, and everything else is one clear error."""
    outcomes: Counter = Counter()
    for files in itertools.islice(inputs.catalogues(random.Random(SEED)), many(150, 8_000)):
        for file in tmp_path.iterdir():
            file.unlink()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        said = ""
        try:
            inspect(tmp_path, now=1.75e9).problem()
        except VitrineError as error:
            said = str(error)
        assert "\n" not in said, said
        outcomes["refused" if said else "read"] += 1
    assert outcomes["read"] > 0
    print(dict(outcomes))


@pytest.mark.skipif(not LONG, reason="part of make fuzz")
def test_what_schemathesis_makes_of_the_openapi_document(target: Service, tmp_path: Path) -> None:
    """Every documented route, within the schema and outside of it: no 5xx."""
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{target.http.base_url}/docs.json", "--checks",
        "not_a_server_error", "--max-examples", "60", "--seed", str(SEED), "--no-color", "--max-time", "120",
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    print(done.stdout[-3000:], f"{time.monotonic() - began:.0f} s")
    assert not re.search(r"Server error|500 Internal", done.stdout), done.stdout[-5000:]
    assert done.returncode in (0, 1), done.stderr[-2000:]
