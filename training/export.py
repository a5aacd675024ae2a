"""The trained network -> ONNX: pixels in, unit vectors out, checked against torch on real pictures."""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from service.engines import OnnxRuntime
from service.errors import ReleaseMismatch
from service.images import PREPROCESSING
from training.backbones import Embedder

LARGEST_DIFFERENCE = 1e-4
CHECKED_BATCHES = (1, 3, 32)
WEIGHTS = "weights_"  # begins the name of the output that tells one network from another


def export(model: Embedder, path: Path, *, pictures: torch.Tensor, ingredients: dict[str, object]) -> float:
    """Write `path`; refuse it where onnxruntime's vectors are not torch's.

    pictures: (n, 224, 224, 3) uint8 real ones to compare on; ingredients: what the encoder was made from, for the
    metadata. Returns the largest difference. Raises ReleaseMismatch."""
    model = model.eval().cpu()
    example = torch.zeros(2, PREPROCESSING.crop, PREPROCESSING.crop, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            model, (example,), dynamo=True, external_data=False, verbose=False,
            input_names=["images"], output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}},
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    _name_weights(proto)
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in sorted(ingredients.items())})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return compare(model, path, pictures)


def compare(model: Embedder, path: Path, pictures: torch.Tensor) -> float:
    """The largest difference between torch's and onnxruntime's vectors. Raises ReleaseMismatch past 1e-4."""
    encoder = OnnxRuntime(path, threads=torch.get_num_threads())
    worst = 0.0
    for batch in CHECKED_BATCHES:
        sample = pictures[torch.arange(batch) % len(pictures)]
        with torch.inference_mode():
            expected = model(sample).numpy()
        worst = max(worst, float(np.abs(encoder.encode(sample.numpy()) - expected).max()))
    if not worst <= LARGEST_DIFFERENCE:
        raise ReleaseMismatch(
            f"the exported encoder differs from torch by {worst:.2e}, at most {LARGEST_DIFFERENCE:.0e} is allowed; "
            "it was not kept"
        )
    return worst


def _name_weights(proto: onnx.ModelProto) -> None:
    """Add an output, equal to the embeddings, whose name carries the digest of the weights.

    onnxruntime keeps TensorRT's engines under a key that hashes the names of the outputs, and never the weights: a
    network that was trained anew, with the shape of the old one, would be answered for by the old one's engine."""
    weights = hashlib.sha256(b"".join(value.SerializeToString(deterministic=True) for value in proto.graph.initializer))
    name = WEIGHTS + weights.hexdigest()[:16]
    proto.graph.node.append(onnx.helper.make_node("Identity", ["embeddings"], [name], name=name))
    output = proto.graph.output.add()
    output.CopyFrom(proto.graph.output[0])
    output.name = name


def _strip(proto: onnx.ModelProto) -> None:
    """Drop what the exporter notes about this machine and this run, so that one network gives one file."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for part in (proto.graph, *proto.functions):
        part.doc_string = ""
        for holder in (part, *part.node, *part.value_info):
            holder.doc_string = ""
            del holder.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
