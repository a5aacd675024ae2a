"""The encoder alone, by backbone, engine and precision: pictures a second on one core, and the share of its peak.

    python benchmarks/encoder.py --pictures demo/images

One thread, one picture at a time, as the service runs it. The networks have random weights, of which the time does not
depend; int8 has no layer left in float, so it is the fastest that quantising can give, whether or not its answers would
pass the gate of `vitrine train --precision int8`. torch, in eager mode, is the peer. The rounds alternate, and the best
counts. The peak of a core in float32 is what a large matrix product reaches here; in int8 it is taken as four times
that where the processor has VNNI, sixteen times where it has AMX.

Writes benchmarks/results/encoder.json, .md and .svg.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from load_requests import read_pictures
from rich.console import Console
from rich.progress import track
from serving_report import describe_machine
from torch.utils.flop_counter import FlopCounterMode

from service.encoder.engines import ENGINES, installed
from service.encoder.preprocessing import decode_all
from training.encoder.backbones import Embedder, build
from training.encoder.export import export
from training.encoder.precisions import Quantiser

RESULTS = Path(__file__).parent / "results"
BACKBONES = ("mobilenet_v2", "resnet50", "convnet")
DIM = 128
CALIBRATION = 16  # pictures
COLOURS = {"torch": "#868e96", "onnxruntime": "#e8590c", "openvino": "#0b7285"}
# multiplications and additions a cycle, beside those in float32
INT8_WIDER = {"amx_int8": 16.0, "avx512_vnni": 4.0, "avx_vnni": 4.0}


def main() -> None:
    """Export, quantise, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, help="of torchvision, or convnet")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe_machine()
    pixels = decode_all(read_pictures(asked.pictures)[:CALIBRATION])
    wider = next((times for flag, times in INT8_WIDER.items() if flag in machine["flags"]), 1.0)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone in asked.backbones:
            flops, encoders = prepare(backbone, Path(folder), pixels)
            rates = dict.fromkeys(encoders, 0.0)
            peak = 0.0
            for _ in track(range(asked.rounds), f"measuring {backbone}", transient=True):
                peak = max(peak, peak_flops())
                for name, encode in encoders.items():
                    rates[name] = max(rates[name], rate(encode, pixels, asked.seconds))
            for (engine, precision), reached in rates.items():
                reachable = peak * (wider if precision == "int8" else 1)
                found.append({
                    "backbone": backbone, "engine": engine, "precision": precision, "rate": reached,
                    "gflops": reached * flops / 1e9, "of_peak": reached * flops / reachable,
                    "times_onnxruntime": reached / rates["onnxruntime", "fp32"],
                })  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "encoder.json").write_text(json.dumps({"machine": machine, "rows": found}, indent=1) + "\n")
    (RESULTS / "encoder.md").write_text(written(machine, found))
    (RESULTS / "encoder.svg").write_text(draw(found))
    Console().print(written(machine, found))


def prepare(
    backbone: str, folder: Path, pixels: np.ndarray
) -> tuple[float, dict[tuple[str, str], Callable[[np.ndarray], Any]]]:
    """Operations for one picture (a multiplication and an addition are two), and (engine, precision) -> encode."""
    torch.manual_seed(0)
    model = build(backbone, weights="none", dim=DIM).eval()
    one = torch.from_numpy(pixels[:1])
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(one)
    files = {"fp32": folder / f"{backbone}.onnx", "int8": folder / f"{backbone}.int8.onnx"}
    export(model, files["fp32"], pictures=torch.from_numpy(pixels), ingredients={})
    work = folder / backbone
    work.mkdir()
    Quantiser(files["fp32"], work, pixels).write("minmax", []).rename(files["int8"])
    encoders: dict[tuple[str, str], Callable[[np.ndarray], Any]] = {("torch", "fp32"): eager(model)}
    for engine in installed():
        for precision, file in files.items():
            encoders[engine, precision] = ENGINES[engine](file, threads=1).encode
    return float(counter.get_total_flops()), encoders


def eager(model: Embedder) -> Callable[[np.ndarray], Any]:
    """The network as torch runs it."""

    def encode(pixels: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels)).numpy()

    return encode


def rate(encode: Callable[[np.ndarray], Any], pixels: np.ndarray, seconds: float) -> float:
    """Pictures a second, one at a time."""
    encode(pixels[:1])
    started, done = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        encode(pixels[done % len(pixels)][None])
        done += 1
    return done / (time.perf_counter() - started)


def peak_flops(size: int = 1536) -> float:
    """Operations a second that a product of matrices reaches on one core, in float32."""
    matrix = np.ones((size, size), np.float32)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def written(machine: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table, in markdown."""
    lines = [
        "# encoder", "", "Written by `benchmarks/encoder.py`: one core, one picture at a time.", "",
        "| backbone | engine | precision | pictures a second | times onnxruntime fp32 | GFLOP/s | of the peak |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| {row['backbone']} | {row['engine']} | {row['precision']} | {row['rate']:.1f} "
        f"| {row['times_onnxruntime']:.2f} | {row['gflops']:.0f} | {100 * row['of_peak']:.0f} % |"
        for row in rows
    ]
    libraries = machine["libraries"]
    lines += [
        "",
        f"{machine['when']}, a core of {machine['cpu']} ({', '.join(machine['flags'])}), load average "
        f"{machine['load_average']:.1f} as it began. onnxruntime {libraries['onnxruntime']}, openvino "
        f"{libraries['openvino']}, torch {torch.__version__}.",
        "", "![Pictures a second](encoder.svg)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]) -> str:
    """Bars, as SVG: pictures a second beside onnxruntime's in float32, on the same scale for every backbone."""
    height, left, width = 20, 250, 760
    most = max(row["times_onnxruntime"] for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * (len(rows) + 2)}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>',
        '<text x="10" y="18">Pictures a second on one core, beside onnxruntime in float32</text>',
    ]
    for at, row in enumerate(rows):
        y = height * (at + 1.5)
        length = row["times_onnxruntime"] / most * (width - left - 130)
        parts.append(f'<text x="10" y="{y + 14}">{row["backbone"]} {row["engine"]} {row["precision"]}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{height - 4}" fill="{COLOURS[row["engine"]]}" '
            f'opacity="{1 if row["precision"] == "int8" else 0.6}"/>'
        )
        told = f"{row['rate']:.1f} a second, x {row['times_onnxruntime']:.2f}"
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}">{told}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
