"""README and docs/ name only what exists, their commands and scripts run, docs/cli.md is the help as it is, and .ci/run
runs the README's test command.

`python tests/test_readme.py` writes docs/cli.md, and the list of modules in docs/architecture.md. With `--tour` it also
runs the commands of all console blocks and writes what they print.
"""

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from imgclf.cli.app import COMMANDS, app
from imgclf.data.doctor import KINDS
from imgclf.policies import OPERATIONS
from imgclf.settings import preprocessing

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "cli.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MODULES = re.compile(r"(?<=^<!-- modules -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
REWRITE = "run python tests/test_readme.py"
PAGES = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page != REFERENCE)]
IN_A_WORD = re.compile(r"(?<![\w/.-])imgclf +([a-z]+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")

NOT_RUN = re.compile(r"^<!-- not run: (?P<why>.+) -->\n```.*?^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(
    r"^(?P<varies><!-- varies -->\n)?```(?P<language>bash|console|python)\n(?P<code>.*?)^```$", re.M | re.S
)
NEVER = re.compile(
    r"\b(anew|artefact|behaviour|catalogue|centre|colour|going on|grey|initialis|labelled|neighbour|normalis|optimis"
    r"|picture|quantis|recognis|right answer|side of the split|so many|strange|stands? still)",
    re.IGNORECASE,
)
"""British spelling, and words for which the field has others."""
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

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
    """The option names of a command, or of `imgclf` itself; without former names, which no page should name."""
    group = typer.main.get_command(app)
    node = group if command is None else group.commands[command]
    former = node.listing.former if command else set()
    return {name for parameter in node.params for name in parameter.opts} - former | {"--help", "-h"}


def help_of(command: str) -> str:
    """What `imgclf COMMAND --help-all` prints."""
    words = [sys.executable, "-m", "imgclf", command, "--help-all"]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}).stdout


def section_of(command: str) -> str:
    """The section of docs/cli.md about a command."""
    return f"\n## imgclf {command}\n\n```text\n{help_of(command)}```\n"


def modules() -> str:
    """The section of docs/architecture.md that lists every package with its modules and their first sentences."""
    lines = []
    packages = [ROOT / "imgclf", *sorted(file.parent for file in (ROOT / "imgclf").glob("*/**/__init__.py"))]
    for package in packages:
        name = ".".join(package.relative_to(ROOT).parts)
        lines += [
            f"\n### {name}\n",
            f"{first_sentence(package / '__init__.py')}\n",
            "| module | content |",
            "|---|---|",
        ]
        files = sorted(file for file in package.glob("*.py") if file.name != "__init__.py")
        lines += [f"| `{file.stem}` | {first_sentence(file)} |" for file in files]
    return "\n".join(lines) + "\n\n"


def first_sentence(file: Path) -> str:
    """What a module's docstring begins with."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()))[0].replace("|", "\\|")


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


@pytest.mark.parametrize("page", [*PAGES, REFERENCE], ids=lambda page: page.name)
def test_a_page_is_written_in_the_words_of_the_field(page):
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"`[^`\n]+`", "", text if page == REFERENCE else prose(page))  # names of code are as they are
    assert [line for line in plain.splitlines() if NEVER.search(line)] == []


def test_the_docs_list_the_operations_of_augmentation():
    page = (ROOT / "docs" / "augmentation.md").read_text(encoding="utf-8")
    listed = re.search(r"^The operations are (.*?)\.", page, re.MULTILINE | re.DOTALL)
    assert listed and re.findall(r"`(.+?)`", listed[1]) == list(OPERATIONS)


def test_the_docs_list_the_steps_of_preprocessing():
    page = (ROOT / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    listed = re.findall(r"`([a-z]+)(?:=[XN])?`", "\n".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)))
    assert listed == list(preprocessing.KINDS)


@every_page
def test_every_link_of_a_page_leads_somewhere(page):
    for target, anchor in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor[1:] in anchors(file), f"{target}{anchor}"


@every_page
def test_every_file_of_the_project_that_a_page_names_exists(page):
    for name in re.findall(r"`((?:imgclf|docs|tests)/[^`\s]*)`", prose(page)):
        assert "NAME" in name or (ROOT / name).exists(), name


def test_the_drawing_of_the_architecture_has_every_package():
    drawing = re.search(r"^```\n(.*?)^```$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert drawing
    drawn = {name for line in drawing[1].splitlines() for name in re.findall(r"(?:^|   )([a-z]+)(?=  )", line)}
    there = {file.stem for file in (ROOT / "imgclf").glob("*.py")} - {"__init__", "__main__"}
    assert drawn == there | {file.parent.name for file in (ROOT / "imgclf").glob("*/__init__.py")}


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
    assert section_of(command) in REFERENCE.read_text(encoding="utf-8"), REWRITE


def test_the_docs_have_the_help_of_these_commands_alone():
    shown = re.findall(r"^## imgclf (.+)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == list(COMMANDS), REWRITE


def test_the_docs_list_the_findings_of_the_doctor():
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \| (error|warning|note) \|", page, re.MULTILINE) == [
        (name, kind.severity) for name, kind in KINDS.items()
    ]


@pytest.fixture(scope="session")
def data_of_the_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands of the docs take: images, tables and trained runs."""
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    for label, color in (("ant", (200, 60, 50)), ("bee", (220, 180, 40))):
        for number in range(24):
            pixels = rng.integers(0, 120, (48, 48, 3)) + np.array(color) // 2
            for path in (
                f"photos/{label}/plant{number % 8}-{number}.jpg",
                f"visits/{label}/visit{number % 8}/{number}.jpg",
            ):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
    photos = sorted((folder / "photos").rglob("*.jpg"))
    rows = [(str(path.relative_to(folder)), path.parent.name, path.stem.split("-")[0]) for path in photos]
    tables = {
        "labels.csv": [("file", "species", "patient"), *rows],
        "corrected.csv": [("path", "label"), ("ant/plant0-0.jpg", "bee")],
        "map.csv": [("old", "new"), ("ant", "insect of the ground"), ("bee", "insect of the air")],
    }
    for name, lines in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
    (folder / "inbox").mkdir()
    shutil.copytree(folder / "photos" / "ant", folder / "more")
    shutil.copyfile(photos[0], folder / "photo.jpg")
    coco = folder / "coco" / "annotations" / "instances_train2017.json"
    coco.parent.mkdir(parents=True)
    shutil.copytree(folder / "photos", folder / "coco", dirs_exist_ok=True)
    names = [str(path.relative_to(folder / "photos")) for path in photos]
    boxes = [
        {"id": n, "image_id": n, "category_id": name.startswith("bee"), "bbox": [4, 4, 32, 32], "iscrowd": 0}
        for n, name in enumerate(names)
    ]
    content = {
        "images": [{"id": n, "file_name": name, "width": 48, "height": 48} for n, name in enumerate(names)],
        "annotations": [box | {"category_id": int(box["category_id"])} for box in boxes],
        "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}],
    }
    coco.write_text(json.dumps(content))
    for words in (
        "train sample_data --method probe -o runs/leaves",
        "train sample_data --method probe -o runs/leaves-2 --seed 0 --dropout 0.3 --export none",
        "train sample_data --method probe -o runs/two --classes oak,maple --export litert",
        "train photos --method probe -o runs/photos --export none",
    ):
        shell(f"imgclf {words}", folder)
    return folder


def shell(script: str, folder: Path) -> str:
    """Run a script in a folder, with this imgclf and without network, and return what it prints, right-stripped."""
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "imgclf").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m imgclf "$@"\n')
    (commands / "imgclf").chmod(0o755)
    variables = {"PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        ["bash", "-euc", script],  # not pipefail: head may end before imgclf does
        cwd=folder,
        env=os.environ | NO_NETWORK | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the docs are for a POSIX shell")
@every_page
def test_every_command_and_script_of_a_page_runs(page, data_of_the_docs, tmp_path):
    """In their order; what a console block shows must be what is printed, unless it is marked as varying."""
    folder = tmp_path / "docs"
    shutil.copytree(data_of_the_docs, folder)
    if page == README:  # it begins without any
        shutil.rmtree(folder / "runs")
    text = page.read_text(encoding="utf-8")
    text = NOT_RUN.sub("", re.sub(r"^<!-- script: .*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for block in SHOWN.finditer(text):
        code = block["code"]
        if block["language"] == "bash" and "pip install" not in code:
            shell(code, folder)
        elif block["language"] == "python":
            (folder / "script.py").write_text(code, encoding="utf-8")
            shell("python script.py", folder)
        elif block["language"] == "console":
            command, _, shown = code.partition("\n")
            printed = shell(command.removeprefix("$ "), folder)
            assert block["varies"] or printed == shown


def test_the_architecture_names_exactly_the_packages_and_modules_that_exist():
    shown = MODULES.search(ARCHITECTURE.read_text(encoding="utf-8"))
    assert shown
    named, there = (set(named_in(text)) for text in (shown[0], modules()))
    assert not there - named, f"docs/architecture.md lacks {', '.join(sorted(there - named))}: {REWRITE}"
    assert not named - there, f"docs/architecture.md names {', '.join(sorted(named - there))}, now gone: {REWRITE}"
    assert shown[0] == modules(), REWRITE


def test_every_module_that_the_architecture_speaks_of_exists():
    there = set(named_in(modules()))
    for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", MODULES.sub("", prose(ARCHITECTURE))):
        if name.split(".")[0] in {package.split(".")[1] for package in there if "." in package} and "." in name:
            assert f"imgclf.{name}" in there, f"docs/architecture.md speaks of {name}, which does not exist"


def named_in(listed: str) -> Iterator[str]:
    """The packages and modules in a list as `modules` makes it."""
    package = ""
    for heading, module in re.findall(r"^### (\S+)$|^\| `(\w+)` \|", listed, re.MULTILINE):
        package = heading or package
        yield heading or f"{package}.{module}"


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


def write_tour() -> None:
    """Put into the console blocks of all pages what their commands print now, the README's first: its run is needed."""

    def run(block: re.Match[str]) -> str:
        if block["language"] != "console":
            return block[0]
        command = block["code"].partition("\n")[0]
        return f"{block['varies'] or ''}```console\n{command}\n{shell(command.removeprefix('$ '), folder)}```"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        for page in PAGES:
            page.write_text(SHOWN.sub(run, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    REFERENCE.write_text(
        "# Command line\n\nAll options of every command, as `imgclf COMMAND --help-all` prints them.\n"
        + "".join(map(section_of, COMMANDS)),
        encoding="utf-8",
    )
    architecture = MODULES.sub(lambda _: modules(), ARCHITECTURE.read_text(encoding="utf-8"))
    ARCHITECTURE.write_text(architecture, encoding="utf-8")
    if "--tour" in sys.argv:
        write_tour()
