"""From a function to a command: its settings become options, made from the fields of their dataclasses."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from imgclf.errors import UsageError
from imgclf.settings.base import Config, about, flag_of

AnyConfig = TypeVar("AnyConfig", bound=Config)

METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME"}


@dataclass(frozen=True)
class Without:
    """Marks settings of which a command leaves some out: `Annotated[TrainConfig, Without("export")]`."""

    names: tuple[str, ...]


class Rare:
    """Marks an option of a command that `--help` leaves to `--help-all`."""


class Given(frozenset[str]):
    """The names of the parameters that stand on the command line."""

    def over(self, recorded: AnyConfig, settings: AnyConfig) -> AnyConfig:
        """Return recorded settings, changed by those of `settings` that stand on the command line."""
        typed = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name in self}
        return dataclasses.replace(recorded, **typed)

    def refuse_others(self, allowed: tuple[str, ...], reason: str) -> None:
        """Refuse what would have no effect.

        Raises:
            UsageError: naming the options that are not among `allowed`.
        """
        others = sorted(self - set(allowed))
        if others:
            named = ", ".join("DATA" if name == "data" else flag_of(name) for name in others)
            raise UsageError(f"{reason} Remove {named}.")


Data = Annotated[Path | None, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder written by imgclf train.")]
DataOrRun = Annotated[Path, typer.Argument(metavar="DATA|RUN", help="Labeled images, or a run for its own images.")]
Moved = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="New location of the run's images."), Rare]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]


def open_source(
    source: Path, settings: Any, given: Given, allowed: tuple[str, ...], on_progress: Callable[..., None]
) -> Any:
    """Open DATA|RUN: a run as it is, whose own settings count, or else the data set.

    Args:
        settings: those of the command, with those of the data.
        allowed: the parameters that have an effect on a run, beside those of every command.

    Raises:
        UsageError: if an option would have no effect.
    """
    import imgclf

    if (source / "config.json").is_file():
        given.refuse_others(("source", "moved", "json", "quiet", *allowed), f"{source} is a run with its own settings.")
        return imgclf.Run(source)
    return imgclf.read(source, settings, on_progress=partial(on_progress, "reading"))


@dataclass(frozen=True)
class Listing:
    """What `--help` shows of a command: the options that it leaves out, and the names that no help shows."""

    rare: frozenset[str]
    former: frozenset[str]


def expand(function: Callable[..., None]) -> tuple[Callable[..., None], Listing]:
    """Return a function for Typer, whose parameters of settings classes are replaced by an option for each field.

    A parameter of type `Given` gets the names of the parameters that stand on the command line.
    """
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    settings: dict[str, tuple[type[Config], list[str]]] = {}
    rare, former, given = set(), set(), []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *marks = _parts(parameter.annotation)
        if kind is Given:
            given.append(name)
        elif isinstance(kind, type) and issubclass(kind, Config):
            left_out = [name for mark in marks if isinstance(mark, Without) for name in mark.names]
            own = vars(kind)["__annotations__"]  # before those that other commands have, too
            fields = sorted(dataclasses.fields(kind), key=lambda field: field.name not in own)
            fields = [field for field in fields if field.name not in left_out]
            settings[name] = (kind, [field.name for field in fields])
            hints = get_type_hints(kind)
            parameters += [_option(field, hints[field.name]) for field in fields]
            rare |= {field.name for field in fields if not about(field).everyday}
            former |= {flag_of(alias) for field in fields for alias in about(field).aliases}
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            rare |= {name} if Rare in marks else set()
    listing = Listing(frozenset(rare), frozenset(former))
    everything = typer.Option(
        "--help-all", is_eager=True, callback=_show_all, help="Show all options and exit.", hidden=not rare
    )
    parameters.append(
        inspect.Parameter(
            "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, everything]
        )
    )

    def command(*, context: typer.Context, **values: Any) -> None:
        del values["help_all"]
        for name, (kind, names) in settings.items():
            values[name] = kind(**{field: values.pop(field) for field in names})
        sources = {name: context.get_parameter_source(name) for name in context.params}
        typed = Given(name for name, source in sources.items() if source and source.name != "DEFAULT")
        function(**values, **dict.fromkeys(given, typed))

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command, listing


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[__name__] = True
        print(context.get_help())
        raise typer.Exit


def shows_all(context: typer.Context) -> bool:
    """Whether help was asked for with `--help-all`."""
    return bool(context.meta.get(__name__))


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)


def _option(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    """Return the option of a setting."""
    setting = about(field)
    kinds = [kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,)) if kind is not type(None)]
    kinds = [str if get_origin(kind) is Literal else kind for kind in kinds]
    mixed = len(kinds) > 1  # a number or a word
    option = typer.Option(
        *(flag_of(name) for name in (field.name, *setting.aliases)),
        help=setting.sentence,
        metavar=setting.metavar or METAVARS.get(kinds[0]),
        rich_help_panel=setting.panel,
        parser=_number_or_word(kinds[0]) if mixed else None,
    )
    annotation: Any = Any if mixed else kinds[0]
    if field.default is None and not mixed:
        annotation = annotation | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[annotation, option],
    )


def _number_or_word(number: Callable[[str], float]) -> Callable[[str], float | str]:
    """Return a parser that leaves what is no number to the check of the setting."""

    def parse(text: str) -> float | str:
        try:
            return number(text)
        except ValueError:
            return text

    return parse
