"""What the README tells people to type exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from training.cli.main import app

HOME = Path(__file__).parent.parent
PAGES = "".join((HOME / page).read_text() for page in ("README.md", "k8s/README.md"))
BLOCKS = re.findall(r"```(?:bash|console|sh)\n(.*?)```", PAGES, re.DOTALL)
COMMANDS = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def of(program: str) -> list[str]:
    return [command for command in COMMANDS if command.removeprefix(".venv/bin/").startswith(program)]


@pytest.mark.parametrize("command", of("make "))
def test_each_make_target_exists(command: str) -> None:
    """`make X` in the README is a target of the Makefile, and `make help` knows it."""
    for target in [word for word in shlex.split(command, comments=True)[1:] if "=" not in word]:
        assert re.search(rf"^{target}:.*## ", (HOME / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("command", of("vitrine "))
def test_each_vitrine_command_parses(command: str) -> None:
    """The verb exists and takes these options."""
    _, verb, *arguments = shlex.split(command, comments=True)
    group = typer.main.get_command(app)
    group.commands[verb].make_context(verb, arguments, resilient_parsing=False)  # type: ignore[attr-defined]


def test_the_first_command_stands_in_the_first_ten_lines() -> None:
    """A newcomer sees what to type before reading on."""
    head = (HOME / "README.md").read_text().splitlines()[:10]
    assert any("make serve" in line for line in head)


def test_every_module_stands_in_the_map() -> None:
    """The README's map of the project names each module."""
    readme = (HOME / "README.md").read_text()
    for package in ("service", "training"):
        for module in (HOME / package).glob("[a-z]*.py"):
            assert module.name in readme, module
