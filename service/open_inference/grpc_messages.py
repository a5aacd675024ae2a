"""gRPC messages -> requests, answers -> gRPC messages."""

from collections.abc import Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from service.errors import (
    BadQuery,
    Busy,
    CallerGone,
    DeadlineMissed,
    EncoderAway,
    KeyNeeded,
    Malformed,
    NotFound,
    Overloaded,
    SlowBody,
    StoreAway,
)
from service.open_inference.server import InferRequest, InferResponse
from service.open_inference.tensors import BYTES, SentTensor

# field of InferTensorContents that holds a datatype's values
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip
SERVICE = "inference.GRPCInferenceService"
MODEL_INFER, MODEL_STREAM_INFER = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"
# the most specific class first
CODES = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    KeyNeeded: grpc.StatusCode.UNAUTHENTICATED,
    BadQuery: grpc.StatusCode.INVALID_ARGUMENT,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineMissed: grpc.StatusCode.DEADLINE_EXCEEDED,
    SlowBody: grpc.StatusCode.DEADLINE_EXCEEDED,
    EncoderAway: grpc.StatusCode.UNAVAILABLE,
    StoreAway: grpc.StatusCode.UNAVAILABLE,
    CallerGone: grpc.StatusCode.CANCELLED,
}


def read(request: Any) -> InferRequest:
    """A ModelInferRequest -> the request. Raises Malformed."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Malformed(
            f"expected {len(request.inputs)} raw input contents, one for each input of model '{request.model_name}'; "
            f"got {len(raw)}"
        )
    inputs = []
    for place, given in enumerate(request.inputs):
        field = CONTENTS.get(given.datatype, "")
        data = raw[place] if raw else getattr(given.contents, field) if field else ()
        if not raw and not given.HasField("contents"):
            raise Malformed(
                f"unable to find data for input tensor '{given.name[:80]}' for model '{request.model_name}' in request."
            )
        inputs.append(SentTensor(given.name, given.datatype, tuple(given.shape), data if raw else list(data)))
    version = checked_version(request.model_version)
    return InferRequest(request.model_name, version, inputs, [each.name for each in request.outputs], request.id)


def written(response: InferResponse) -> Any:
    """An answer -> ModelInferResponse."""
    message = service_pb2.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for name, value in response.parameters.items():
        message.parameters[name].string_param = value
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(tensor.raw())
    return message


def checked_version(version: str) -> str:
    if version and not (version.isascii() and version.isdigit()):
        raise Malformed(
            f"failed to get model version from specified version string '{version[:20]}', "
            "version should be an integral value > 0"
        )
    return version


def code_of(error: BadQuery | Busy) -> grpc.StatusCode:
    """The status that clients know an error of ours by."""
    return next(code for kind, code in CODES.items() if isinstance(error, kind))
