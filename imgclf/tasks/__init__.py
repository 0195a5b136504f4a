"""What is predicted, one module each: a new task is a new module here with what `Task` asks for.

Its predictions are a module of the same name in `prediction/forms`, its scores one in `evaluation/scorers`.
"""

import difflib
import pkgutil
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from imgclf.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

DEFAULT = "multiclass"

JOINED = "|"
"""Stands between the labels of an image, or its numbers, in `Sample.label` and in files."""


INSTEAD = {
    "ordinal": " Ordered classes are no task of their own: --task regression takes grades as numbers and knows their "
    "order, --task multiclass does not."
}
"""What to use for a task that people look for and that is none here."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,300}([.][0-9]{1,300})?")


class Task(Protocol):
    """What a module here has. Labels are texts, as `Sample.label`; targets are what a network is trained on.

    Args:
        ABOUT: what an image has, for the help.
        OUTPUT: the name of the model's output.
        ACTIVATION: from the logits to the output, in Keras's words.
        SCORE: what training is judged by: its name in the history. Higher is better.
        FEWEST: the fewest class names.
        USUAL: the usual names of a table's column of labels, in any case.
        WHOLE: whether a label belongs to a whole image, and not to one object in it.
        UNITES: whether an image that is listed several times has all the labels.
        LACKS: commands, methods of training and settings that the task does not support.
    """

    ABOUT: str
    OUTPUT: str
    ACTIVATION: str
    SCORE: str
    FEWEST: int
    USUAL: tuple[str, ...]
    WHOLE: bool
    UNITES: bool
    LACKS: frozenset[str]

    def columns(self, header: Sequence[str], free: Sequence[int]) -> list[int]:
        """Return the columns of labels in a table without a usual name; empty for none.

        Args:
            free: the columns that nothing else is known to be in.
        """

    def is_labeled(self, cells: Mapping[str, str]) -> bool:
        """Whether a table's cells of labels, by their columns, say what the label is."""

    def read(self, cells: Mapping[str, str], separator: str, where: str) -> str:
        """Return the label in such cells.

        Raises:
            DatasetError: if it is impossible; it begins with `where`.
        """

    def members(self, label: str) -> tuple[str, ...]:
        """Return the classes that a label names."""

    def renamed(self, label: str, names: Mapping[str, str]) -> str:
        """Return the label with new names of classes."""

    def narrowed(self, label: str, names: Iterable[str]) -> str | None:
        """Return the label with these classes alone; None where the image then belongs to none of them."""

    def united(self, labels: Sequence[str]) -> str:
        """Return the label of an image that has all of these; an empty text where there are none."""

    def class_names(self, labels: Iterable[str], columns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the model's outputs.

        Args:
            columns: the names of the table's columns of labels, where the data are a table.

        Raises:
            DatasetError: if the labels do not go together.
        """

    def counts(self, labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
        """Return the number of images for each name."""

    def check(self, labels: Sequence[str], names: Sequence[str], where: str) -> None:
        """Check that training images suffice.

        Raises:
            DatasetError: if there is nothing to learn for a name; it begins with `where`.
        """

    def strata(self, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Return what a split distributes evenly: the strata of each image."""

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> "np.ndarray":
        """Return the targets: int64 (n,) or float32 (n, outputs)."""

    def standardized(self, targets: "np.ndarray", train: "np.ndarray") -> "tuple[np.ndarray, list[np.ndarray]]":
        """Return the targets that the logits are fitted to, and the weights of the output layer that undo the change.

        Args:
            train: int (m,), the rows of the training images.
        """

    def link(self, logits: "np.ndarray", weights: "Sequence[np.ndarray]" = ()) -> "np.ndarray":
        """Return the outputs float32 (n, outputs) for logits, with the weights of the output layer."""

    def fit(
        self, features: "np.ndarray", targets: "np.ndarray", *, outputs: int, seed: int, balanced: bool
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Fit the head: kernel float32 (d, outputs) and bias float32 (outputs,).

        Args:
            features: float32 (1 + augmentations, n, d).
            targets: as `standardized` returns them.
        """

    def loss(self, targets: "np.ndarray", outputs: int, *, label_smoothing: float, balanced: bool) -> Any:
        """Return the loss of logits for Keras.

        Args:
            targets: those of the training images.
            balanced: whether rare classes weigh more.
        """

    def metric(self) -> Any:
        """Return what Keras measures while it trains, called SCORE."""

    def score(self, logits: "np.ndarray", targets: "np.ndarray") -> tuple[float, float]:
        """Return the loss, lower is better, and the score named SCORE."""

    def standard_error(self, score: float, images: int) -> float:
        """How far chance takes the score named SCORE of this many images."""

    def mistakes(self, score: float, images: int) -> int | None:
        """How many of this many images are incorrect by the score named SCORE; None where it does not count them."""

    def best_score(self, outputs: "np.ndarray", targets: "np.ndarray") -> float:
        """Return the score named SCORE of outputs, against targets as `encode` returns them."""

    def agreement(self, expected: "np.ndarray", found: "np.ndarray", tie: float) -> float:
        """Return the share of images on which two models agree; those decided by less than `tie` are left out."""


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names: by number, if all are numbers (0, 1, 2, 10), else by their characters."""
    names = sorted(names)
    if all(map(_NUMBER.fullmatch, names)):
        names.sort(key=Decimal)
    return tuple(names)


def joined_names(names: Collection[str]) -> tuple[str, str, list[str]] | None:
    """Find a name that looks like several of the others: what separates them, the name, its parts; None for none."""
    for separator in "|;,":
        joined = sorted(name for name in names if separator in name)
        parts = {part.strip() for name in joined for part in name.split(separator)}
        if joined and parts <= set(names):
            return separator, joined[0], sorted(parts)
    return None


def names() -> tuple[str, ...]:
    """Return the names of all tasks; the default comes first."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted((name for name in found if name not in _HELPERS), key=lambda name: (name != DEFAULT, name)))


_HELPERS = ("logistic",)


def find(name: str) -> Task:
    """Return the task of that name.

    Raises:
        UsageError: if there is none.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = INSTEAD.get(name) or (f" Did you mean {near[0]!r}?" if near else "")
        raise UsageError(f"--task: expected one of {', '.join(known)}, found {name!r}.{hint}")
    return cast(Task, import_module(f"{__name__}.{name}"))


def outputs() -> set[str]:
    """Return the names that the outputs of models have."""
    return {find(name).OUTPUT for name in names()}


def refuse(name: str, what: str) -> None:
    """Refuse what a task does not support.

    Args:
        what: a command, or an option with its dashes.

    Raises:
        UsageError: if it is among those that the task lacks.
    """
    if what in find(name).LACKS:
        raise UsageError(f"{what} does not support --task {name} yet.")
