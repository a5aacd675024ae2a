"""Bodies as real clients send them: slowly, packed, never ending, in parts of every kind."""

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_client

from tests.processes import Service, serve, wait_until

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def strict(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a short deadline, and little room for bodies."""
    settings = {
        "VITRINE_DEADLINE": "1", "VITRINE_BODY_STALL": "1.5", "VITRINE_MAX_UPLOADS": "8",
        "VITRINE_MAX_UPLOAD_BYTES": "3000000", "VITRINE_MAX_BODY_BYTES": "1000000", "VITRINE_LOG_FORMAT": "json",
        "VITRINE_CORS_ORIGINS": '["https://shop.example"]',
    }  # fmt: skip
    with serve(release_folder, tmp_path_factory.mktemp("strict"), settings) as started:
        yield started


def opened(service: Service) -> socket.socket:
    """A connection to its HTTP."""
    host, port = service.address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(length: int, content_type: str = "application/json") -> bytes:
    """The start of a request with a body of so many bytes."""
    return (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and the rest of what came."""
    received = b""
    while b"\r\n\r\n" not in received or not received.rstrip().endswith(b"}"):
        if not (more := connection.recv(65536)):
            break
        received += more
    return int(received.split(b" ", 2)[1]), received


def multipart(*parts: tuple[str, bytes], boundary: bytes = b"xyz") -> dict:
    """Arguments for httpx: parts with headers as given."""
    content = b"".join(
        b"--" + boundary + b"\r\n" + headers.encode() + b"\r\n\r\n" + data + b"\r\n" for headers, data in parts
    )
    return {
        "content": content + b"--" + boundary + b"--\r\n",
        "headers": {"content-type": f"multipart/form-data; boundary={boundary.decode()}"},
    }


def test_the_deadline_begins_when_the_body_is_there(strict: Service, photo: bytes) -> None:
    """A photo that takes twice the deadline to come is answered."""
    body = multipart(('Content-Disposition: form-data; name="image"; filename="a.jpg"', photo))["content"]
    with opened(strict) as connection:
        connection.sendall(head(len(body), "multipart/form-data; boundary=xyz"))
        step = len(body) // 20 + 1
        for at in range(0, len(body), step):
            connection.sendall(body[at : at + step])
            time.sleep(0.12)
        status, received = answer(connection)
    assert status == 200, received
    assert b'"tier":"visual"' in received


def test_a_body_that_pauses_is_answered_408_logged_and_counted(strict: Service) -> None:
    """As a problem, like every other error."""
    before = strict.metrics_page().count('status="408"')
    with opened(strict) as connection:
        connection.sendall(head(100) + b'{"k": ')
        status, received = answer(connection)
    assert status == 408
    assert b"application/problem+json" in received
    assert b"no more of the body came within 1.5 s, after 6 bytes" in received
    assert before == 0
    assert 'vitrine_requests_total{protocol="http",release="",route="/recommend",status="408"' in strict.metrics_page()
    assert any(
        json.loads(line).get("status") == 408 for line in strict.log.read_text().splitlines() if line.startswith("{")
    )


def test_bodies_that_never_end_make_room_for_others(strict: Service, photo: bytes) -> None:
    """Three times as many as may be held at once: others are answered meanwhile, and what is held stays bounded."""
    with ExitStack() as stack:
        for _ in range(24):
            connection = stack.enter_context(opened(strict))
            connection.sendall(head(900_000) + b"x" * 300_000)
        # once they have been silent for a second: when that is, a busy machine decides
        wait_until(lambda: strict.http.post("/recommend", files={"image": photo}).status_code == 200)
        for _ in range(5):
            assert strict.http.post("/recommend", files={"image": photo}).status_code == 200
        assert strict.metric("vitrine_upload_bytes") <= 3_000_000
        assert strict.metric("vitrine_uploads") <= 8
        assert strict.metric("vitrine_evicted_uploads_total") > 0
    wait_until(lambda: strict.metric("vitrine_uploads") == 0)


def test_messages_that_never_end_make_room_for_other_calls(strict: Service, photo: bytes) -> None:
    """Over gRPC as well: forty calls whose message does not come leave room for one that does."""

    async def attack() -> int:
        channel = grpc.aio.insecure_channel(strict.grpc)
        infer = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")

        async def nothing() -> object:
            await asyncio.sleep(30)
            yield b""

        stalled = [infer(nothing()) for _ in range(40)]
        await asyncio.sleep(0.3)
        client = grpc_client.InferenceServerClient(strict.grpc)
        image = grpc_client.InferInput("IMAGE", [1], "BYTES")
        image.set_data_from_numpy(np.array([photo], object))
        answered = 0
        for _ in range(3):
            result = await client.infer("recommender", [image])
            answered += result.as_numpy("ITEM_ID").shape == (1, 10)
        for call in stalled:
            call.cancel()
        await client.close()
        await channel.close()
        return answered

    assert asyncio.run(attack()) == 3


@pytest.mark.parametrize("path", ["/recommend", "/v2/models/recommender/infer"])
def test_a_packed_body_is_unpacked_on_every_route(strict: Service, path: str) -> None:
    """gzip and deflate; what unfolds to more than a body may have is refused, other encodings are named."""
    plain = b'{"user_id": "00007"}' if path == "/recommend" else (
        b'{"inputs": [{"name": "USER_ID", "datatype": "BYTES", "shape": [1], "data": ["00007"]}]}'
    )  # fmt: skip
    for encoding, packed in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        response = strict.http.post(path, content=packed, headers=JSON | {"content-encoding": encoding})
        assert response.status_code == 200
        cut = strict.http.post(path, content=packed[:-5], headers=JSON | {"content-encoding": encoding})
        assert cut.status_code == 400
    bomb = strict.http.post(path, content=gzip.compress(b" " * 50_000_000), headers=JSON | {"content-encoding": "gzip"})
    assert bomb.status_code == 413
    other = strict.http.post(path, content=plain, headers=JSON | {"content-encoding": "br"})
    assert other.status_code == 415
    assert "'br'" in other.text


def test_a_part_of_json_is_its_text_also_with_a_file_name(strict: Service) -> None:
    """As clients of typed languages send it."""
    part = (
        'Content-Disposition: form-data; name="filter"; filename="blob"\r\nContent-Type: application/json',
        b'{"category": ["dress"]}',
    )
    body = strict.http.post("/recommend", **multipart(part)).json()
    assert {item["category"] for item in body["items"]} == {"dress"}
    stranger = ('Content-Disposition: form-data; name="filter"; filename="a.jpg"\r\nContent-Type: image/jpeg', b"{}")
    assert strict.http.post("/recommend", **multipart(stranger)).status_code == 422


@pytest.mark.parametrize("headers", ["", "\r\nContent-Type: image/jpeg", "\r\nContent-Type: application/octet-stream"])
def test_an_image_without_a_file_name_is_an_image(strict: Service, photo: bytes, headers: str) -> None:
    """What its name is decides."""
    part = (f'Content-Disposition: form-data; name="image"{headers}', photo)
    assert strict.http.post("/recommend", **multipart(part)).json()["tier"] == "visual"


def test_what_stands_around_the_parts_is_passed_over(strict: Service) -> None:
    """A preamble before the first boundary, an epilogue after the last (RFC 2046)."""
    sent = multipart(('Content-Disposition: form-data; name="k"', b"3"))
    sent["content"] = b"This is a message in parts.\r\n" + sent["content"] + b"and this its end"
    assert len(strict.http.post("/recommend", **sent).json()["items"]) == 3


@pytest.mark.parametrize("path", ["/recommend?k=3", "/similar?item_id=0004", "/items/0004?lang=en", "/release?x"])
def test_an_unknown_query_parameter_is_refused_as_an_unknown_field_is(strict: Service, path: str) -> None:
    """So that nobody believes that it did something."""
    method = "POST" if path.startswith(("/recommend", "/similar")) else "GET"
    response = strict.http.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert "query parameter" in response.json()["detail"]
    assert strict.http.get("/readyz?verbose=1").status_code == 200


def test_pages_of_named_origins_may_call(strict: Service, server: httpx.Client) -> None:
    """The preflight and the answer say so; by default they say nothing."""
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert strict.http.options("/recommend", headers=asked).headers["access-control-allow-origin"] == asked["origin"]
    answered = strict.http.post("/recommend", json={}, headers={"origin": "https://shop.example"})
    assert answered.headers["access-control-allow-origin"] == "https://shop.example"
    stranger = strict.http.post("/recommend", json={}, headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in stranger.headers
    closed = server.post("/recommend", json={}, headers={"origin": "https://shop.example"})
    assert not [name for name in closed.headers if name.startswith("access-control")]


def test_a_kept_connection_lives_longer_than_balancers_keep_theirs(strict: Service) -> None:
    """Over five seconds of silence, which is what uvicorn would wait."""
    with opened(strict) as connection:
        for asked in range(2):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"\r\n\r\n\n"):  # the body is one line's end
                received += (more := connection.recv(65536))
                assert more
            assert received.startswith(b"HTTP/1.1 200")
            if not asked:
                time.sleep(5.5)


SURROGATE = "\ud800"
HUGE = 2**53 + 1
ODD_FIELDS = [
    {"user_id": SURROGATE}, {"filter": {SURROGATE: ["x"]}}, {"filter": {"category": [SURROGATE]}}, {SURROGATE: 1},
    {"filter": {"colour": SURROGATE}}, {"events": [{"item_id": SURROGATE}]}, {"events": [{"event": SURROGATE}]},
    {"events": [{SURROGATE: 1}]}, {"filter": {"price": {"min": 10**30}}}, {"filter": {"price": [HUGE, 10**25]}},
    {"filter": {"price": {"max": -(10**299)}}}, {"events": [{"item_id": "0004", "timestamp": 10**30}]}, {"k": HUGE},
    {"diversity": 10**30}, {"user_id": 10**300}, {"user_id": HUGE}, {"filter": {"price": [1e308]}}, {"k": 1e400},
]  # fmt: skip


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=ascii)
def test_odd_text_and_numbers_never_break_anything(strict: Service, fields: dict) -> None:
    """Halves of surrogate pairs, numbers beyond 2^53: 422 or a right answer, over every protocol."""
    raw = json.dumps(fields).replace("Infinity", "1e400")
    assert strict.http.post("/recommend", content=raw, headers=JSON).status_code in (200, 422)
    assert strict.http.post(
        "/recommend",
        data={key: json.dumps(value).replace("Infinity", "1e400") for key, value in fields.items() if key.isascii()},
    ).status_code in (200, 422)
    if "filter" in fields:
        tensor = {"name": "FILTER", "datatype": "BYTES", "shape": [1], "data": [json.dumps(fields["filter"])]}
        response = strict.http.post("/v2/models/recommender/infer", json={"inputs": [tensor]})
        assert response.status_code in (200, 400, 422)


def test_a_whole_number_as_an_id_is_kept_digit_for_digit(strict: Service) -> None:
    """Also beyond 2^53, where a double would end in other digits."""
    response = strict.http.post("/similar", content=b'{"item_id": 9007199254740993}', headers=JSON)
    assert response.status_code == 404
    assert "9007199254740993" in response.json()["detail"]
