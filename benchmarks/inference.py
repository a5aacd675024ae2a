"""The model `encoder` over gRPC and REST v2, beside the bare onnxruntime loop and Triton itself: same cores, same run.

    make .triton/installed
    python benchmarks/inference.py releases/1

perf_analyzer asks, with one picture a request, at 1, 8 and 32 at once; it is written in C++ and shares the cores with
the server. The rounds alternate; of each server the best one counts, since what else the machine does can only slow it.
Triton's backend is the stand-in of triton/backends, in Python: how its own C++ backend would do is not shown.

Writes benchmarks/results/inference-<backbone>.json and .md.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import HERE
from serving_report import describe_machine

from service.encoder.selection import available_cpus
from service.recommender.release import Manifest, Release
from service.serving.model_repository import install
from tests.processes import Triton, free_port, serve

AT_ONCE = (1, 8, 32)
WINDOW_MS = 3000
console = Console()


def main() -> None:
    """Measure in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--triton", type=Path, default=HERE.parent / ".triton", help="what triton/install.sh made")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    backbone = (Manifest.read(asked.release).encoder or {})["backbone"]
    found: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        work = Path(folder)
        ours = started.enter_context(serve(asked.release, work / "service", {"VITRINE_ENCODER": "onnxruntime"}))
        triton = started.enter_context(_triton(asked.release, asked.triton / "tritonserver", work))
        for _ in range(asked.rounds):
            found.setdefault("bare loop", {}).setdefault(available_cpus(), []).append(bare(asked.release))
            for name, address, protocol in (
                ("vitrine gRPC", ours.grpc, "grpc"),
                ("vitrine REST", ours.address, "http"),
                ("Triton gRPC", triton.grpc, "grpc"),
            ):
                for at_once in AT_ONCE:
                    rate = perf(asked.triton / "perf_analyzer", at_once, ["-u", address, "-i", protocol])
                    found.setdefault(name, {}).setdefault(at_once, []).append(rate)
    text = table(found)
    console.print(text)
    results = HERE / "results"
    facts = {"machine": describe_machine(), "backbone": backbone, "per_second": found}
    (results / f"inference-{backbone}.json").write_text(json.dumps(facts, indent=1) + "\n")
    machine = facts["machine"]
    said = (
        f"{backbone}, {machine['cores']} cores of {machine['cpu']} ({', '.join(machine['flags'])}), {machine['when']}"
    )
    (results / f"inference-{backbone}.md").write_text(f"{said}\n\n{text}")


def perf(program: Path, at_once: int, flags: list[str]) -> float:
    """Inferences a second, as perf_analyzer saw them."""
    command = [program, "-m", "encoder", *flags, "--concurrency-range", str(at_once), "-p", str(WINDOW_MS), "-s", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rates = re.findall(r"throughput: ([0-9.]+) infer/sec", done.stdout)
    assert rates, done.stdout + done.stderr
    return float(rates[-1])


def bare(release: Path, seconds: float = 3.0) -> float:
    """Pictures a second of onnxruntime alone: one at a time, a thread a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    picture, end = np.zeros((1, 224, 224, 3), np.uint8), time.perf_counter() + seconds
    counts: list[int] = []

    def loop() -> None:
        session, count = onnxruntime.InferenceSession(str(release / "encoder.onnx"), options), 0
        while time.perf_counter() < end:
            session.run(["embeddings"], {"images": picture})
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=loop) for _ in range(available_cpus())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@contextmanager
def _triton(release: Path, program: Path, work: Path) -> Iterator[Triton]:
    folder = Path(shutil.copytree(HERE.parent / "model_repository", work / "repository"))
    shutil.rmtree(folder / "encoder" / release.name, ignore_errors=True)
    install(Release.open(release), folder)
    server = Triton(program, folder, work / "triton.log", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    server.start()
    try:
        yield server
    finally:
        server.kill()


def table(found: dict[str, dict[int, list[float]]]) -> str:
    """The best round of each, in markdown."""
    best = {name: {at: max(rates) for at, rates in rows.items()} for name, rows in found.items()}
    loop = statistics.fmean(best["bare loop"].values())
    lines = [
        "| inferences/s | " + " | ".join(f"{at} at once" for at in AT_ONCE) + " | of the bare loop, at 8 |",
        "| --- |" + " --- |" * (len(AT_ONCE) + 1),
        f"| bare loop, a thread a core | {loop:.0f} |" + " |" * (len(AT_ONCE) - 1) + " 1.00 |",
    ]
    for name, rates in best.items():
        if name != "bare loop":
            shown = " | ".join(f"{rates[at]:.0f}" for at in AT_ONCE)
            lines.append(f"| {name} | {shown} | {rates[8] / loop:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
