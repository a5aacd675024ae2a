"""What benchmarks/serving.py found: as tables, as JSON, Markdown and a plot in results/."""

import json
import math
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load_process import not_200
from rich.table import Table

from service.encoder.selection import available_cpus

SERVERS = ("vitrine", "glued", "litserve")
COLOURS = {"vitrine": "#0b7285", "glued": "#e8590c", "litserve": "#7048e8"}
DASHES = {"p50": "", "p90": "6 3", "p99": "2 3"}
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
LIBRARIES = ("bentoml", "fastapi", "litserve", "uvicorn", "onnxruntime", "openvino", "faiss-cpu", "hnswlib", "numpy")


def describe_machine() -> dict[str, Any]:
    """The processor, what matters of it for int8, the libraries, and how busy it was when the run began."""
    facts = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().replace("\t", "").splitlines() if ":" in line
    )
    present = set(facts["flags"].split())
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": facts["model name"].strip(),
        "cores": available_cpus(),
        "flags": [flag for flag in FLAGS if flag in present],
        "load_average": os.getloadavg()[0],
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """A table for each part that was measured."""
    made: dict[str, Callable[[dict[str, Any]], Table]] = {
        "closed": _closed_table, "open": _open_table, "overload": _overload_table,
    }  # fmt: skip
    return [make(found[part]) for part, make in made.items() if part in found]


def _closed_table(closed: dict[str, Any]) -> Table:
    table = Table(
        "clients", "server", "a second", "ours is", "of the bare loop", "by CPU", "p50 ms", "p90 ms", "p99 ms",
        "server CPU ms", "generator CPU ms", "RSS MiB", "not 200", "cores others took",
        title="Closed loop, the best of the rounds",
    )  # fmt: skip
    for clients in sorted({each["clients"] for each in closed["rounds"]}):
        rounds = [each for each in closed["rounds"] if each["clients"] == clients]
        bare = max((each["bare"] for each in rounds), key=lambda found: found["rate"])
        best = {server: max((each[server] for each in rounds), key=lambda found: found["rate"]) for server in SERVERS}
        table.add_row(str(clients), "bare encoder", f"{bare['rate']:.1f}", *[""] * 6, f"{bare['cpu_ms']:.1f}")
        for server, measured in best.items():
            spent = measured["server_ms"] + measured["generator_ms"]
            table.add_row(
                "", server, f"{measured['rate']:.1f}", f"x {best['vitrine']['rate'] / measured['rate']:.2f}",
                f"{measured['rate'] / bare['rate']:.2f}", f"{bare['cpu_ms'] / spent:.2f}",
                *(f"{measured[name]:.1f}" for name in DASHES),
                f"{measured['server_ms']:.1f}", f"{measured['generator_ms']:.2f}", f"{measured['rss']:.0f}",
                str(not_200(measured)), f"{measured['others']:.1f}",
            )  # fmt: skip
    return table


def _open_table(opened: dict[str, Any]) -> Table:
    table = Table(
        "load", "server", "arrivals a second", "answered", "not answered", "p50 ms", "p90 ms", "p99 ms",
        "p50 / alone", "p99 / alone", "cores others took",
        title=f"Open loop, at shares of our peak of {opened['peak']:.1f} a second",
    )  # fmt: skip
    for each in opened["loads"]:
        for server in SERVERS:
            measured, alone = each[server], opened["alone"][server]
            table.add_row(
                f"{100 * each['load']:.0f} %" if server == SERVERS[0] else "", server,
                f"{each['load'] * opened['peak']:.1f}", str(measured["statuses"].get("200", 0)),
                str(not_200(measured)), *(f"{measured[name]:.1f}" for name in DASHES),
                f"{measured['p50'] / alone:.1f}", f"{measured['p99'] / alone:.1f}", f"{measured['others']:.1f}",
            )  # fmt: skip
    return table


def _overload_table(overload: dict[str, Any]) -> Table:
    before, during, after, memory = (overload[name] for name in ("before", "during", "after", "memory"))
    table = Table("measure", "value", title=f"Overload: 200 clients for {during['seconds']:.0f} s")
    statuses = ", ".join(f"{n} x {status}" for status, n in during["statuses"].items())
    settled = memory[min(10, len(memory) - 1)]
    for name, value in (
        ("answers", statuses),
        ("connections lost", str(during["lost"])),
        ("answered a second", f"{during['rate']:.1f}"),
        ("latency p50, p99, longest", f"{during['p50']:.0f}, {during['p99']:.0f}, {during['longest']:.0f} ms"),
        ("most that waited in the queue", f"{max(overload['waiting']):.0f}" if overload["waiting"] else "not counted"),
        ("RSS before, after 10 s, at the end", f"{before['rss']:.0f}, {settled:.0f}, {memory[-1]:.0f} MiB"),
        ("8 clients before, and a second after", f"{before['rate']:.1f}, {after['rate']:.1f} a second"),
        ("speed again", f"{after['rate'] / before['rate']:.2f}"),
    ):
        table.add_row(name, value)
    return table


def write(stem: Path, found: dict[str, Any]) -> list[Path]:
    """Write stem.json, .md and, of an open loop, .svg. Parts measured by an earlier run stay, each with its date."""
    stem.parent.mkdir(exist_ok=True)
    kept = stem.with_suffix(".json")
    found = (json.loads(kept.read_text()) if kept.exists() else {}) | found
    kept.write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(_markdown(stem.name, found))
    written = [kept, stem.with_suffix(".md")]
    if "open" in found:
        written.append(stem.with_suffix(".svg"))
        written[-1].write_text(plot(found["open"]))
    return written


def _markdown(name: str, found: dict[str, Any]) -> str:
    lines = [f"# {name}", "", "Written by `benchmarks/serving.py`.", ""]
    for part, table in zip((p for p in ("closed", "open", "overload") if p in found), tables(found), strict=True):
        machine = found[part]["machine"]
        rows = zip(*(list(column.cells) for column in table.columns), strict=True)
        lines += [f"## {table.title}", ""]
        lines += [f"| {' | '.join(str(column.header) for column in table.columns)} |"]
        lines += [f"|{' --- |' * len(table.columns)}"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
        servers = "; ".join(f"{server}: {detail}" for server, detail in found[part]["servers"].items())
        alike = ", ".join(f"{server} {share:.2f}" for server, share in found[part]["alike"].items())
        libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
        lines += [
            "",
            f"{machine['when']}, {machine['cores']} cores of {machine['cpu']} ({', '.join(machine['flags'])}), "
            f"load average {machine['load_average']:.1f} as it began. {servers}. Same items as ours: {alike}. "
            f"{libraries}.",
            "",
        ]
        if part == "open":
            lines += [f"![Latency against load]({name}.svg)", ""]
    return "\n".join(lines)


def plot(opened: dict[str, Any]) -> str:
    """Latency percentiles against load, as SVG: a colour a server, a dash a percentile."""
    width, height, left, right, top, bottom = 720, 420, 60, 120, 30, 40
    loads = [each["load"] for each in opened["loads"]]
    values = [each[server][name] for each in opened["loads"] for server in SERVERS for name in DASHES]
    known = [value for value in values if math.isfinite(value)]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))

    def x(load: float) -> float:
        return left + (load - loads[0]) / (loads[-1] - loads[0]) * (width - left - right)

    def y(latency: float) -> float:
        return height - bottom - (math.log10(latency) - low) / (high - low) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18">Latency (ms) against load, as a share of our peak of {opened["peak"]:.0f} a second'
        "</text>",
    ]
    for power in range(low, high + 1):
        parts.append(f'<path d="M{left} {y(10**power):.1f}H{width - right}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{left - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:g}</text>')
    parts += [f'<text x="{x(at):.1f}" y="{height - 16}" text-anchor="middle">{100 * at:.0f} %</text>' for at in loads]
    for server in SERVERS:
        for name, dashes in DASHES.items():
            points = [(x(each["load"]), each[server][name]) for each in opened["loads"]]
            parts.append(_line([(at, y(value)) for at, value in points if math.isfinite(value)], server, dashes))
    for place, server in enumerate(SERVERS):
        for line, (name, dashes) in enumerate(DASHES.items()):
            at = top + 20 + 60 * place + 16 * line
            parts.append(_line([(width - right + 10, at - 4), (width - right + 34, at - 4)], server, dashes))
            parts.append(f'<text x="{width - right + 40}" y="{at}">{server} {name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(points: Sequence[tuple[float, float]], server: str, dashes: str) -> str:
    path = " ".join(f"{at:.1f},{height:.1f}" for at, height in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[server]}" stroke-width="2" '
        f'stroke-dasharray="{dashes or "none"}"/>'
    )
