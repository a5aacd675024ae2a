"""The engines that run a release's ONNX graph in this process: pixels in, unit vectors out.

Both take `threads`, the CPUs that they may use, and `lanes`, how many callers they may have at once. A lane gets its
share of the threads: on a CPU, as many single-threaded calls as there are cores encode more pictures a second than
one call over all cores does.
"""

import hashlib
import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

GPU_BATCH = 16
# Two requests at once are answered in a twentieth less time than one after the other; more gain nothing. The bits were
# the same for batches of one, two and four.
CPU_BATCH = 2
TENSORRT = "TensorrtExecutionProvider"
PROVIDERS = (TENSORRT, "CUDAExecutionProvider", "CPUExecutionProvider")
BATCHES = {"min": 1, "opt": 8, "max": 32}  # that one engine of TensorRT is built for


class OnnxRuntime:
    """onnxruntime with the first of its providers that works here: TensorRT, CUDA, the CPU."""

    degraded = ""

    def __init__(
        self, path: Path, *, threads: int, lanes: int = 1, precision: str = "fp32", engine_cache: Path | None = None
    ) -> None:
        """precision: of the file; engine_cache: folder that keeps what TensorRT builds, which takes minutes."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads // lanes)
        options.log_severity_level = 3
        if lanes > 1:  # threads that spin while they wait would take the cores from the other lanes
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        there = available_providers()
        providers: list[tuple[str, dict[str, str]]] = [(name, {}) for name in there]
        if TENSORRT in there:  # its key takes a look at the whole file
            providers[0] = (TENSORRT, tensorrt_options(path, precision=precision, cache=engine_cache))
        self._session = _open(path, options, providers)
        self.dim = int(self._session.get_outputs()[0].shape[1])
        device = str(self._session.get_providers()[0]).removesuffix("ExecutionProvider")
        self.largest_batch = CPU_BATCH if device == "CPU" else GPU_BATCH

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length."""
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        (vectors,) = self._session.run(["embeddings"], {"images": pixels})
        return np.asarray(vectors)


def _open(path: Path, options: onnxruntime.SessionOptions, providers: list[tuple[str, dict[str, str]]]) -> Any:
    """A session with the first of these that works. onnxruntime passes over one whose libraries are missing, and not
    over two: without TensorRT, and with CUDA's libraries where no GPU is visible, it raises."""
    for tried in range(len(providers) - 1):
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=providers[tried:])
        except Exception:  # onnxruntime's errors have no common class
            continue
    return onnxruntime.InferenceSession(str(path), options, providers=providers[-1:])


def available_providers() -> list[str]:
    """PROVIDERS that this onnxruntime was built with, the best first. A GPU's need CUDA's libraries, which pip puts
    where the loader does not look: they are loaded here."""
    found = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    if found != ["CPUExecutionProvider"]:
        onnxruntime.preload_dlls()  # says which it does not find
    return found


def tensorrt_options(path: Path, *, precision: str, cache: Path | None) -> dict[str, str]:
    """Options of onnxruntime's TensorRT provider for a network. cache: folder of engines and timings, or None.

    Its own key of an engine knows the names of the graph's tensors and not the weights, so that the engine of another
    network of the same shape could be taken: the digest of the file stands before it."""
    shapes = {f"trt_profile_{name}_shapes": shape_of(batch) for name, batch in BATCHES.items()}
    options = {"trt_fp16_enable": str(int(precision == "fp16")), **shapes}
    if cache is None:
        return options
    return {
        **options, "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(cache),
    }  # fmt: skip


def shape_of(batch: int) -> str:
    """The input for so many pictures, as TensorRT's tools write it."""
    return f"images:{batch}x224x224x3"


class OpenVino:
    """OpenVINO on the CPU; it has the faster kernels for int8."""

    degraded = ""

    def __init__(
        self, path: Path, *, threads: int, lanes: int = 1, precision: str = "fp32", engine_cache: Path | None = None
    ) -> None:
        """precision, engine_cache: as of OnnxRuntime; not needed here."""
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": lanes,
            # its own choice would be bfloat16 where the CPU has it: other vectors than the release's
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._model = openvino.Core().compile_model(str(path), "CPU", settings)
        self.dim = int(self._model.output(0).get_partial_shape()[1].get_length())
        self.largest_batch = CPU_BATCH
        self._of_thread = threading.local()

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length."""
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        return np.array(self._request().infer({0: pixels}, share_inputs=True, share_outputs=True)[0])

    def _request(self) -> Any:
        """The inference request of this thread: one cannot be used by two at once."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._model.create_infer_request()
        return self._of_thread.request


Engine = OnnxRuntime | OpenVino
ENGINES: dict[str, type[Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def installed() -> list[str]:
    """Names of the engines that can be loaded here."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]
