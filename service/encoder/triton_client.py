"""The encoder in a Triton Inference Server: as an engine of the `Encoder` protocol, proven before it is believed.

A server that answers is not yet the right one: it may serve another network under the same name and version, and it
reports itself ready when the process behind a model is dead. So it counts as there when golden pictures give their
recorded vectors, and only then; after every failure it must show that again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException

from service.errors import EncoderAway

LANES = 16  # calls at once: what waits for a server needs no core
SAME = 0.999  # cosine with the golden vectors; a server on a GPU may compute in fp16
RETRIES = 2  # where the server could not be reached, so that nothing was computed
PAUSE = 0.05  # seconds before the first of them
LOOK_AGAIN = 0.5  # seconds between attempts while it is away
LOOK_AFTER = 5.0  # seconds between proofs while it is there
# of a call; a server that answers with nonsense is as good as away
FAILURES = (InferenceServerException, grpc.RpcError, OSError, ValueError, TypeError)
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the encoder is: host:port of Triton's gRPC, the model, the version pinned, the seconds that it has."""

    url: str
    model: str
    version: str
    timeout: float


class Triton:
    """The encoder of one release, in a Triton server. Calls run on an event loop in a thread of its own."""

    largest_batch = 1  # the server puts requests together by itself
    degraded = ""  # it answers or raises

    def __init__(
        self,
        address: Address,
        golden: np.ndarray,
        vectors: np.ndarray,
        observe: Callable[[bool], None] = lambda there: None,
    ) -> None:
        """golden: (n, 224, 224, 3) uint8; vectors: (n, dim), what they must give; observe: told when it comes and goes.

        Returns at once; `wait` says when it is there."""
        self.dim = vectors.shape[1]
        self.away = "it has not been reached yet"  # why; empty while it is there
        self._address, self._golden, self._vectors, self._observe = address, golden, vectors, observe
        self._proven, self._changing = threading.Event(), threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="triton", daemon=True)
        self._thread.start()
        self._client: Any = self._run(self._connect())
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length. Raises EncoderAway."""
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        if not self._proven.is_set():
            raise self._refusal()
        try:
            found: np.ndarray = self._run(self._infer(pixels))
        except FAILURES as error:
            self._lose(str(error))
            raise self._refusal() from error
        return found

    def wait(self, seconds: float) -> bool:
        """Whether it is there within so many seconds."""
        return self._proven.wait(seconds)

    def close(self) -> None:
        """Disconnect."""
        self._watching.cancel()
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    async def _connect(self) -> Any:
        return grpcclient.InferenceServerClient(self._address.url, channel_args=CHANNEL)

    async def _infer(self, pixels: np.ndarray) -> np.ndarray:
        asked = grpcclient.InferInput("images", list(pixels.shape), "UINT8")
        asked.set_data_from_numpy(pixels)
        for attempt in range(RETRIES + 1):
            try:
                answer = await self._client.infer(
                    self._address.model,
                    [asked],
                    model_version=self._address.version,
                    outputs=[grpcclient.InferRequestedOutput("embeddings")],
                    client_timeout=self._address.timeout,
                )
                break
            except InferenceServerException as error:
                if attempt == RETRIES or error.status() != "StatusCode.UNAVAILABLE":
                    raise
                await asyncio.sleep(PAUSE * 2**attempt)
        found = answer.as_numpy("embeddings")
        if found is None or found.shape != (len(pixels), self.dim):  # a dead backend was seen to answer with nothing
            raise InferenceServerException(f"expected embeddings of shape {(len(pixels), self.dim)}; got {found!r:.80}")
        return np.asarray(found, np.float32)

    async def _watch(self) -> None:
        while True:
            try:
                shown = 1 if self._proven.is_set() else len(self._golden)
                found = await self._infer(self._golden[:shown])
                cosine = float(np.einsum("nd,nd->n", found, self._vectors[:shown]).min())
                if cosine >= SAME:
                    self._find()
                else:
                    self._lose(f"its vectors are not this release's: cosine {cosine:.4f} with the golden ones")
            except FAILURES as error:
                self._lose(str(error))
            await asyncio.sleep(LOOK_AFTER if self._proven.is_set() else LOOK_AGAIN)

    def _find(self) -> None:
        with self._changing:
            if not self._proven.is_set():
                logger.info("Triton at %s serves %s version %s", *self._where())
                self.away = ""
                self._proven.set()
                self._observe(True)

    def _lose(self, why: str) -> None:
        with self._changing:
            if self.away != why:
                logger.warning("Triton at %s does not serve %s version %s: %s", *self._where(), why)
            self.away = why
            self._proven.clear()
            self._observe(False)

    def _refusal(self) -> EncoderAway:
        return EncoderAway("the server that the encoder runs in is away; send it again later")

    def _where(self) -> tuple[str, str, str]:
        return self._address.url, self._address.model, self._address.version


class Fallback:
    """An encoder in Triton, and the release's own in this process while that one is away."""

    def __init__(self, triton: Triton, own: Any, observe: Callable[[], None] = lambda: None) -> None:
        """own: an Encoder; observe: told of every call that it answers."""
        self.dim, self.largest_batch = triton.dim, triton.largest_batch
        self._triton, self._own, self._observe = triton, own, observe
        self._answered = threading.local()

    @property
    def degraded(self) -> str:
        """Why this thread's last call was not answered by Triton; empty where it was."""
        return getattr(self._answered, "degraded", "")

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (n, 224, 224, 3) uint8 -> (n, dim) float32, unit length."""
        try:
            found = self._triton.encode(pixels)
            self._answered.degraded = ""
        except EncoderAway as error:
            self._observe()
            self._answered.degraded = str(error)
            found = self._own.encode(pixels)
        return found
