"""The service runs where nothing that only training needs is installed."""

import subprocess
import sys

FORBIDDEN = ("torch", "torchvision", "pandas", "sklearn", "scikit-learn", "mlflow", "typer", "training")


def test_the_app_imports_none_of_what_training_needs() -> None:
    """`import service.app` works where those modules cannot be imported, and loads none of them."""
    program = f"""
import sys
for name in {FORBIDDEN!r}:
    sys.modules[name] = None
import service.app
loaded = [name for name in {FORBIDDEN!r} if sys.modules.get(name)]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
