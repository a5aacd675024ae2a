"""FastAPI around the chain: one process, an endpoint of its own in FastAPI's threads.

python benchmarks/peers/glued.py releases/1 --port 3100
"""

import argparse
from pathlib import Path

import uvicorn
from chain import Chain
from fastapi import FastAPI, Form, UploadFile


def create_app(chain: Chain) -> FastAPI:
    """POST /recommend, GET /health."""
    app = FastAPI()

    @app.post("/recommend")
    def recommend(image: UploadFile, k: int = Form(10), user_id: str | None = Form(None)) -> dict:
        pixels = chain.decode(image.file.read())
        vector = chain.encode(pixels[None])[0]
        return {"items": chain.rank(vector, k=k, user_id=user_id)}

    @app.get("/health")
    def health() -> dict:
        return {"status": "ok"}

    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--port", type=int, default=3100)
    parser.add_argument("--threads", type=int, default=0, help="of one call of onnxruntime (default: all cores)")
    asked = parser.parse_args()
    app = create_app(Chain(asked.release, threads=asked.threads))
    uvicorn.run(app, port=asked.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
