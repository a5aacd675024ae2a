"""Everything that needs a GPU, in one command of a few minutes, each beside the same on the CPU: one table.

    python benchmarks/gpu.py            make check-gpu

    encoder     the demo's network trained for a few epochs: pictures a second, and whether precision@10 is the CPU's
    factors     the factorization of a drawn log: seconds, and whether the objective is the compiled CPU code's
    network     the exported network in each of onnxruntime's providers: vectors, and pictures a second by batch
    service     the service over a release, its encoder on the GPU: requests a second beside the CPU's

Each part runs in a process of its own, which is told by CUDA_VISIBLE_DEVICES whether it has a GPU. What could not be
run is said by name, with the reason. Exit code 1 where there is no GPU, or where a part failed or differs.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from rich.console import Console
from rich.table import Table

from service.encoder.engines import PROVIDERS, TENSORRT
from service.recommender.factors import Objective

ITEMS, EPOCHS = 900, 24  # of the drawn shop
SHOP = {"items": ITEMS, "shoppers": 300}  # that is drawn to serve from
LIMIT = 150  # seconds of one part
BATCHES = (1, 8, 32)
SECONDS = 2.0  # of each measurement of speed
SAME_VECTORS = 0.999  # cosine
SAME_OBJECTIVE = 0.005  # relative
CLIENTS = 8
HELD = 50  # MiB that a service which computes on the GPU holds there, at least


class Unavailable(Exception):
    """A part cannot be run here, and why."""


def encoder(work: Path) -> dict[str, Any]:
    """Train; write the validation's precision@10 of each query beside the figures."""
    from training.data import pictures
    from training.data.catalogue_reader import read
    from training.encoder import batches, examples, trainer

    catalogue = read(work / "shop")
    if not (work / "pictures").exists():
        (work / "pictures").mkdir()
        pictures.decode_catalogue(catalogue, work / "pictures")
    found = pictures.open_pictures(work / "pictures")[0]
    labels = batches.labels_of(catalogue, found.rows, exclude=set())
    train, held = examples.hold_out(np.arange(len(found.rows)), 0.25, np.random.default_rng(0))
    parameters = trainer.EncoderParameters(
        backbone="convnet", weights="none", epochs=EPOCHS, image_size=128, learning_rate=0.003, last_layer_steps=1000
    )
    folder = work / f"encoder-{device()}"
    folder.mkdir()
    figures = trainer.train(batches.Examples(found, labels, train, held, None), parameters, folder)
    network = trainer.load(folder, parameters).to(device())
    vectors = trainer.embed(network, found, np.concatenate([train, held]), torch.device(device()))
    own = labels.codes[np.concatenate([train, held]), labels.columns.index("category")]
    nearest = np.argsort(-(vectors[len(train) :] @ vectors[: len(train)].T), axis=1)[:, :10]
    precision = (own[: len(train)][nearest] == own[len(train) :, None]).mean(axis=1)
    rate = len(train) * EPOCHS / figures["seconds"]
    return {"pictures_a_second": rate, "precision": precision.tolist()}


def factors(work: Path) -> dict[str, Any]:
    """Factorize a drawn log of half a million pairs, twice: the first time compiles, or warms up."""
    from training.ranker.factorization import factorize

    rng = np.random.default_rng(0)
    users, items, pairs = 20_000, 8_000, 500_000
    popular = np.minimum((rng.pareto(1.2, pairs) * 200).astype(int), items - 1)
    rows = rng.integers(users, size=pairs)
    matrix = scipy.sparse.csr_matrix((np.ones(pairs, np.float32), (rows, popular)), shape=(users, items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    objective = Objective(0.3, 0.01, 1.0)
    factorize(matrix[:200], objective, factors=64, sweeps=1, quiet=True)
    started = time.perf_counter()
    made = factorize(matrix, objective, factors=64, sweeps=8, quiet=True)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "objective": loss(matrix, objective, made.users, made.items)}


def loss(matrix: scipy.sparse.csr_matrix, objective: Objective, users: np.ndarray, items: np.ndarray) -> float:
    """What the factorization minimises (Rendle et al., 2021), without priors."""
    found = matrix.tocoo()
    scores = np.einsum("nf,nf->n", users[found.row], items[found.col], dtype=np.float64)
    u, v = users.astype(np.float64), items.astype(np.float64)
    total = (found.data * (1 - scores) ** 2).sum() + objective.unobserved * np.sum((u.T @ u) * (v.T @ v))
    for side, factors_of, others in ((matrix, u, v), (matrix.T.tocsr(), v, u)):
        touched = int((np.abs(others).sum(axis=1) > 0).sum())
        total += (objective.ridge(np.diff(side.indptr), touched) * np.square(factors_of).sum(axis=1)).sum()
    return float(total)


def network(work: Path) -> dict[str, Any]:
    """The export of an untrained network in each provider that this onnxruntime has and that works here."""
    import onnxruntime

    from service.encoder.engines import available_providers, tensorrt_options
    from training.encoder.backbones import build
    from training.encoder.export import export

    torch.manual_seed(0)
    path = work / "network.onnx"
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 224, 224, 3), np.uint8)
    if not path.exists():
        export(build("mobilenet_v2", weights="none", dim=128), path, pictures=torch.from_numpy(pixels), ingredients={})
    there, found = available_providers(), {}
    for provider in PROVIDERS:
        if provider not in there:
            found[provider] = {"unavailable": f"onnxruntime {onnxruntime.__version__} was built without it"}
            continue
        options = tensorrt_options(path, precision="fp32", cache=work) if provider == TENSORRT else {}
        try:
            session = onnxruntime.InferenceSession(str(path), providers=[(provider, options)])
        except Exception as error:  # onnxruntime's errors have no common class
            found[provider] = {"unavailable": str(error)[:200]}
            continue
        if session.get_providers()[0] != provider:
            found[provider] = {"unavailable": "it fell back to the CPU: its libraries, or a GPU, are missing"}
            continue
        rates = {batch: _rate(lambda b=batch, s=session: s.run(["embeddings"], {"images": pixels[:b]})) * batch
                 for batch in BATCHES}  # fmt: skip
        vectors = session.run(["embeddings"], {"images": pixels})[0]
        found[provider] = {"rates": rates, "vectors": vectors.tolist()}
    return found


def service(work: Path) -> dict[str, Any]:
    """`vitrine serve` over the release, asked by CLIENTS at once: requests a second, and MiB held on the GPU."""
    from load import generate
    from load_requests import read_pictures, request_bytes

    from tests.processes import serve

    release, free = work / "releases" / "1", _free()
    with serve(release, work / f"service-{device()}", {"VITRINE_ENCODER": "onnxruntime"}) as served:
        pictures = read_pictures(work / "shop" / "images")
        url = f"http://{served.address}/recommend"
        requests = [request_bytes(url, picture, {}) for picture in pictures]
        load = generate(url, requests, seconds=4 * SECONDS, clients=CLIENTS)
        held = free - _free()
    if set(load.statuses) != {"200"} or load.lost:
        raise Unavailable(f"the service answered {load.statuses}, and lost {load.lost}")
    return {"mebibytes": held, "requests_a_second": load.rate}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    part.__name__: part for part in (encoder, factors, network, service)
}


def device() -> str:
    """What this process computes on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _free() -> float:
    """MiB free on the GPU; 0 without one."""
    return torch.cuda.mem_get_info()[0] / 2**20 if torch.cuda.is_available() else 0.0


def _rate(work: Callable[[], object]) -> float:
    """Calls a second."""
    work()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        work()
        calls += 1
    return calls / (time.perf_counter() - started)


def prepare(work: Path) -> None:
    """The drawn shop, and a release of it, both made on the CPU."""
    from training.demo import boutique

    boutique.write(work / "shop", **SHOP)
    command = [
        sys.executable, "-m", "training", "train", str(work / "shop"), "--releases", str(work / "releases"),
        "--backbone", "convnet", "--weights", "none", "--epochs", "1", "--image-size", "64",
    ]  # fmt: skip
    subprocess.run(command, check=True, env=_environment("cpu"), capture_output=True)


def ask(part: str, on: str, work: Path) -> dict[str, Any]:
    """Run one part in a process of its own. Raises Unavailable with what it said."""
    command = [sys.executable, __file__, "--part", part, "--work", str(work)]
    try:
        done = subprocess.run(command, env=_environment(on), capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"took more than {LIMIT} s") from error
    if done.returncode:
        raise Unavailable((done.stderr.strip() or done.stdout.strip())[-400:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _environment(on: str) -> dict[str, str]:
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if on == "cpu" else {}
    return {**os.environ, **hidden, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


Line = tuple[str, str, str, str, bool]  # part, CPU, GPU, what is compared, whether it is as it must be


def compare(part: str, cpu: dict[str, Any], gpu: dict[str, Any]) -> list[Line]:
    """Both figures of a part, side by side."""
    if part == "encoder":
        off = np.array(gpu["precision"]) - np.array(cpu["precision"])
        error = float(off.std() / len(off) ** 0.5)
        ratio = gpu["pictures_a_second"] / cpu["pictures_a_second"]
        said = f"{ratio:.1f} times as fast; precision@10 {np.mean(cpu['precision']):.3f} and "
        said += f"{np.mean(gpu['precision']):.3f}, differing by {off.mean():+.3f} ± {2 * error:.3f}"
        rates = (f"{each['pictures_a_second']:.0f} pictures/s" for each in (cpu, gpu))
        # two trainings differ by more than their queries do: .03 is what seeds alone were seen to make
        return [("encoder, training", *rates, said, bool(off.mean() > -max(2 * error, 0.03)))]
    if part == "factors":
        off = gpu["objective"] / cpu["objective"] - 1
        said = f"{cpu['seconds'] / gpu['seconds']:.1f} times as fast; objective {off:+.2%}"
        return [("factorization", f"{cpu['seconds']:.2f} s", f"{gpu['seconds']:.2f} s", said, off < SAME_OBJECTIVE)]
    if part == "service":
        ratio = gpu["requests_a_second"] / cpu["requests_a_second"]
        rates = (f"{each['requests_a_second']:.0f} requests/s" for each in (cpu, gpu))
        said = f"{ratio:.2f} times as many; it holds {gpu['mebibytes']:.0f} MiB of the GPU's memory"
        return [("service", *rates, said, gpu["mebibytes"] >= HELD)]
    return [line for name in PROVIDERS[:-1] for line in _provider(name, cpu[PROVIDERS[-1]], gpu[name])]


def _provider(name: str, cpu: dict[str, Any], gpu: dict[str, Any]) -> list[Line]:
    short = name.removesuffix("ExecutionProvider")
    if "unavailable" in gpu:
        return [(f"network, {short}", "", "", f"not run: {gpu['unavailable']}", True)]
    cosine = float(np.einsum("nd,nd->n", np.array(cpu["vectors"]), np.array(gpu["vectors"])).min())
    lines = []
    for batch in map(str, BATCHES):
        mine, theirs = gpu["rates"][batch], cpu["rates"][batch]
        said = f"{mine / theirs:.1f} times as fast; cosine {cosine:.5f}"
        rates = (f"{theirs:.0f} pictures/s", f"{mine:.0f} pictures/s")
        lines.append((f"network, {short}, batch {batch}", *rates, said, cosine >= SAME_VECTORS))
    return lines


def main() -> None:
    """Run every part, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="this one alone, on what is visible; prints JSON")
    parser.add_argument("--work", type=Path, help="folder for what is made; default: a new one")
    parser.add_argument("--json", type=Path, help="write the lines here as well")
    given = parser.parse_args()
    if given.part is not None:
        with contextlib.redirect_stdout(sys.stderr):
            found = PARTS[given.part](given.work)
        print(json.dumps(found))
        return
    console = Console()
    if not torch.cuda.is_available():
        sys.exit(
            f"there is no GPU here (torch {torch.__version__} sees none): {', '.join(PARTS)} were not compared. Run "
            "this on a machine with an NVIDIA GPU and its driver, in an environment of `make install EXTRA=gpu`"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(exist_ok=True)
        console.print("drawing a shop and training a release of it on the CPU")
        prepare(work)
        lines: list[Line] = []
        for part in PARTS:
            console.print(f"{part}, on the CPU and on the GPU")
            try:
                lines += compare(part, ask(part, "cpu", work), ask(part, "cuda", work))
            except Unavailable as error:
                lines.append((part, "", "", f"failed: {error}", False))
    table = Table("", "CPU", "GPU", "", title=torch.cuda.get_device_name())
    for name, cpu, gpu, said, right in lines:
        table.add_row(name, cpu, gpu, said if right else f"[red]{said}[/red]")
    console.print(table)
    if given.json is not None:
        given.json.write_text(json.dumps({"card": torch.cuda.get_device_name(), "lines": lines}, indent=1) + "\n")
    sys.exit(0 if all(right for *_, right in lines) else 1)


if __name__ == "__main__":
    main()
