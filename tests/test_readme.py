"""README and docs/ name only what exists, docs/cli.md is the help as it is, and .ci/run runs the README's test command.

`python tests/test_readme.py` writes docs/cli.md.
"""

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
REFERENCE = ROOT / "docs" / "cli.md"
PAGES = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page != REFERENCE)]
IN_A_WORD = re.compile(r"(?<![\w/.-])imgclf +([a-z]+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """The content of a page's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every imgclf command in a page's shell blocks, continued lines joined, and in its inline code."""
    shown = "\n".join(blocks(page, "console"))
    typed = [line[2:] for line in shown.splitlines() if line.startswith("$ ")]
    scripts = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    for line in typed + scripts + re.findall(r"`([^`\n]+)`", prose(page)):
        for part in re.split(r"&&|\||;", line.split(" #")[0]):
            words = part.split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables that are set for this command
                del words[0]
            if words[:1] == ["imgclf"]:
                yield words[1:]


def options_of(command: str | None) -> set[str]:
    """The option names of a command, or of `imgclf` itself."""
    group = typer.main.get_command(app)
    node = group if command is None else group.commands[command]
    return {name for parameter in node.params for name in parameter.opts} | {"--help", "-h"}


def help_of(command: str) -> str:
    """What `imgclf COMMAND --help-all` prints."""
    words = [sys.executable, "-m", "imgclf", command, "--help-all"]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}).stdout


def section_of(command: str) -> str:
    """The section of docs/cli.md about a command."""
    return f"\n## imgclf {command}\n\n```text\n{help_of(command)}```\n"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 200


def test_every_command_of_the_program_stands_in_the_docs():
    named = {words[0] for page in PAGES for words in command_lines(page) if words}
    assert named >= set(COMMANDS)


@every_page
def test_every_command_line_of_a_page_exists(page):
    for words in command_lines(page):
        command = words[0] if words and not words[0].startswith("-") else None
        assert command is None or command in COMMANDS, words
        named = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert named <= options_of(command), words


@every_page
def test_every_command_and_option_that_a_page_names_exists(page):
    for code in re.findall(r"`([^`]+)`", prose(page)):
        for command in IN_A_WORD.findall(code):
            assert command in COMMANDS, code
    everything = set().union(*(options_of(command) for command in (None, *COMMANDS)))
    assert set(OPTION.findall(prose(page))) <= everything


@every_page
def test_every_link_of_a_page_leads_somewhere(page):
    for target, anchor in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor[1:] in anchors(file), f"{target}{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    reached, open_ = set(), [README]
    while open_:
        page = open_.pop()
        reached.add(page)
        linked = [(page.parent / target).resolve() for target, _ in LINK.findall(prose(page)) if target]
        open_ += [file for file in linked if file.suffix == ".md" and file.is_file() and file not in reached]
    assert reached >= {REFERENCE, *PAGES}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_stands_in_the_docs_as_it_is(command):
    assert section_of(command) in REFERENCE.read_text(encoding="utf-8"), "run python tests/test_readme.py"


def test_the_docs_have_the_help_of_these_commands_alone():
    shown = re.findall(r"^## imgclf (.+)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == list(COMMANDS), "run python tests/test_readme.py"


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


if __name__ == "__main__":
    REFERENCE.write_text(
        "# Command line\n\nAll options of every command, as `imgclf COMMAND --help-all` prints them. "
        "`python tests/test_readme.py` writes this page.\n" + "".join(map(section_of, COMMANDS)),
        encoding="utf-8",
    )
