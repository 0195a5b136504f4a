"""What all settings share: one declaration for each, from which its option, its check and its JSON follow."""

import csv
import dataclasses
import difflib
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

from imgclf.errors import UsageError

_KEY = "setting"


class Check(NamedTuple):
    """Which values a setting can have, and how a message says so."""

    fits: Callable[[Any], bool]
    expected: str


class Setting(NamedTuple):
    """What a dataclass field knows about itself, beyond its type and its default.

    Args:
        help: what the setting does, in at most 60 characters.
        panel: the heading under which `--help-all` lists its option.
        metavar: the placeholder for the value; None follows from the type.
        choices: the values that have a name; help lists them.
        other: other values that are possible, as help lists them after the choices.
        check: which values are possible; None where the type and the choices say so.
        everyday: whether `--help` lists the option, too.
        aliases: former names, which still work as hidden options and in a `config.json`.
    """

    help: str
    panel: str
    metavar: str | None
    choices: tuple[str, ...]
    other: tuple[str, ...]
    check: Check | None
    everyday: bool
    aliases: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The help with the choices in it."""
        named = [*self.choices, *self.other]
        if not named:
            return self.help
        listed = " or ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
        return f"{self.help.removesuffix('.')}: {listed}."


def setting(
    default: Any,
    help: str,
    *,
    panel: str = "Options",
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    other: tuple[str, ...] = (),
    check: Check | None = None,
    everyday: bool = False,
    aliases: tuple[str, ...] = (),
) -> Any:
    """Declare a field of a settings class; `Setting` says what the arguments mean."""
    about = Setting(help, panel, metavar, choices, other, check, everyday, aliases)
    return dataclasses.field(default=default, metadata={_KEY: about})


def about(field: "dataclasses.Field[Any]") -> Setting:
    """Return what a field of a settings class was declared with."""
    found = field.metadata[_KEY]
    assert isinstance(found, Setting)
    return found


def at_least(low: int) -> Check:
    """Whole numbers from `low`."""
    return Check(lambda value: low <= value < 2**63, f"a whole number of at least {low}")


def between(low: float, high: float, unit: str = "") -> Check:
    """Numbers from `low` to `high`, both included."""
    expected = f"{low:g} to {high:g} {unit}" if unit else f"a number from {low:g} to {high:g}"
    return Check(lambda value: low <= value <= high, expected)


def flag_of(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def require(condition: bool, name: str, expected: str, found: object) -> None:
    """Refuse an impossible value of the setting `name`.

    Raises:
        UsageError: if the condition does not hold.
    """
    if not condition:
        raise UsageError(f"{flag_of(name)}: expected {expected}, found {found!r}.")


def names(value: str | None) -> tuple[str, ...]:
    """Return the items of a comma-separated option, without spaces around them; empty for None."""
    return tuple(item.strip() for item in (value or "").split(",") if item.strip())


def items(value: str | None) -> tuple[str, ...]:
    """Return the items of a comma-separated option as they are, with the spaces around them; empty for None.

    Quotes protect a comma, as in CSV: `"a, b",c`.
    """
    row = next(csv.reader(io.StringIO(value or "", newline="")), [])
    return tuple(item for item in row if item.strip())


_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str | None) -> float | None:
    """90s, 5m or 1h in seconds; 0 for anything else, None for None."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", (text or "").strip())
    if text is None:
        return None
    return float(found[1]) * _UNITS_S[found[2]] if found else 0.0


FRACTION = Check(lambda value: 0 <= value < 1, "a number from 0 to below 1")
POSITIVE = Check(lambda value: 0 < value < math.inf, "a number above 0")


def some_of(choices: tuple[str, ...], alone: str | None = None) -> Check:
    """Comma-separated choices, at least one; or one word that stands alone."""
    expected = ", ".join(choices) + (f" or {alone} alone" if alone else " or several of them")

    def fits(text: str) -> bool:
        found = names(text)
        return text.strip() == alone or (bool(found) and all(name in choices for name in found))

    return Check(fits, expected)


@dataclass(frozen=True)
class Config:
    """Base of all settings classes: frozen, checked on creation, to and from JSON."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _check_type(field.name, kinds[field.name], value)
            if value is not None:
                _check_value(field.name, about(field), value)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as `config.json` stores them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Take back what `to_dict` gave, also under former names.

        Raises:
            UsageError: if this version does not know a setting, or a value is impossible.
        """
        fields = dataclasses.fields(cls)
        former = {alias: field.name for field in fields for alias in about(field).aliases}
        values = {former.get(name, name): value for name, value in values.items()}
        known = {field.name for field in fields}
        unknown = sorted(set(values) - known)
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, 1)
            raise UsageError(
                f"unknown setting {unknown[0]!r}; "
                + (f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}.")
            )
        return cls(**values)


def _check_type(name: str, kind: Any, value: object) -> None:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    kinds = tuple(str if get_origin(k) is Literal else k for k in kinds)
    fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    expected = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
    require(fits and (bool in kinds or not isinstance(value, bool)), name, expected, value)


def _check_value(name: str, about: Setting, value: Any) -> None:
    if about.check is not None:
        fits, expected = about.check.fits(value), about.check.expected
    else:
        fits = not about.choices or bool(about.other) or value in about.choices
        expected = f"one of {', '.join(about.choices)}" if len(about.choices) > 1 else "".join(about.choices)
    if not fits:
        near = difflib.get_close_matches(str(value), about.choices, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{flag_of(name)}: expected {expected}, found {value!r}.{hint}")
