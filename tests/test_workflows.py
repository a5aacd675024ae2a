"""The workflows call make targets alone, which exist."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.processes import HOME

WORKFLOWS = {path.stem: path for path in (HOME / ".github" / "workflows").iterdir()}
MAKEFILE = (HOME / "Makefile").read_text()
PHONY = {name for line in re.findall(r"^\.PHONY: *(.*)$", MAKEFILE, re.M) for name in line.split()}
RULES = set(re.findall(r"^([a-z0-9-]+):(?!=).*?## ", MAKEFILE, re.M))


def commands(workflow: str) -> list[str]:
    """What its steps run."""
    jobs = yaml.safe_load(WORKFLOWS[workflow].read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def targets(command: str) -> list[str]:
    """Those of `make`, which are all that it may say. AssertionError for anything else, and for a name that make would
    not know, or would take for a file."""
    program, *named = command.split()
    assert program == "make", command
    assert named, "make alone lists its targets and does nothing"
    assert set(named) <= RULES & PHONY, f"{command}: no such target"
    return named


@pytest.mark.parametrize("workflow", ["check", "promote", "release"])
def test_a_workflow_runs_nothing_but_make(workflow: str) -> None:
    """What is run there can be run here, by the same name, as make itself says; and nothing that a stranger wrote is
    put into a shell."""
    assert commands(workflow)
    for command in commands(workflow):
        asked = ["make", "--dry-run", "--file", HOME / "Makefile", *targets(command)]
        done = subprocess.run(asked, cwd=HOME, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_no_workflow_is_left_out() -> None:
    """Each of the folder is looked at above."""
    assert set(WORKFLOWS) == {"check", "promote", "release"}


@pytest.mark.parametrize(
    "command", ["make", "make tests", "make PORT=1", "make -C x test", "make test; id", "id", "make k8s"]
)
def test_what_is_no_target_is_found(command: str) -> None:
    """No target, one that is none, a variable, an option, more than make, or the name of a folder."""
    with pytest.raises(AssertionError):
        targets(command)


def test_the_checks_of_a_push_are_those_of_ci() -> None:
    """`.ci/run` calls what the workflow calls, each as a line of its own, in the same order."""
    lines = (HOME / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line in commands("check")] == commands("check") != []


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
