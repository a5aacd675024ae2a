"""Requests of the inference protocol that lie: about sizes, shapes, types, names, and what is compressed in them."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
from tritonclient.grpc import service_pb2


def message(
    *, model: str = "encoder", version: str = "", name: str = "IMAGES", datatype: str = "UINT8",
    shape: list[int] | None = None, size: int = 150528, inputs: int = 1, output: str = "",
) -> Any:  # fmt: skip
    """A ModelInferRequest, right but for what is said."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id="7")
    for _ in range(inputs):
        request.inputs.add(name=name, datatype=datatype, shape=shape or [1, 224, 224, 3])
        request.raw_input_contents.append(b"\0" * size)
    if output:
        request.outputs.add(name=output)
    return request


def rest_body(request: Any) -> tuple[str, bytes, dict[str, str]]:
    """The same over REST: path, body, headers."""
    inputs = [
        {"name": each.name, "datatype": each.datatype, "shape": list(each.shape),
         "parameters": {"binary_data_size": len(raw)}}
        for each, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]  # fmt: skip
    header = json.dumps({"id": request.id, "inputs": inputs, "outputs": [{"name": o.name} for o in request.outputs]})
    version = f"/versions/{request.model_version}" if request.model_version else ""
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return (
        f"/v2/models/{request.model_name}{version}/infer",
        header.encode() + b"".join(request.raw_input_contents),
        headers,
    )


def malformed_rest() -> dict[str, Callable[[httpx.Client], httpx.Response]]:
    """name -> the sending of a request that lies."""
    path, body, headers = rest_body(message())
    length = int(headers["Inference-Header-Content-Length"])
    one: dict[str, Any] = {"name": "IMAGES", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [0] * 150528}

    def post(content: bytes, at: str = path, **more: str) -> Callable[[httpx.Client], httpx.Response]:
        return lambda client: client.post(
            at, content=content, headers={key.replace("_", "-"): v for key, v in more.items()}
        )

    def said(value: object, at: str = path) -> Callable[[httpx.Client], httpx.Response]:
        return post(json.dumps(value).encode(), at)

    def binary(size: object, content: bytes = b"\0" * 150528) -> Callable[[httpx.Client], httpx.Response]:
        header = json.dumps({"inputs": [{**one, "data": None, "parameters": {"binary_data_size": size}}]}).encode()
        return post(header + content, Inference_Header_Content_Length=str(len(header)))

    def recommend(**inputs: list[Any]) -> Callable[[httpx.Client], httpx.Response]:
        sent = [
            {"name": name, "shape": [len(data)], "datatype": "INT32" if name == "K" else "BYTES", "data": data}
            for name, data in inputs.items()
        ]
        return said({"inputs": sent}, path.replace("encoder", "recommender"))

    ranks = {"name": "EMBEDDINGS", "parameters": {"classification": 3}}
    return {
        "nothing": post(b""),
        "not JSON": post(b"{"),
        "a list": said([]),
        "a number": said(1),
        "null inputs": said({"inputs": None}),
        "inputs as an object": said({"inputs": {}}),
        "an input as text": said({"inputs": ["IMAGES"]}),
        "no name": said({"inputs": [{**one, "name": None}]}),
        "no shape": said({"inputs": [{"name": "IMAGES", "datatype": "UINT8", "data": [0]}]}),
        "a shape of text": said({"inputs": [{**one, "shape": ["1"]}]}),
        "a negative shape": said({"inputs": [{**one, "shape": [-1, 224, 224, 3]}]}),
        "a huge shape": said({"inputs": [{**one, "shape": [2**62, 224, 224, 3]}]}),
        "a shape past 64 bits": said({"inputs": [{**one, "shape": [2**63, 224, 224, 3]}]}),
        "a batch of none": said({"inputs": [{**one, "shape": [0, 224, 224, 3], "data": []}]}),
        "no datatype": said({"inputs": [{"name": "IMAGES", "shape": [1], "data": [0]}]}),
        "an unknown datatype": said({"inputs": [{**one, "datatype": "FP7"}]}),
        "data of text": said({"inputs": [{**one, "data": "abc"}]}),
        "ragged data": said({"inputs": [{**one, "data": [[0], [0, 1]]}]}),
        "too little data": said({"inputs": [{**one, "data": [0]}]}),
        "numbers out of range": said({"inputs": [{**one, "data": [256] * 150528}]}),
        "fractions": said({"inputs": [{**one, "data": [0.5] * 150528}]}),
        "a thousand brackets": post(b"[" * 100_000),
        "NaN": post(b'{"inputs": NaN}'),
        "not UTF-8": post(b'{"id": "\xff"}'),
        "id as a number": said({"id": 7, "inputs": [one]}),
        "parameters as a list": said({"inputs": [one], "parameters": []}),
        "classification": said({"inputs": [one], "outputs": [ranks]}),
        "binary part cut short": binary(150528, b"\0" * 100),
        "binary part too long": binary(150528, b"\0" * 150530),
        "binary size of a terabyte": binary(10**12),
        "negative binary size": binary(-4),
        "binary size as text": binary("many"),
        "header length past the end": post(body, Inference_Header_Content_Length=str(10**9)),
        "negative header length": post(body, Inference_Header_Content_Length="-5"),
        "header length of text": post(body, Inference_Header_Content_Length="x"),
        "header length in the middle": post(body, Inference_Header_Content_Length=str(length - 3)),
        "not gzip": post(b"abc", Content_Encoding="gzip"),
        "gzip cut short": post(gzip.compress(body)[:-9], Content_Encoding="gzip"),
        "a gzip bomb": post(gzip.compress(b" " * 200_000_000, 9), Content_Encoding="gzip"),
        "a deflate bomb": post(zlib.compress(b" " * 200_000_000, 9), Content_Encoding="deflate"),
        "an unknown compression": post(body, Content_Encoding="br"),
        "a body past the limit": post(b" " * 3_000_000),
        "an unknown model": said({"inputs": [one]}, "/v2/models/nope/infer"),
        "an unknown version": said({"inputs": [one]}, "/v2/models/encoder/versions/99/infer"),
        "a version of text": said({"inputs": [one]}, "/v2/models/encoder/versions/latest/infer"),
        "an unknown route": said({}, "/v2/models/encoder/train"),
        "k of zero": recommend(USER_ID=["7"], K=[0]),
        "two of k": recommend(USER_ID=["7"], K=[1, 2]),
        "rows that do not match": recommend(USER_ID=["1", "2"], FILTER=[""]),
        "a filter that is not JSON": recommend(FILTER=["{"]),
        "a picture of text": recommend(IMAGE=["hi"]),
    }  # fmt: skip


def malformed_grpc() -> dict[str, Any]:
    """name -> a message that lies."""

    def texts(name: str, raw: bytes, shape: list[int]) -> Any:
        request = service_pb2.ModelInferRequest(model_name="recommender")
        request.inputs.add(name=name, datatype="BYTES", shape=shape)
        request.raw_input_contents.append(raw)
        return request

    without_data, one_too_many, other_field = message(), message(), message()
    del without_data.raw_input_contents[:]
    one_too_many.raw_input_contents.append(b"")
    del other_field.raw_input_contents[:]
    other_field.inputs[0].contents.fp32_contents.append(1.0)
    return {
        "no data": without_data,
        "more data than inputs": one_too_many,
        "data in another field": other_field,
        "a negative shape": message(shape=[-1, 224, 224, 3]),
        "a huge shape": message(shape=[2**62, 224, 224, 3]),
        "a shape whose product wraps": message(shape=[32, 2**62, 4, 3]),
        "a batch of none": message(shape=[0, 224, 224, 3], size=0),
        "a shape of nothing": message(shape=[], size=0, inputs=1),
        "an unknown datatype": message(datatype="FP7"),
        "a version of text": message(version="latest"),
        "a version of digits without end": message(version="9" * 400),
        "a name of a megabyte": message(name="x" * 1_000_000),
        "an element longer than the rest": texts("IMAGE", struct.pack("<I", 2**32 - 1) + b"abc", [1]),
        "elements cut short": texts("IMAGE", b"\1\0", [1]),
        "fewer elements than the shape": texts("USER_ID", b"\1\0\0\0a", [2]),
        "more elements than the shape": texts("USER_ID", b"\1\0\0\0a" * 3, [2]),
        "a billion empty elements": texts("USER_ID", b"\0\0\0\0", [10**9]),
        "an id that is not UTF-8": texts("USER_ID", b"\2\0\0\0\xff\xfe", [1]),
        "a filter that is not JSON": texts("FILTER", b"\1\0\0\0{", [1]),
        "a filter of brackets": texts("FILTER", struct.pack("<I", 100_000) + b"[" * 100_000, [1]),
        "a picture of text": texts("IMAGE", b"\2\0\0\0hi", [1]),
    }
