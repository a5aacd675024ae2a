"""The workflows call make targets alone, which exist."""

import re
import subprocess
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


ENGINES = {
    "podman": '[ "$1" = push ] && printf sha256:{digest} > "$3"',
    "docker": '[ "$1" = push ] || printf "other.example/shop@sha256:{other}\\n{name}@sha256:{digest}\\n"',
}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_is_known_by_the_digest_that_its_push_gave(engine: str, tmp_path: Path) -> None:
    """Stands in for an engine and a registry: podman tells another digest before the push, docker those of every
    repository. Before a push there is none to say."""
    name, digest = "example.com/shop/vitrine", "a1" * 32
    program = tmp_path / engine
    said = ENGINES[engine].replace("{digest}", digest).replace("{other}", "b2" * 32).replace("{name}", name)
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "vitrine-7.image").write_text(f"{name}:7-1a2b3c4d\n")
    command = ["make", "--silent", "--file", HOME / "Makefile", f"ENGINE={program}", f"IMAGE={name}", "RELEASE=7"]
    early = subprocess.run([*command, "image-reference"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert early.returncode != 0
    assert "was not pushed" in early.stderr
    subprocess.run([*command, "push"], cwd=tmp_path, capture_output=True, check=True)
    done = subprocess.run([*command, "image-reference"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{name}:7-1a2b3c4d@sha256:{digest}\n"
