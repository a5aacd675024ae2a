"""LitServe around the chain, with batching: requests wait a moment for others, and are encoded together.

python benchmarks/peers/litserve_app.py releases/1 --port 3200
"""

import argparse
from pathlib import Path

import litserve
import numpy as np
from chain import Chain
from fastapi import Request

LARGEST_BATCH = 8
BATCH_TIMEOUT = 0.002  # seconds


class Recommend(litserve.LitAPI):
    """The request in LitServe's named steps."""

    def __init__(self, release: Path, *, threads: int) -> None:
        super().__init__(max_batch_size=LARGEST_BATCH, batch_timeout=BATCH_TIMEOUT, api_path="/recommend")
        self._release, self._threads = release, threads

    def setup(self, device: str) -> None:
        self._chain = Chain(self._release, threads=self._threads)

    def decode_request(self, request: Request) -> tuple[np.ndarray, int, str | None]:
        return self._chain.decode(request["image"].file.read()), int(request.get("k", 10)), request.get("user_id")

    def batch(self, inputs: list) -> tuple[np.ndarray, list]:
        return np.stack([pixels for pixels, *_ in inputs]), [asked for _, *asked in inputs]

    def predict(self, batch: tuple[np.ndarray, list]) -> list:
        pixels, asked = batch
        vectors = self._chain.encode(pixels)
        return [
            self._chain.rank(vector, k=k, user_id=user_id) for vector, (k, user_id) in zip(vectors, asked, strict=True)
        ]

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: list) -> dict:
        return {"items": output}


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--port", type=int, default=3200)
    parser.add_argument("--threads", type=int, default=0, help="of one call of onnxruntime (default: all cores)")
    parser.add_argument("--workers", type=int, default=1, help="processes that encode")
    asked = parser.parse_args()
    server = litserve.LitServer(
        Recommend(asked.release, threads=asked.threads), accelerator="cpu", workers_per_device=asked.workers
    )
    server.run(
        host="127.0.0.1", port=asked.port, num_api_servers=1, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
