"""Preprocessing as data: the steps that every image goes through before the model, such as `denoise=3,autocontrast`.

`data.preprocessing` applies them; a run records the chain in `config.json`, an exported model in `artifact.json`.
"""

import difflib
import math
from typing import NamedTuple

from imgclf.errors import UsageError
from imgclf.settings.base import flag_of, names


class Kind(NamedTuple):
    """What a step is, and the value after its equals sign.

    Args:
        meaning: what the step does.
        low, high: the smallest and the largest value; equal where it takes none.
        default: what the value is where none is given; NaN where the image decides, None where one must be given.
        step: the value is `low` plus a multiple of it; 0 for any value.
    """

    meaning: str
    low: float = 0.0
    high: float = 0.0
    default: float | None = math.nan
    step: int = 0

    @property
    def expected(self) -> str:
        """Which values the step takes."""
        if self.low == self.high:
            return "no value"
        return f"{('a', 'a whole', 'an odd')[self.step]} number from {self.low:g} to {self.high:g}"

    def fits(self, value: float) -> bool:
        """Whether the step takes the value."""
        return (
            self.low < self.high
            and self.low <= value <= self.high
            and (not self.step or (value - self.low) % self.step == 0)
        )


_LARGEST_PX = 15

KINDS = {
    "autocontrast": Kind("stretch each color to the full range, but for VALUE percent at each end", 0, 49, 0),
    "equalize": Kind("spread the brightnesses of each color evenly"),
    "brightness": Kind("multiply the brightness by VALUE", 0, 10, None),
    "contrast": Kind("multiply the distance from the mean gray by VALUE", 0, 10, None),
    "sharpen": Kind("deblur: add VALUE times what a Gaussian of 2 px removes", 0.1, 10, 1.5),
    "denoise": Kind("take the median of VALUE x VALUE px", 3, _LARGEST_PX, 3, step=2),
    "gray": Kind("drop the color"),
    "threshold": Kind("make what is brighter than VALUE white and the rest black; by default Otsu's threshold", 0, 254),
    "erode": Kind("take the minimum of VALUE x VALUE px", 3, _LARGEST_PX, 3, step=2),
    "dilate": Kind("take the maximum of VALUE x VALUE px", 3, _LARGEST_PX, 3, step=2),
    "open": Kind("erode, then dilate: removes small bright spots", 3, _LARGEST_PX, 3, step=2),
    "close": Kind("dilate, then erode: fills small dark holes", 3, _LARGEST_PX, 3, step=2),
    "edges": Kind("draw how steeply the brightness changes, by Sobel's filters"),
    "jpeg": Kind("compress as JPEG of quality VALUE", 1, 95, None, step=1),
}

FORMER = {"grey": "gray"}
"""Other spellings."""

MOST = 16
"""The longest chain."""


class Step(NamedTuple):
    """One step: its name in KINDS, and its value; NaN where the image decides, or it takes none."""

    name: str
    value: float


def parse(text: str | None, where: str = flag_of("preprocess")) -> tuple[Step, ...]:
    """Return the steps of a comma-separated chain, in their order; none for None.

    Args:
        where: the start of an error message.

    Raises:
        UsageError: naming the nearest step, or the values that it takes.
    """
    found = []
    for item in names(text):
        given, equals, value = (part.strip() for part in item.partition("="))
        name = FORMER.get(given, given)
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, 3)
            guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(f"{where}: unknown step {given!r}.{guess} The steps are {', '.join(KINDS)}.")
        found.append(Step(name, _value(name, value if equals else None, where)))
    if text is not None and not 1 <= len(found) <= MOST:
        raise UsageError(f"{where}: expected 1 to {MOST} steps such as denoise,autocontrast, found {len(found)}.")
    return tuple(found)


def _value(name: str, text: str | None, where: str) -> float:
    kind = KINDS[name]
    if text is None and kind.default is not None:
        return kind.default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not kind.fits(value):
        found = "none" if text is None else repr(text)
        raise UsageError(f"{where}: {name}: expected {kind.expected}, found {found}.")
    return value


def same(one: str | None, other: str | None) -> bool:
    """Whether two chains do the same, however they are written."""
    first, second = ([(name, f"{value:g}") for name, value in parse(text)] for text in (one, other))
    return first == second  # as text, since NaN is not equal to itself


def told(text: str | None) -> str:
    """Say what a chain does, in a sentence; empty for None."""
    steps = []
    for name, value in parse(text):
        meaning = KINDS[name].meaning.replace("VALUE", "" if math.isnan(value) else f"{value:g}")
        if name == "threshold":
            at = "Otsu's threshold" if math.isnan(value) else f"{value:g}"
            meaning = f"make what is brighter than {at} white and the rest black"
        steps.append(f"{name} ({meaning})")
    return f"Before the model sees an image, these steps change it: {', then '.join(steps)}." if steps else ""
