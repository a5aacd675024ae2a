"""Libraries that report what they are used for do not, once `service` is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import HOME
from tests.traced import bare_environment

# library -> says whether it would report
ASKED = {
    "bentoml": "from bentoml._internal.utils.analytics.usage_stats import do_not_track\nreports = not do_not_track()",
    "mlflow": "from mlflow.telemetry.utils import is_telemetry_disabled\nreports = not is_telemetry_disabled()",
    "openvino": "from openvino.tools.ovc.telemetry_utils import tm\nreports = tm.__name__ == 'openvino_telemetry'",
}


def reports(library: str, first: str, home: Path) -> bool:
    """Whether it would, in a process that imports this first."""
    program = f"import {first}\n{ASKED[library]}\nprint(reports)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=HOME, env=bare_environment() | {"HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {"True": True, "False": False}[done.stdout.splitlines()[-1]]


@pytest.mark.parametrize("library", ASKED)
def test_a_library_reports_nothing_after_service_was_imported(library: str, tmp_path: Path) -> None:
    """It would otherwise, here as well: no variable of a test or of CI silences it."""
    assert reports(library, "sys", tmp_path)
    assert not reports(library, "service", tmp_path)
