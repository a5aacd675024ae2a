"""What is told of a request: metrics with bounded labels, log lines without personal data, spans of its stages."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service import context
from service.recommender.index.vector_index import Index, build
from service.recommender.user_keys import DEFAULT_USER_KEY, hash_user
from tests.processes import Service, serve, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STAGES = ["decode", "encode", "match", "rank", "search", "wait"]


class Collector:
    """A collector of traces: OTLP over HTTP."""

    def __init__(self) -> None:
        spans: list[Span] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.spans, self.server = spans, HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def of(self, trace: str) -> list[Span]:
        """The spans of a trace, once the request's own has come: they are sent every few seconds."""
        wait_until(lambda: any(s.trace_id.hex() == trace and s.kind == Span.SPAN_KIND_SERVER for s in self.spans))
        return [span for span in self.spans if span.trace_id.hex() == trace]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """One that listens."""
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def told(release_folder: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that logs every request as JSON and traces those whose callers want it."""
    settings = {
        "VITRINE_LOG_FORMAT": "json", "VITRINE_LOG_REQUESTS": "all", "VITRINE_TRACES_ENDPOINT": collector.endpoint,
        "VITRINE_TRACES_SHARE": "0", "VITRINE_RECALL_EVERY": "0.2", "OTEL_BSP_SCHEDULE_DELAY": "200",
    }  # fmt: skip
    with serve(release_folder, tmp_path_factory.mktemp("told"), settings) as service:
        yield service


def lines(service: Service) -> list[dict]:
    """What it has logged since it answers; what stands before is of the command that starts it."""
    return [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]


def line_of(service: Service, trace: str) -> dict:
    """The log line of a request."""
    wait_until(lambda: any(line.get("trace_id") == trace for line in lines(service)))
    return next(line for line in lines(service) if line.get("trace_id") == trace)


def test_a_request_leaves_a_span_with_one_for_each_stage(told: Service, collector: Collector, photo: bytes) -> None:
    """In the trace of its caller, below its caller's span; the stages lie within it, one after the other."""
    told.http.post("/recommend", files={"image": photo}, headers=CALLER).raise_for_status()
    spans = collector.of(TRACE)
    [root] = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert root.name == "/recommend"
    assert root.parent_span_id.hex() == PARENT
    below = sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert sorted(span.name for span in below) == STAGES
    assert {span.parent_span_id for span in below} == {root.span_id}
    for earlier, later in pairwise(below):
        assert earlier.end_time_unix_nano <= later.start_time_unix_nano + 1_000_000
    assert root.start_time_unix_nano <= below[0].start_time_unix_nano
    assert below[-1].end_time_unix_nano <= root.end_time_unix_nano
    said = {each.key: each.value for each in root.attributes}
    assert said["vitrine.release"].string_value == "1"
    assert said["http.response.status_code"].int_value == 200


def test_who_does_not_want_to_be_traced_is_not(told: Service, collector: Collector) -> None:
    """Neither a caller who says so, nor, at a share of 0, one who says nothing."""
    unwanted, wanted = "1" * 32, "2" * 32
    for trace, flags in ((unwanted, "00"), (wanted, "01")):
        told.http.post("/recommend", json={}, headers={"traceparent": f"00-{trace}-{PARENT}-{flags}"})
    collector.of(wanted)
    assert unwanted not in {span.trace_id.hex() for span in collector.spans}


def test_a_log_line_is_json_and_knows_the_user_by_a_hash_alone(told: Service, photo: bytes) -> None:
    """Route, status, tier, release, milliseconds, and the trace; neither the user id nor anything of the picture."""
    trace, user = "3" * 32, "someone@example.com"
    sent = {"files": {"image": photo}, "data": {"user_id": user}}
    told.http.post("/recommend", **sent, headers={"traceparent": f"00-{trace}-{PARENT}-00"}).raise_for_status()
    line = line_of(told, trace)
    facts = {"message": "answered", "route": "/recommend", "protocol": "http", "status": 200, "release": "1"}
    assert facts.items() <= line.items()
    assert line["user"] == hash_user(user, DEFAULT_USER_KEY)
    assert {f"{stage}_ms" for stage in STAGES} <= line.keys()
    assert line["ms"] >= line["encode_ms"] > 0
    assert user not in told.log.read_text()


def test_a_problem_says_the_trace_that_the_log_says(told: Service) -> None:
    """A caller's, or, where there is none or it is malformed, one of its own."""
    trace = "4" * 32
    refused = told.http.post("/recommend", json={"k": 0}, headers={"traceparent": f"00-{trace}-{PARENT}-00"})
    assert refused.json()["trace_id"] == trace
    assert line_of(told, trace)["status"] == 422
    for header in ({}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, {"traceparent": "nonsense"}):
        own = told.http.post("/recommend", json={"k": 0}, headers=header).json()["trace_id"]
        assert len(own) == 32
        assert line_of(told, own)["status"] == 422


def test_an_error_over_grpc_says_its_trace(told: Service) -> None:
    """As trailing metadata."""
    trace = "5" * 32
    client = tritonclient.grpc.InferenceServerClient(told.grpc)
    tensor = tritonclient.grpc.InferInput("NOTHING", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], object))
    stub = client._client_stub
    request = tritonclient.grpc.service_pb2.ModelInferRequest(model_name="recommender")
    request.inputs.append(tensor._get_tensor())
    request.raw_input_contents.append(b"\x01\x00\x00\x00x")
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request, metadata=(("traceparent", f"00-{trace}-{PARENT}-00"),))
    assert dict(refused.value.trailing_metadata())["trace-id"] == trace
    assert line_of(told, trace)["protocol"] == "grpc"
    client.close()


def test_every_protocol_is_counted_by_route_status_tier_and_release(told: Service, photo: bytes) -> None:
    """One metric for all three."""
    told.http.post("/recommend", files={"image": photo}).raise_for_status()
    told.http.post("/v2/models/recommender/infer", json={"inputs": []}).raise_for_status()
    client = tritonclient.grpc.InferenceServerClient(told.grpc)
    client.infer("recommender", [])
    client.close()
    infer = "/v2/models/recommender/infer"
    for protocol, route, tier in (
        ("http", "/recommend", "visual"),
        ("rest", infer, "popular"),
        ("grpc", infer, "popular"),
    ):
        labels = f'protocol="{protocol}",release="1",route="{route}"'
        assert told.metric(f'vitrine_requests_total{{{labels},status="200",tier="{tier}"}}') >= 1
        assert told.metric(f'vitrine_request_seconds_count{{{labels},tier="{tier}"}}') >= 1


def test_what_a_client_sends_never_becomes_a_label(told: Service) -> None:
    """Neither paths nor names that it makes up."""
    told.http.post("/v2/models/made-up/infer", json={"inputs": []})
    told.http.get("/items/made-up")
    told.http.post("/made-up", json={})
    assert "made-up" not in told.metrics_page()


def test_the_recall_of_the_index_is_probed(told: Service) -> None:
    """Which is exact here."""
    wait_until(lambda: told.metric("vitrine_index_recall") == 1)


def test_recall_is_the_share_of_the_nearest_that_a_search_finds() -> None:
    """A graph that is hardly searched finds few; one that is searched far, nearly all."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3000, 16), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    graph = build(vectors, exact_below=10)
    queries = vectors[:200] + np.float32(0.3)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    near, far = (Index(graph, np.arange(3000), items=3000, ef_search=ef).recall(queries, k=3) for ef in (1, 300))
    assert near < far
    assert far > 0.99


def test_a_call_notes_stages_in_its_own_thread_alone() -> None:
    """What another thread goes through is not its."""
    with context.stages() as mine:
        other = threading.Thread(target=lambda: context.went_through("rank", 1.0))
        other.start()
        other.join()
        context.went_through("search", 0.5)
    context.went_through("decode", 0.1)
    [(name, began, ended)] = mine
    assert (name, ended - began) == ("search", 500_000_000)


def test_a_storm_of_refusals_does_not_fill_the_log(release_folder: Path, tmp_path: Path) -> None:
    """Failed requests get a line, at most twenty a second."""
    with serve(release_folder, tmp_path) as service:
        for _ in range(300):
            assert service.http.post("/recommend", json={"k": 0}).status_code == 422
        written = service.log.read_text().count("answered")
        assert 1 <= written < 200
        assert service.http.post("/recommend", json={}).status_code == httpx.codes.OK
        assert service.log.read_text().count("status=200") == 0
