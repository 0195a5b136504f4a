"""The rules of the source that no single module can see: who imports whom, and what tests touch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import imgclf
from imgclf.cli.app import COMMANDS

PACKAGE = Path(imgclf.__file__).parent
ROOT = PACKAGE.parent

ON_TOP = {
    "keras": ("models/", "training/", "explanation/", "exporting/"),
    "tensorflow": (
        "exporting/preprocessing.py",
        "exporting/savedmodel.py",
        "exporting/litert.py",
        "exporting/mediapipe.py",
        "prediction/frameworks.py",
        "training/devices.py",
    ),
    "sklearn": ("evaluation/", "training/", "data/splitting.py"),
    "matplotlib": ("evaluation/", "explanation/"),
    "grain": ("data/loading.py", "training/"),
    "rich": ("cli/console.py",),
    "typer": ("cli/",),
    "jax": (),
    "torch": (),
    "ai_edge_litert": (),
    "ray": (),
}
"""Where a package may be imported at module top. Elsewhere it is imported inside the function that needs it."""

LIGHT_COMMAND_IMPORTS = (
    "imgclf.cli",
    "imgclf.settings",
    "imgclf.tasks",
    "imgclf.environment",
    "imgclf.errors",
    "imgclf.policies",
    "imgclf.runs",
    "imgclf.storage",
)


@cache
def imports_on_top(module: Path) -> tuple[str, ...]:
    """The dotted names a module imports when it is itself imported, those for type checkers left out."""
    return tuple(_imports(ast.parse(module.read_text(encoding="utf-8")).body))


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    while body:
        node = body.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            body += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_each_room_imports_only_the_rooms_below_it():
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ON_TOP)
def test_a_heavy_package_is_imported_on_top_only_where_it_is_at_home(package):
    found = {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == package for name in imports_on_top(module))
    }
    assert [place for place in sorted(found) if not place.startswith(ON_TOP[package])] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_module_imports_nothing_heavy_on_top(command):
    names = [name for name in imports_on_top(PACKAGE / "cli" / f"{command}.py") if name.startswith("imgclf.")]
    assert [name for name in names if not name.startswith(LIGHT_COMMAND_IMPORTS)] == []


PUBLIC = ("_replace", "_asdict", "_exit")
"""Names with an underscore that are public: of named tuples, and of os."""


def test_no_test_touches_a_private_name() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ""
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                name = node.attr
            elif isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func).endswith("setattr"):
                name = str(node.args[1].value) if isinstance(node.args[1], ast.Constant) else ""
            elif isinstance(node, ast.alias):
                name = node.name
            if name.startswith("_") and not name.startswith("__") and name not in PUBLIC:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found
