"""Options -> values, without what Typer loads for that: Pydantic, a quarter of the time to predict one image."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

_UNSURE = object()
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class Quick:
    """Stands in front of what Typer makes of a parameter: takes plain values for what they say, and leaves it the rest.

    The rest are flags with conditions, texts that are no plain number, files that may not be read: those that lead to
    an error, mostly, so that its message is Typer's own.
    """

    def __init__(self, usual: Callable[[], Any], kind: Any) -> None:
        """Args: usual, a function that makes what Typer coerces with; kind, the type that is wanted."""
        self._usual, self._kind = usual, kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of a parameter, as Typer gives it."""
        plain = _plain(value, self._kind)
        return self._usual().coerce(value, param=param, ctx=ctx) if plain is _UNSURE else plain


def quickened(parameters: list[Any]) -> list[Any]:
    """The same Typer parameters, which now do without Pydantic where they can."""
    for parameter in parameters:
        kind = parameter.type_descriptor.annotation
        known = kind in _PLAIN or (get_origin(kind) is list and get_args(kind)[0] in _PLAIN)
        if known and "get_runtime_param" not in vars(parameter):
            parameter.get_runtime_param = _always(Quick(parameter.get_runtime_param, kind))
    return parameters


def _always(value: Quick) -> Callable[[], Quick]:
    return lambda: value


def _plain(value: Any, kind: Any) -> Any:
    if get_origin(kind) is list:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            return _UNSURE
        each = [_plain(item, get_args(kind)[0]) for item in value]
        return _UNSURE if _UNSURE in each else each
    return None if value is None else _PLAIN[kind](value)


def _text(value: Any) -> Any:
    return value if type(value) is str else _UNSURE


def _flag(value: Any) -> Any:
    return value if type(value) is bool else _UNSURE


def _whole(value: Any) -> Any:
    if type(value) is int:
        return value
    return int(value) if type(value) is str and _WHOLE.fullmatch(value) else _UNSURE


def _number(value: Any) -> Any:
    if type(value) is float:
        return value
    return float(value) if type(value) is str and _NUMBER.fullmatch(value) else _UNSURE


def _path(value: Any) -> Any:
    if type(value) is str:
        value = Path(value)
    if not isinstance(value, Path) or "\0" in str(value):
        return _UNSURE
    return value if os.access(value, os.R_OK) or not os.path.lexists(value) else _UNSURE


_PLAIN: dict[Any, Callable[[Any], Any]] = {str: _text, bool: _flag, int: _whole, float: _number, Path: _path}
