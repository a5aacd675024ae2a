"""What is declared in two places says the same in both."""

import tomllib
from pathlib import Path

import yaml

HOME = Path(__file__).parent.parent


def test_the_bento_installs_what_the_project_declares() -> None:
    """bentofile.yaml's packages are the service's dependencies and the extra `cpu`: no torch, no pandas."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    bento = yaml.safe_load((HOME / "bentofile.yaml").read_text())
    assert bento["python"]["packages"] == project["dependencies"] + project["optional-dependencies"]["cpu"]
