"""The load generator as a process, and what it counted."""

import json
import subprocess
import sys
import time
from typing import Any

from servers import HERE, Server


def start(url: str, **options: Any) -> subprocess.Popen:
    """Start it; it prints what it counted. options: of benchmarks/load.py."""
    command = [sys.executable, str(HERE / "load.py"), url]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def generated(server: Server, **options: Any) -> dict[str, Any]:
    """What benchmarks/load.py counts."""
    output, _ = start(server.url, **options).communicate()
    found: dict[str, Any] = json.loads(output)
    return found


def measured(server: Server, **options: Any) -> dict[str, Any]:
    """What `generated` gives, with the server's CPU: milliseconds a request, and cores that it kept busy."""
    began, before = time.perf_counter(), server.cpu_seconds()
    found = generated(server, **options)
    spent = server.cpu_seconds() - before
    found["server_ms"] = 1000 * spent / max(1, sum(found["statuses"].values()))
    found["cores"] = spent / (time.perf_counter() - began)
    return found


def not_200(measured: dict[str, Any]) -> int:
    """Answers with another status, and those that did not come."""
    refused = sum(n for status, n in measured["statuses"].items() if status != "200")
    return refused + measured["lost"] + measured["unanswered"]
