"""Does a candidate in the shadow slow production? p99 with and without one, in turn, at half load.

    python benchmarks/shadow.py releases/1 --pictures demo/images                       # a copy as the candidate
    python benchmarks/shadow.py releases/1 --candidate releases/2 --pictures demo/images

The same service is started twice, once with every query also asked of the candidate (VITRINE_CANDIDATE_SHARE=1). One
sleeps while the other is measured. Arrivals are random (Poisson), at half of what the plain service answers in a closed
loop; each pair has the same arrivals. Printed: the ratio of the p99 of each pair, their median, and the share of the
shadow's queries that it answered.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from servers import Server, vitrine
from serving import Bench

SETTLE = 10.0  # seconds that the shadow has to answer what still waits


def main() -> None:
    """Print a line a pair, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--candidate", type=Path, help="with another encoder it costs more; default: a copy")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    bench = Bench(asked.pictures, asked.seconds)
    with ExitStack() as started:
        work = started.enter_context(tempfile.TemporaryDirectory())
        candidate = (asked.candidate or shutil.copytree(asked.release, Path(work) / asked.release.name)).resolve()
        shadow = {"VITRINE_CANDIDATE": str(candidate), "VITRINE_CANDIDATE_SHARE": "1"}
        plain = started.enter_context(vitrine(asked.release, Path(work), encoder=None, name="plain"))
        shadowed = started.enter_context(vitrine(asked.release, Path(work), encoder=None, name="shadowed", **shadow))
        _wait_for_candidate(shadowed, candidate.name)
        servers = (plain, shadowed)
        for server in servers:
            server.sleep()
        with plain.awake():
            bench.measure(plain, seconds=3, clients=8)  # warm
            rate = bench.measure(plain, seconds=5, clients=8)["rate"] / 2
        with shadowed.awake():
            bench.measure(shadowed, seconds=3, clients=8)
            time.sleep(SETTLE)
            before = _counts(shadowed)
        print(f"half load: {rate:.0f} requests a second")
        ratios = []
        for pair in range(asked.pairs):
            p99 = {}
            for server in servers if pair % 2 else servers[::-1]:
                with server.awake():
                    p99[server.name] = bench.measure(server, rate=rate, seed=pair)["p99"]
                    if server is shadowed:
                        time.sleep(SETTLE)
            ratios.append(p99["shadowed"] / p99["plain"])
            print(f"p99 plain {p99['plain']:.1f} ms, with a shadow {p99['shadowed']:.1f} ms, ratio {ratios[-1]:.3f}")
        with shadowed.awake():
            counts = {name: value - before[name] for name, value in _counts(shadowed).items()}
    executed = counts["answered"] / max(1, sum(counts.values()))
    print(json.dumps({"rate": rate, "ratios": ratios, "median": statistics.median(ratios), "executed": executed}))


def _counts(server: Server) -> dict[str, float]:
    found = {}
    for outcome in ("answered", "failed", "left_out"):
        try:
            found[outcome] = server.gauge(f'vitrine_shadow_queries_total{{outcome="{outcome}"}}')
        except ValueError:  # none yet
            found[outcome] = 0.0
    return found


def _wait_for_candidate(server: Server, number: str) -> None:
    name = f'vitrine_candidate{{mode="shadow",release="{number}",state="running"}}'
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            server.gauge(name)
            return
        except ValueError:
            time.sleep(0.2)
    raise SystemExit(f"candidate {number} does not run; its log: {server.url}")


if __name__ == "__main__":
    main()
