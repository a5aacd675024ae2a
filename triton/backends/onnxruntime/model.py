"""Stands in for Triton's onnxruntime backend where only its Python backend is to be had: loads model.onnx, on the CPU.

It lets the model repository run unchanged: configuration, protocol, versions, polling and batching are the server's
own. What it cannot show is the C++ backend: its speed, its accelerators, its reading of `optimization`.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

OUTPUT = {"name": "embeddings", "data_type": "TYPE_FP32", "dims": [-1]}


class TritonPythonModel:
    """One instance of one version of a model."""

    @staticmethod
    def auto_complete_config(config: object) -> object:
        """Add the output, which the C++ backend takes from the graph of each version."""
        if not config.as_dict()["output"]:
            config.add_output(OUTPUT)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's model.onnx."""
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        options = onnxruntime.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value")
        options.intra_op_num_threads = int(threads) if threads else len(os.sched_getaffinity(0))
        # threads that spin while they wait would take the cores from the server, and stall it for half a second
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list) -> list:
        """Run what the server's batcher put together as one batch, and take it apart again."""
        sent = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            for request in requests
        ]
        feed = {name: np.concatenate(parts) for name, parts in zip(self._inputs, zip(*sent, strict=True), strict=True)}
        found = self._session.run(self._outputs, feed)
        responses, start = [], 0
        for parts in sent:
            end = start + len(parts[0])
            tensors = [
                pb_utils.Tensor(name, array[start:end]) for name, array in zip(self._outputs, found, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start = end
        return responses
