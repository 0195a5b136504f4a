"""Options follow from the settings; help is short, complete, and says each thing once."""

import dataclasses
import inspect
import re
import subprocess
import sys
from importlib import import_module
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from imgclf.cli import options
from imgclf.cli.app import COMMANDS, app
from imgclf.errors import UsageError
from imgclf.settings import TrainConfig
from imgclf.settings.base import Check, Config, about, setting

OPTION = re.compile(r"^  (-\w, )?(--[a-zA-Z-]+)", re.MULTILINE)


def help_of(command: str, option: str) -> str:
    done = CliRunner().invoke(app, [command, option], terminal_width=80, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def listed(text: str) -> list[str]:
    """The options that a help lists, in its order."""
    return [long for _, long in OPTION.findall(text)]


def settings_of(command: str) -> list[tuple[type[Config], tuple[str, ...]]]:
    """The settings classes of a command, each with what the command leaves out."""
    function = getattr(import_module(f"imgclf.cli.{command}"), command)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        kind, *marks = get_args(parameter.annotation) or (parameter.annotation,)
        if isinstance(kind, type) and issubclass(kind, Config):
            found.append((kind, marks[0].names if marks else ()))
    return found


CONFIGURED = [command for command in COMMANDS if settings_of(command)]
CLASSES = {kind for command in COMMANDS for kind, _ in settings_of(command)}
FIELDS = {(field.name, about(field)) for kind in CLASSES for field in dataclasses.fields(kind)}


def test_the_commands_with_settings_are_these():
    training = ["ingest", "augment", "baseline", "train", "evaluate", "calibrate", "kfold"]
    questions = ["suspects", "curves", "drift", "suggest", "tune"]
    others = ["predict", "features", "search", "explain", "export", "convolve", "describe"]
    assert [*training, *questions, *others] == CONFIGURED


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_of_80_by_40_with_at_most_15_options(command):
    lines = help_of(command, "--help").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert len(listed("\n".join(lines))) <= 15


@pytest.mark.parametrize("command", CONFIGURED)
def test_help_all_lists_every_setting_and_help_the_everyday_ones(command):
    short, full = listed(help_of(command, "--help")), listed(help_of(command, "--help-all"))
    assert set(short) <= set(full)
    assert len(full) == len(set(full))
    for kind, left_out in settings_of(command):
        for field in dataclasses.fields(kind):
            flag = "--" + field.name.replace("_", "-")
            assert (flag in full) == (field.name not in left_out)
            assert (flag in short) == (about(field).everyday and field.name not in left_out)


@pytest.mark.parametrize("command", CONFIGURED)
def test_an_option_has_the_default_of_its_field(command):
    function, _ = options.expand(getattr(import_module(f"imgclf.cli.{command}"), command))
    parameters = inspect.signature(function).parameters
    for kind, left_out in settings_of(command):
        for field in dataclasses.fields(kind):
            if field.name not in left_out:
                assert parameters[field.name].default == getattr(kind(), field.name)


@pytest.mark.parametrize(("name", "setting"), sorted(FIELDS, key=str))
def test_the_help_of_a_setting_is_a_short_sentence(name, setting):
    assert len(setting.help) <= 60
    assert setting.help[0].isupper()
    assert setting.sentence.endswith(".")
    assert setting.help.endswith(".") != bool(setting.choices or setting.other)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_the_other_options_is_a_short_sentence(command):
    for parameter in typer.main.get_command(app).commands[command].params:
        if parameter.name not in {name for name, _ in FIELDS}:
            assert len(parameter.help) <= 60
            assert parameter.help[0].isupper() and parameter.help.endswith(".")


@dataclasses.dataclass(frozen=True)
class Baking(Config):
    """Settings that are no command's."""

    heat: float = setting(180.0, "Heat of the oven.", panel="Oven", everyday=True, check=Check(lambda x: x < 300, "X"))
    minutes: int | str | None = setting(None, "Time in the oven.", metavar="N", aliases=("time",))
    place: str = setting("middle", "Place in the oven", choices=("top", "middle"), panel="Oven")
    fan: bool = setting(False, "Use the fan.")


def bake(*arguments: str) -> tuple[list[Any], str]:
    """What a command with those settings was called with, and what it printed."""
    seen: list[Any] = []

    def command(
        cake: Annotated[str, typer.Argument()] = "pound",
        moved: options.Moved = None,
        *,
        settings: Annotated[Baking, options.Without(("fan",))],
        given: options.Given,
    ) -> None:
        """Bake."""
        seen.extend([cake, settings, given])

    function, _ = options.expand(command)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command()(function)
    done = CliRunner().invoke(single, list(arguments))
    return seen, done.output if not done.exception or isinstance(done.exception, SystemExit) else str(done.exception)


def test_options_become_settings_and_what_was_typed_is_told():
    seen, _ = bake("sponge", "--heat", "200", "--minutes", "40")
    assert seen == ["sponge", Baking(heat=200.0, minutes=40), {"cake", "heat", "minutes"}]
    assert bake()[0] == ["pound", Baking(), set()]


def test_a_number_or_a_word_is_told_apart():
    assert bake("--minutes", "auto")[0][1].minutes == "auto"
    assert bake("--minutes", "40")[0][1].minutes == 40


def test_a_former_name_still_works():
    assert bake("--time", "40")[0][1].minutes == 40
    assert Baking.from_dict({"time": 40}) == Baking(minutes=40)


def test_an_impossible_value_is_the_error_of_the_setting():
    assert bake("--place", "topp")[1] == "--place: expected one of top, middle, found 'topp'. Did you mean 'top'?"
    assert bake("--heat", "400")[1] == "--heat: expected X, found 400.0."
    assert "No such option" in bake("--fan")[1]


def test_a_help_lists_choices():
    assert options.expand(lambda: None)[1] == options.Listing(frozenset(), frozenset())
    place = next(field for field in dataclasses.fields(Baking) if field.name == "place")
    assert about(place).sentence == "Place in the oven: top or middle."


def test_options_without_effect_are_refused_by_name():
    given = options.Given({"data", "top_k", "json"})
    given.refuse_others(("data", "top_k", "json"), "Never raised.")
    with pytest.raises(UsageError, match=r"^--resume keeps the data. Remove DATA, --top-k.$"):
        given.refuse_others(("json",), "--resume keeps the data.")


def test_help_all_is_what_a_terminal_shows():
    words = [sys.executable, "-m", "imgclf", "predict", "--help-all"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "  --shard I/N " in shown


def test_the_former_name_of_an_option_works_and_no_help_shows_it():
    [parameter] = [p for p in typer.main.get_command(app).commands["train"].params if p.name == "cached_augmentations"]
    assert parameter.opts == ["--cached-augmentations", "--views"]
    assert "--cached-augmentations" in help_of("train", "--help-all")
    assert "--views" not in help_of("train", "--help-all")
    assert TrainConfig.from_dict({"views": 2}) == TrainConfig(cached_augmentations=2)
