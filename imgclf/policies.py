"""Augmentation policies as data: operations with their strengths.

A policy is one of POLICIES, a TOML or JSON file, or one line of text such as `flip=0.5,rotate=10`. A run records it in
`config.json`; `training.augmentation` applies it.
"""

import difflib
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from imgclf import documents
from imgclf.errors import UsageError


@dataclass(frozen=True)
class Operation:
    """The largest strength of an operation (0 turns it off), its unit, and what it means."""

    most: float
    unit: str
    meaning: str


OPERATIONS = {
    "crop": Operation(0.99, "of the area", "the most that a random crop removes"),
    "stretch": Operation(2.0, "more", "the crop's aspect ratio, multiplied or divided"),
    "flip": Operation(0.5, "of the images", "mirrored horizontally"),
    "flip-vertical": Operation(0.5, "of the images", "mirrored vertically"),
    "rotate": Operation(180.0, "degrees", "in both directions"),
    "zoom": Operation(2.0, "larger or smaller", "about the center"),
    "shift": Operation(0.5, "of the side", "in each direction"),
    "shear": Operation(45.0, "degrees", "in both directions, on each axis"),
    "perspective": Operation(0.45, "of the side", "each corner moves inward"),
    "elastic": Operation(0.1, "of the side", "waves, in each direction"),
    "contrast": Operation(0.99, "more or less", "about the mean of each color"),
    "brightness": Operation(1.0, "of the full range", "lighter or darker"),
    "saturation": Operation(4.0, "more", "multiplied or divided"),
    "hue": Operation(180.0, "degrees", "on the color circle, in both directions"),
    "gray": Operation(1.0, "of the images", "without color"),
    "blur": Operation(0.05, "of the side", "the largest Gaussian sigma"),
    "sharpen": Operation(1.0, "of an unsharp mask", "sharper edges"),
    "erase": Operation(0.9, "of the area", "a gray box, in half of the images"),
}
"""In the order in which they are applied."""

FORMER = {"grey": "gray"}
"""Former names of operations, which still work for one release."""

FRAMING = ("crop", "stretch", "flip", "flip-vertical")
"""Operations that choose the visible part; `pick` does not count them, every image gets them."""

UPRIGHT_DEGREES = 15.0
"""The largest rotation of images whose orientation has a meaning."""


@dataclass(frozen=True)
class Policy:
    """Operations with their strengths, and how many of them an image gets.

    Args:
        operations: pairs of name and strength, in the order of OPERATIONS, without those of strength 0.
        pick: how many operations each image gets, drawn for each image, besides those of FRAMING; 0 for all.
        chains: the number of chains of 1 to `pick` operations that are mixed with one another and with the image
            (AugMix, Hendrycks et al. 2020, arXiv:1912.02781); 0 for none.
    """

    operations: tuple[tuple[str, float], ...] = ()
    pick: int = 0
    chains: int = 0

    def strength(self, operation: str) -> float:
        """Return the strength of an operation; 0 if it is off."""
        return dict(self.operations).get(operation, 0.0)

    @property
    def name(self) -> str | None:
        """Its name in POLICIES; None if it has none."""
        return next((name for name, policy in POLICIES.items() if policy == self), None)

    def to_dict(self) -> dict[str, float]:
        """Return operations, `pick` and `chains` as one mapping, which `from_dict` reads."""
        counts = {name: getattr(self, name) for name in ("pick", "chains") if getattr(self, name)}
        return dict(self.operations) | counts

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "policy") -> Self:
        """Make a policy of a mapping of operations to strengths, with `pick` and `chains` among them.

        Args:
            where: the start of an error message.

        Raises:
            UsageError: naming the nearest operation or strength.
        """
        values = {FORMER.get(name, name): value for name, value in values.items()}
        for name, value in values.items():
            if name not in (*OPERATIONS, "pick", "chains"):
                raise UsageError(
                    f"{where}: unknown operation {name!r}. Did you mean {_nearest(name, OPERATIONS)!r}? "
                    f"The operations are {', '.join(OPERATIONS)}, pick and chains."
                )
            most, unit = (OPERATIONS[name].most, OPERATIONS[name].unit) if name in OPERATIONS else (10, "")
            whole = name not in OPERATIONS
            typed = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not (typed and 0 <= value <= most):
                number = isinstance(value, int | float) and not math.isnan(value)
                nearest = f" The nearest is {min(max(round(value, 2), 0), most):g}." if number else ""
                expected = f"a whole number from 0 to {most}" if whole else f"a number from 0 to {most:g} {unit}"
                raise UsageError(f"{where}: {name}: expected {expected}, found {value!r}.{nearest}")
        operations = tuple((name, float(values[name])) for name in OPERATIONS if values.get(name))
        drawn = [name for name, _ in operations if name not in FRAMING]
        pick, chains = values.get("pick", 0), values.get("chains", 0)
        if pick > len(drawn):
            raise UsageError(
                f"{where}: pick: expected at most {len(drawn)}, the number of operations to pick from "
                f"(without {', '.join(FRAMING)}), found {pick}."
            )
        if chains and not pick:
            raise UsageError(f"{where}: chains: expected pick beside it (the longest chain), found none.")
        return cls(operations, pick, chains)

    def __str__(self) -> str:
        """Return one line, which `find` reads."""
        return ",".join(f"{name}={_number(value)}" for name, value in self.to_dict().items()) or "none"

    def to_toml(self) -> str:
        """Return a TOML file, which `find` reads, with a comment on every line."""
        counts = {
            "pick": "operations per image" if not self.chains else "longest chain",
            "chains": "chains mixed with the image",
        }
        lines = []
        for name, value in self.to_dict().items():
            about = OPERATIONS.get(name)
            comment = f"{about.unit}: {about.meaning}" if about else counts[name]
            lines.append(f"{f'{name} = {_number(value)}':<20}  # {comment}")
        return "\n".join(lines or ["# no operations"]) + "\n"

    def upright(self) -> tuple["Policy", list[str]]:
        """Return this policy for images whose orientation has a meaning, such as digits, letters, signs and arrows.

        Returns:
            The policy without flips and large rotations, and a sentence on each operation that changed.
        """
        kept, notes = [], []
        for name, strength in self.operations:
            if name.startswith("flip"):
                notes.append(f"{name}={strength:g} is left out because of --keep-orientation.")
            elif name == "rotate" and strength > UPRIGHT_DEGREES:
                kept.append((name, UPRIGHT_DEGREES))
                notes.append(f"rotate={strength:g} becomes rotate={UPRIGHT_DEGREES:g} because of --keep-orientation.")
            else:
                kept.append((name, strength))
        return replace(self, operations=tuple(kept)), notes


_CROPPED = {"crop": 0.5, "stretch": 0.33, "flip": 0.5}

POLICIES = {
    "none": Policy(),
    "light": Policy.from_dict({"crop": 0.2, "stretch": 0.1, "flip": 0.5}),
    "standard": Policy.from_dict(_CROPPED | {"brightness": 0.1, "contrast": 0.2}),
    "heavy": Policy.from_dict(_CROPPED | {"crop": 0.75, "brightness": 0.2, "contrast": 0.4}),
    # Cubuk et al. 2020, arXiv:1909.13719: a few operations for each image, drawn evenly
    "rand-augment": Policy.from_dict(
        _CROPPED
        | {"rotate": 30, "shift": 0.15, "shear": 17, "perspective": 0.15, "brightness": 0.3, "contrast": 0.5}
        | {"saturation": 1.0, "hue": 20, "gray": 1.0, "blur": 0.01, "sharpen": 1.0, "pick": 2}
    ),
    "aug-mix": Policy.from_dict(
        _CROPPED
        | {"rotate": 15, "shift": 0.1, "shear": 10, "zoom": 0.1, "perspective": 0.1, "brightness": 0.2}
        | {"contrast": 0.3, "saturation": 0.5, "sharpen": 1.0, "pick": 3, "chains": 3}
    ),
}
"""The crops are those of Inception (Szegedy et al. 2015, arXiv:1409.4842, section 6)."""


def find(value: str, option: str = "augment") -> Policy:
    """Return the policy of an option: one of POLICIES, operations such as `flip=0.5,rotate=10`, or a file of them.

    Args:
        option: the name of the option, for messages.

    Raises:
        UsageError: if there is no such policy, naming the nearest name, operation or strength.
    """
    text = value.strip()
    if text in POLICIES:
        return POLICIES[text]
    path = Path(text)
    if path.suffix.lower() in (".toml", ".json"):
        return Policy.from_dict(_read(path, option), str(path))
    if "=" in text:
        return Policy.from_dict(_items(text, option), f"--{option}")
    raise UsageError(
        f"--{option}: expected {', '.join(POLICIES)}, a .toml or .json file, or operations such as flip=0.5,rotate=10, "
        f"found {value!r}. Did you mean {_nearest(text, POLICIES)!r}?"
    )


def _items(text: str, option: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for item in text.split(","):
        name, equals, number = (part.strip() for part in item.partition("="))
        if name in values:
            raise UsageError(f"--{option}: expected each operation once, found {name} twice.")
        try:
            values[name] = int(number) if name in ("pick", "chains") else float(number)
        except ValueError:
            found = repr(item.strip()) if equals else f"{item.strip()!r} without a strength"
            raise UsageError(f"--{option}: expected operations such as flip=0.5,rotate=10, found {found}.") from None
    return values


def _read(path: Path, option: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else documents.parse(text)
    except OSError as error:
        raise UsageError(f"--{option} {path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:  # TOML, JSON and UTF-8 errors all are
        raise UsageError(f"{path}: expected lines such as flip = 0.5, found no {path.suffix[1:]} ({error}).") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected operations and their strengths, found {type(values).__name__}.")
    return values


def _number(value: float) -> str:
    """Return the shortest text of exactly this number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _nearest(name: str, choices: dict[str, Any]) -> str:
    return str(difflib.get_close_matches(name.lower().replace("_", "-"), choices, 1, cutoff=0.0)[0])
