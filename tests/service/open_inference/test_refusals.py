"""What is wrong over REST and gRPC is refused as Triton refuses it; people who mean harm get no further."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.hostile_inference import malformed_grpc, malformed_rest, message, rest_body
from tests.processes import Service, serve
from tests.service.open_inference.tensors import recommender_inputs

# What Triton 2.51 was seen to answer, word for word; its tensors are called `images`, ours `IMAGES`.
AS_TRITON = {
    "unknown model": ({"model": "nope"}, 404, "NOT_FOUND", "Request for unknown model: 'nope' is not found"),
    "unknown version": (
        {"version": "9"}, 404, "NOT_FOUND", "Request for unknown model: 'encoder' version 9 is not found",
    ),
    "unknown input": (
        {"name": "x"}, 400, "INVALID_ARGUMENT", "unexpected inference input 'x' for model 'encoder'",
    ),
    "unknown output": (
        {"output": "x"}, 400, "INVALID_ARGUMENT", "unexpected inference output 'x' for model 'encoder'",
    ),
    "no input": (
        {"inputs": 0}, 400, "INVALID_ARGUMENT",
        "expected 1 inputs but got 0 inputs for model 'encoder'. Got input(s) [], but missing required input(s) "
        "['IMAGES']. Please provide all required input(s).",
    ),
    "an input twice": ({"inputs": 2}, 400, "INVALID_ARGUMENT", "input 'IMAGES' already exists in request"),
    "wrong datatype": (
        {"datatype": "FP32"}, 400, "INVALID_ARGUMENT",
        "inference input 'IMAGES' data-type is 'FP32', but model 'encoder' expects 'UINT8'",
    ),
    "wrong shape": (
        {"shape": [1, 2, 2, 3], "size": 12}, 400, "INVALID_ARGUMENT",
        "unexpected shape for input 'IMAGES' for model 'encoder'. Expected [-1,224,224,3], got [1,2,2,3]",
    ),
    "wrong rank": (
        {"shape": [12], "size": 12}, 400, "INVALID_ARGUMENT",
        "unexpected shape for input 'IMAGES' for model 'encoder'. Expected [-1,224,224,3], got [12]",
    ),
    "too few bytes": (
        {"size": 3}, 400, "INVALID_ARGUMENT",
        "input byte size mismatch for input 'IMAGES' for model 'encoder'. Expected 150528, got 3",
    ),
    "too large a batch": (
        {"shape": [2**40, 224, 224, 3], "size": 9}, 400, "INVALID_ARGUMENT",
        "inference request batch-size must be <= 32 for 'encoder'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_TRITON)
def test_what_is_wrong_is_said_as_triton_says_it(service: Service, name: str) -> None:
    """Over both transports."""
    fields, status, code, said = AS_TRITON[name]
    path, body, headers = rest_body(message(**fields))
    answer = service.http.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(said)
    with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message(**fields))
    assert caught.value.code().name == code
    assert caught.value.details().removeprefix("[request id: 7] ").startswith(said)


def test_no_malformed_request_is_a_server_error(service: Service) -> None:
    """Each is refused with 4xx or INVALID_ARGUMENT and a reason; the server lives on, no larger than before."""
    rest, rpc = malformed_rest(), malformed_grpc()
    assert len(rest) + len(rpc) >= 60
    process = psutil.Process(int(service.http.headers["X-Server-Pid"]))

    def memory() -> int:
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))

    with grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def check(name: str) -> None:
            if name in rest:
                answer = rest[name](service.http)
                assert 400 <= answer.status_code < 500, (name, answer.text)
                assert 5 < len(answer.json()["error"]) < 1000, name
            if name in rpc:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(rpc[name])
                assert caught.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND"), (name, caught.value.details())
                assert len(caught.value.details()) < 1000, name

        names = sorted({*rest, *rpc})
        for name in names:
            check(name)
        before = memory()
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                list(pool.map(check, names))
        assert memory() < before + 48 * 2**20
    assert service.process.poll() is None
    assert service.ready()


def test_a_message_that_swells_past_the_limit_is_refused(service: Service) -> None:
    """gRPC's own compression: 100 megabytes of zeros arrive as a few hundred kilobytes."""
    bomb = message(size=100_000_000)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(service.grpc, options=options) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(bomb, compression=grpc.Compression.Gzip)
    assert caught.value.code().name == "RESOURCE_EXHAUSTED"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(files[0]), "-keyout", str(files[1])]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed here, and the certificate of this test is made with it")
    return files


def test_tls_and_the_api_key_guard_both_transports(
    release_folder: Path, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """Without the key 401 and UNAUTHENTICATED, but for probes; with it answers; without TLS no connection at all."""
    path, key = certificate
    settings = {
        "VITRINE_API_KEY": "a secret of ours", "VITRINE_TLS_CERTIFICATE": str(path), "VITRINE_TLS_KEY": str(key),
    }  # fmt: skip
    with serve(release_folder, tmp_path, settings, verify=path) as service:
        assert service.http.post("/recommend", json={}).status_code == 401
        assert service.http.get("/v2/models/encoder").json()["error"]
        for probe in ("/livez", "/readyz", "/v2/health/ready"):
            assert service.http.get(probe).status_code == 200
        wrong = {"Authorization": "Bearer another"}
        assert service.http.post("/recommend", json={}, headers=wrong).status_code == 401
        for header in ({"Authorization": "Bearer a secret of ours"}, {"X-API-Key": "a secret of ours"}):
            assert service.http.post("/recommend", json={}, headers=header).status_code == 200
        trusted = grpc.ssl_channel_credentials(path.read_bytes())
        inputs = recommender_inputs(triton_grpc, user_id="00007")
        with triton_grpc.InferenceServerClient(service.grpc, creds=trusted, ssl=True) as client:
            assert client.is_server_live()
            with pytest.raises(InferenceServerException, match="API key"):
                client.infer("recommender", inputs)
            answer = client.infer("recommender", inputs, headers={"authorization": "Bearer a secret of ours"})
            assert answer.as_numpy("ITEM_ID").shape == (1, 10)
        with triton_grpc.InferenceServerClient(service.grpc) as client, pytest.raises(InferenceServerException):
            client.is_server_live(client_timeout=2)
