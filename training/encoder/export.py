"""The trained network -> ONNX: pixels in, unit vectors out, checked against torch on real pictures."""

import hashlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch

from service.encoder.engines import OnnxRuntime
from service.encoder.preprocessing import PREPROCESSING
from service.errors import ReleaseMismatch
from service.files import digest
from training.encoder.backbones import Embedder
from training.encoder.trainer import EncoderParameters, load
from training.progress import say

LARGEST_DIFFERENCE = 1e-4
CHECKED_BATCHES = (1, 3, 32)
WEIGHTS = "weights_"  # begins the name of the tensor that tells one network from another


def export(model: Embedder, path: Path, *, pictures: torch.Tensor, ingredients: dict[str, object]) -> float:
    """Write `path`; refuse it where onnxruntime's vectors are not torch's.

    pictures: (n, 224, 224, 3) uint8 real ones to compare on; ingredients: what the encoder was made from, for the
    metadata. Returns the largest difference. Raises ReleaseMismatch."""
    model = model.eval().cpu()
    example = torch.zeros(2, PREPROCESSING.crop, PREPROCESSING.crop, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}},
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    _name_weights(proto)
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in sorted(ingredients.items())})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return compare(model, path, pictures)


def compare(model: Embedder, path: Path, pictures: torch.Tensor) -> float:
    """The largest difference between torch's and onnxruntime's vectors. Raises ReleaseMismatch past 1e-4.

    pictures: (n, 224, 224, 3) uint8."""
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
    """Name a tensor within the graph, the one that the embeddings are made of, after the digest of the weights.

    onnxruntime keeps TensorRT's engines under a key that hashes the names of what each node gives, and never the
    weights: a network that was trained anew, with the shape of the old one, would be answered for by the old one's
    engine. An output of its own would do as well, but would have to stand in every server's configuration."""
    weights = hashlib.sha256(b"".join(value.SerializeToString(deterministic=True) for value in proto.graph.initializer))
    made_by = {name: node for node in proto.graph.node for name in node.output}
    old = next(name for name in made_by["embeddings"].input if name in made_by)
    new = WEIGHTS + weights.hexdigest()[:16]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
    for value in proto.graph.value_info:
        if value.name == old:
            value.name = new


def named_after_weights(proto: onnx.ModelProto) -> list[str]:
    """Names of the tensors that say which weights a network has; earlier exports have an output of such a name."""
    return [name for node in proto.graph.node for name in node.output if name.startswith(WEIGHTS)]


def with_one_output(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Of an earlier export, without the output that was named after its weights."""
    for part in (proto.graph.output, proto.graph.node):
        for each in list(part):
            if each.name.startswith(WEIGHTS):
                part.remove(each)
    return proto


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


def write(folder: Path, weights: Path, parameters: EncoderParameters, *, pictures: torch.Tensor) -> None:
    """Leave encoder.onnx in `folder`. weights: weights.pt; pictures: (n, 224, 224, 3) uint8, to compare on."""
    ingredients: dict[str, object] = {
        "backbone": parameters.backbone,
        "dim": parameters.dim,
        "preprocessing": asdict(PREPROCESSING),
        "weights": digest(weights),
    }
    model = load(weights.parent, parameters)
    difference = export(model, folder / "encoder.onnx", pictures=pictures, ingredients=ingredients)
    say(f"export: largest difference from torch {difference:.1e}")
