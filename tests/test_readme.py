"""The README names only what exists, and the continuous checks run its test command."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from imgclf.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
IN_A_WORD = re.compile(r"(?<![\w/.-])imgclf +([a-z]+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
HELP = r"(^<!-- help of {command} -->\n```text\n)(.*?)(^```$)"


def blocks(language: str) -> list[str]:
    """The content of the README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines() -> Iterator[list[str]]:
    """The words of every imgclf command in the README's shell blocks, continued lines joined."""
    shown = "\n".join(blocks("console"))
    typed = [line[2:] for line in shown.splitlines() if line.startswith("$ ")]
    for line in typed + "\n".join(blocks("bash")).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\||;", line.split(" #")[0]):
            words = part.split()
            if words[:1] == ["imgclf"]:
                yield words[1:]


def options_of(command: str | None) -> set[str]:
    """The option names of a command, or of `imgclf` itself."""
    group = typer.main.get_command(app)
    node = group if command is None else group.commands[command]
    return {name for parameter in node.params for name in parameter.opts} | {"--help", "-h"}


def help_of(command: str) -> str:
    """What `imgclf COMMAND --help` prints."""
    words = [sys.executable, "-m", "imgclf", command, "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}).stdout


def test_every_command_of_the_program_stands_in_the_readme():
    assert {words[0] for words in command_lines()} >= set(COMMANDS)


def test_every_command_line_of_the_readme_exists():
    for words in command_lines():
        command = words[0] if not words[0].startswith("-") else None
        assert command is None or command in COMMANDS, words
        named = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert named <= options_of(command), words


def test_every_command_and_option_that_the_text_names_exists():
    text = README.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", prose):
        for command in IN_A_WORD.findall(code):
            assert command in COMMANDS, code
    everything = set().union(*(options_of(command) for command in (None, *COMMANDS)))
    assert set(OPTION.findall(prose)) <= everything


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_stands_in_the_readme_as_it_is(command):
    shown = re.search(HELP.format(command=command), README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown and shown[2] == help_of(command), "run python tests/test_readme.py"


def test_the_continuous_checks_run_the_readmes_test_command():
    marked = re.search(r"^<!-- test command -->\n```bash\n(.*?)\n```\n<!-- end -->$", README.read_text(), re.M | re.S)
    assert marked and marked[1] == "pip install -e '.[dev]' && pytest"
    extraction = next(
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("test_command=")
    )
    printed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{extraction}; printf %s "$test_command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == marked[1]


def test_the_version_of_python_in_the_readme_is_the_packages():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11,<3.14"
    assert "Python 3.11 to 3.13" in README.read_text(encoding="utf-8")


if __name__ == "__main__":  # python tests/test_readme.py writes the help texts of today into the README
    text = README.read_text(encoding="utf-8")
    for name in COMMANDS:
        whole = re.compile(HELP.format(command=name), re.MULTILINE | re.DOTALL)
        text = whole.sub(rf"\g<1>{help_of(name)}\g<3>", text)
    README.write_text(text, encoding="utf-8")
