"""Nothing is reported to anybody. `service` imports this first, before the libraries that would.

BentoML, MLflow and onnxruntime ask an environment variable. OpenVINO asks nobody: its converter, which its import
loads, sends what it did to an analytics service, with an id that it keeps in the home folder, unless its telemetry
package cannot be imported; it then takes a stub of its own.
"""

import os
import sys
from typing import Any

SETTINGS = {
    "BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}  # fmt: skip

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
modules: dict[str, Any] = sys.modules
modules.setdefault("openvino_telemetry", None)
