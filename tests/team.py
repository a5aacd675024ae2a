"""Who types `vitrine` in a shell."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import HOME

# a training that takes a few seconds
QUICK = ("--backbone", "convnet", "--weights", "none", "--dim", "32", "--epochs", "3", "--image-size", "96",
         "--learning-rate", "0.003", "--last-layer-steps", "400", "--factors", "8", "--sweeps", "3")  # fmt: skip


class Team:
    """One who has a folder of releases, and a registry in it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.releases = folder, folder / "releases"
        self.environment = {**os.environ, **environment}
        self.took: dict[str, float] = {}  # seconds, of the last whole run of each verb

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "training", *map(str, arguments), "--releases", str(self.releases)]

    def run(self, *arguments: object, code: int = 0) -> str:
        """What it prints; the exit code must be this."""
        began = time.monotonic()
        done = subprocess.run(
            self.command(*arguments), cwd=HOME, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.took[str(arguments[0])] = time.monotonic() - began
        return done.stdout + (done.stderr if code else "")

    def kill(self, *arguments: object, after: float) -> bool:
        """SIGKILL after so many seconds; whether it came before the end."""
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            self.command(*arguments), cwd=HOME, env=self.environment, stdout=quiet, stderr=quiet, start_new_session=True
        ) as process:
            began = time.monotonic()
            try:
                process.wait(after)
                self.took[str(arguments[0])] = time.monotonic() - began  # the machine has become faster
                return False
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return True
