"""What real processes do, by the kernel's account: whom they connect to, and where they write."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.processes import HOME, wait_until

STRACE = shutil.which("strace")
CALLS = "connect,sendto,sendmsg,sendmmsg,"
CALLS += "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat,link,linkat"
CONNECTED = re.compile(
    r'(?:connect|send(?:to|m?msg))\(.*?sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?"([0-9a-f.:]+)"'
)
NAME_SERVER = "53"  # port: whoever asks it wants an address elsewhere, also where it runs on this machine
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|^\d+ +(?:creat|mkdir|rename|symlink|link)")
NAMED = re.compile(r'"([^"]*)"')
NO_FILES = ("/dev/", "/proc/", "/sys/", "pipe:")
COMPILED = "/__pycache__"  # of our code, beside it: Python's and numba's
# Nothing else: several libraries report nothing where a variable says that they are in a test or in CI.
KEPT = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")

needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed: apt-get install strace")


def bare_environment() -> dict[str, str]:
    """What every process needs, and nothing that tells a library to be silent."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


@dataclass(frozen=True)
class Traced:
    """folder: that the process may write to; log: what strace wrote."""

    folder: Path
    log: Path

    def connections(self) -> set[str]:
        """address:port of each that is not this machine, and of each name server."""
        found = CONNECTED.findall(self.log.read_text(errors="replace"))
        own = re.compile(r"127\.|::1$|0\.0\.0\.0$|::$")
        return {f"{host}:{port}" for port, host in found if port == NAME_SERVER or not own.match(host)}

    def written(self) -> set[str]:
        """Files outside the folder that were opened for writing, made, or given a name."""
        found = set()
        for line in self.log.read_text(errors="replace").splitlines():
            if WRITES.search(line) and " = -1 " not in line and (names := NAMED.findall(line)):
                path = os.path.normpath(HOME / names[-1])
                own = Path(path).is_relative_to(self.folder)
                if not own and not path.startswith(NO_FILES) and COMPILED not in path:
                    found.add(path)
        return found


@contextmanager
def tracing(folder: Path, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen, Traced]]:
    """Python with these arguments, in a home folder and a temporary folder of its own."""
    assert STRACE is not None
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    log = folder / "strace.log"
    environment = bare_environment() | {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [STRACE, "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e", f"trace={CALLS}", "-o", log]
    command += [sys.executable, *arguments]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            list(map(str, command)), cwd=HOME, env=bare_environment() | environment, stdout=output, stderr=output
        )
        try:
            yield process, Traced(folder, log)
        finally:
            for child in psutil.Process(process.pid).children() if process.poll() is None else ():
                child.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def run_traced(folder: Path, *arguments: str | Path) -> Traced:
    """The same until it has ended, well: `-m training` and a verb, or another program."""
    with tracing(folder, *arguments) as (process, traced):
        assert process.wait(timeout=600) == 0, (folder / "output").read_text()[-3000:]
    return traced


def serve_traced(folder: Path, *arguments: str | Path, ready: Callable[[], bool], use: Callable[[], None]) -> Traced:
    """`vitrine serve`, used and ended."""
    with tracing(folder, "-m", "training", "serve", *arguments) as (process, traced):
        wait_until(lambda: process.poll() is not None or ready(), seconds=120)
        assert process.poll() is None, (folder / "output").read_text()[-3000:]
        use()
    return traced
