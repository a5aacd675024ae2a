"""What the documentation tells people to type works: each command is run, or parsed, or named here as neither."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from training.cli.main import app

HOME = Path(__file__).parent.parent
PAGES = [
    HOME / "README.md", HOME / "CONTRIBUTING.md", HOME / "k8s" / "README.md",
    *sorted((HOME / "docs").glob("*.md")), *sorted((HOME / "examples").glob("*.md")),
]  # fmt: skip
BLOCK = re.compile(r"```(?:bash|console|sh)\n(.*?)```", re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_]+=")
SEPARATORS = {"&&", "||", ";", "|"}
# programs whose commands are not run, and why; what else the tests know of them is checked below
NOT_RUN = {
    "export": "sets a variable for what follows it",
    ".": "activates the environment",
    "echo": "writes a pointer file; tests/service/serving does the same",
    "curl": "needs the running service; its paths are checked here, the same requests are sent in tests/service",
    "kubectl": "needs a cluster; its files are checked here",
    "mlflow": "starts a server; tests/processes.py starts the same",
}
# commands that a test runs
RUN = {
    "python examples/client.py": "tests/examples/test_clients.py",
    "node examples/client.mjs": "tests/examples/test_clients.py",
}


def commands(page: Path) -> list[list[str]]:
    """The words of each command in the shell blocks of a page, without variables that are set for it alone."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word not in SEPARATORS:
                    words.append(word)
                elif words:
                    found.append(words)
                    words = []
    return [_bare(words) for words in found]


def _bare(words: list[str]) -> list[str]:
    """Without the assignments before the program."""
    first = next(at for at, word in enumerate(words) if not ASSIGNMENT.match(word))
    return [words[first].removeprefix(".venv/bin/"), *words[first + 1 :]]


COMMANDS = sorted({shlex.join(words) for page in PAGES for words in commands(page)})


def of(program: str) -> list[str]:
    """The commands of one program."""
    return [command for command in COMMANDS if shlex.split(command)[0] == program]


def test_each_command_is_run_or_parsed_or_named_as_neither() -> None:
    """A page cannot tell people to type what no test here knows."""
    checked = {"make", "vitrine", "pytest", *NOT_RUN}
    known = [c for c in COMMANDS if shlex.split(c)[0] in checked or any(c.startswith(run) for run in RUN)]
    assert sorted(set(COMMANDS) - set(known)) == []


def test_each_exception_is_needed() -> None:
    """What is named as not run, or as run elsewhere, stands in some page."""
    assert all(of(program) for program in NOT_RUN)
    for command, where in RUN.items():
        assert any(each.startswith(command) for each in COMMANDS)
        assert Path(command.split()[1]).name in (HOME / where).read_text()


@pytest.mark.parametrize("command", of("make"))
def test_each_make_target_exists(command: str) -> None:
    """`make X` is a target of the Makefile, and `make help` knows it."""
    for target in [word for word in shlex.split(command)[1:] if "=" not in word]:
        assert re.search(rf"^{target}:.*## ", (HOME / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("command", of("vitrine"))
def test_each_vitrine_command_parses(command: str) -> None:
    """The verb exists and takes these options."""
    _, verb, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    group.commands[verb].make_context(verb, arguments, resilient_parsing=False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", of("pytest"))
def test_each_folder_of_tests_exists(command: str) -> None:
    """`pytest FOLDER` finds something to run."""
    for path in shlex.split(command)[1:]:
        assert any((HOME / path).rglob("test_*.py")), path


@pytest.mark.parametrize("command", of("curl"))
def test_each_url_is_a_route(command: str) -> None:
    """What curl asks stands in the table of routes, which is written from the service's own document."""
    (path,) = re.findall(r"http://127\.0\.0\.1:3000(/[^\s?]*)", command)
    words = shlex.split(command)
    method = "POST" if {"-F", "-d"} & set(words) else "GET"
    if "-X" in words:
        method = words[words.index("-X") + 1]
    routes = re.findall(r"\| `([A-Z]+) (\S+)` \|", (HOME / "docs" / "http.md").read_text())
    known = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)) for how, route in routes if how == method]
    assert any(re.fullmatch(route, path) for route in known), f"{method} {path}"


@pytest.mark.parametrize("command", of("kubectl"))
def test_each_manifest_exists(command: str) -> None:
    """What kubectl applies is in the repository."""
    for path in re.findall(r"k8s/\S+", command):
        assert (HOME / path).exists(), path


def test_the_first_commands_stand_in_the_first_ten_lines() -> None:
    """A newcomer sees what to type before reading on."""
    head = (HOME / "README.md").read_text().splitlines()[:10]
    for command in ("make serve", "make ask", "make test"):
        assert any(line.startswith(command) for line in head), command


def test_the_readme_fits_a_few_screens() -> None:
    """What needs more room has a page of its own in docs/."""
    assert len((HOME / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("folder", ["service", "training"])
def test_each_package_says_what_it_is(folder: str) -> None:
    """The tree explains itself: the __init__.py of every folder begins with a docstring."""
    packages = {module.parent for module in (HOME / folder).rglob("*.py")}
    silent = [
        str(package.relative_to(HOME))
        for package in packages
        if not (package / "__init__.py").exists() or not (package / "__init__.py").read_text().startswith('"""')
    ]
    assert sorted(silent) == []
