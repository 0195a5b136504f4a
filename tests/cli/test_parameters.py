"""Values of options and errors are those that Typer gives; only the conversion is faster."""

import os
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from imgclf.cli import parameters

KINDS = {"--text": str, "--whole": int, "--number": float, "--path": Path}
VALUES = [
    "",
    " ",
    "a",
    "1",
    "007",
    "-3",
    "+3",
    "1_0",
    "1.5",
    ".5",
    "1e3",
    "nan",
    "99999999999999999999",
    "٣",
    "a/b",
    "/",
]


def outcome(quick: bool, arguments: list[str]) -> tuple[object, str]:
    """What a command gets for its parameters, or its error."""
    seen: list[object] = []

    def command(
        paths: Annotated[list[Path] | None, typer.Argument()] = None,
        text: str | None = None,
        whole: int = 1,
        number: float | None = None,
        path: Path | None = None,
        flag: bool = False,
    ) -> None:
        seen.append((paths, text, whole, repr(number), path, flag))

    made = typer.Typer(add_completion=False, rich_markup_mode=None)
    made.command()(command)
    built = get_command(made)
    if quick:
        parameters.quickened(built.params)
    try:
        built(arguments, prog_name="it", standalone_mode=False)
    except Exception as error:
        return type(error), getattr(error, "message", "")
    return seen[0], ""


@pytest.mark.parametrize("option", KINDS)
@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_what_typer_makes_of_it(option, value):
    asked = [f"{option}={value}"]
    assert outcome(True, asked) == outcome(False, asked)


@pytest.mark.parametrize("asked", [[], ["--flag"], ["--flag=1"], ["a", "b"], ["", "."], ["--none"], ["--whole"]])
def test_flags_and_lists_are_what_typer_makes_of_them(asked):
    assert outcome(True, asked) == outcome(False, asked)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every file may be read")
def test_a_file_that_may_not_be_read_is_typers_error(tmp_path):
    (tmp_path / "closed").touch(mode=0)
    asked = [f"--path={tmp_path / 'closed'}"]
    assert outcome(True, asked) == outcome(False, asked)
