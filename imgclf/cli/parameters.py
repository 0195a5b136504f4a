"""Values of options without Pydantic, which Typer imports to convert them.

This touches names that Typer does not document (`type_descriptor`, `get_runtime_param`, `coerce`), because prediction
of one image has to start fast. On 2 busy cores `imgclf predict RUN x.jpg` without a run ends after 0.45 s as it is and
after 0.63 s without this module (medians of 10); the import alone takes 0.20 to 0.29 s (5 times):

    python -c "import typer.main, time; t = time.perf_counter(); import pydantic; pydantic.TypeAdapter(int); \\
    print(time.perf_counter() - t)"
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

_UNSURE = object()
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class Quick:
    """Converts plain values itself and leaves the others to Typer.

    The others are unusual numbers, conditional flags and unreadable files. Most of them lead to an error, whose message
    is Typer's own.
    """

    def __init__(self, usual: Callable[[], Any], kind: Any) -> None:
        """Args: usual, which makes what Typer converts with; kind, the type of the parameter."""
        self._usual, self._kind = usual, kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of a parameter, as Typer would."""
        plain = _plain(value, self._kind)
        return self._usual().coerce(value, param=param, ctx=ctx) if plain is _UNSURE else plain


def quickened(parameters: list[Any]) -> list[Any]:
    """Make Typer parameters convert plain values without Pydantic; return the same list."""
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
