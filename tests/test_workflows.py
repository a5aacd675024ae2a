"""The workflows call make targets alone, which exist."""

import re
from pathlib import Path

import pytest
import yaml

from tests.processes import HOME

WORKFLOWS = sorted((HOME / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (HOME / "Makefile").read_text(), flags=re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_nothing_but_make(path: Path) -> None:
    """What is run there can be run here, by the same name; and nothing that a stranger wrote is put into a shell."""
    text = path.read_text()
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands
    for command in commands:
        words = command.split()
        assert words[0] == "make"
        assert set(words[1:]) <= TARGETS
        assert "${{" not in command


def test_the_checks_of_a_push_are_those_of_ci() -> None:
    """`.ci/run` calls what the workflow calls."""
    ci = (HOME / ".ci" / "run").read_text()
    steps = yaml.safe_load((HOME / ".github" / "workflows" / "check.yml").read_text())["jobs"]["check"]["steps"]
    for step in steps:
        assert step.get("run", "") in ci
