"""What a prediction of a task is, and how it is written: one module for each task, with what `Form` asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from imgclf import tasks
from imgclf.prediction.decision import NO_RULES, Decision


class Answer(Protocol):
    """What every prediction has, whatever the task; None where the image cannot be read, and then there is an error."""

    @property
    def path(self) -> str | None: ...
    @property
    def file(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def output(self) -> np.ndarray | None: ...
    @property
    def embedding(self) -> np.ndarray | None: ...
    @property
    def outlier_score(self) -> float | None: ...


@dataclass(frozen=True, eq=False)
class Common:
    """What predictions of every task but multi-class have: `output`, float32 (outputs,), or else an `error`.

    `labels` are the names of the outputs. `path` is the name of the image and `file` where it lies; both are None for
    an image that is no file. `embedding`, `feature_map` and `pixels` are given on request.
    """

    path: str | None
    output: np.ndarray | None
    labels: tuple[str, ...]
    error: str | None = None
    embedding: np.ndarray | None = None
    feature_map: np.ndarray | None = None
    pixels: np.ndarray | None = None
    file: str | None = None
    outlier_score: float | None = None
    rules: Decision = NO_RULES


class Form(Protocol):
    """What a module here has.

    Args:
        HEADS: the columns of a table for people, between the path and the error.
    """

    HEADS: tuple[str, ...]

    def make(self, output: np.ndarray | None, labels: tuple[str, ...], rules: Decision, **facts: Any) -> Answer:
        """Return a prediction for the model's output; `facts` are its other fields."""

    def to_json(self, prediction: Any, top: int) -> dict[str, object]:
        """Return the object that JSON Lines contain."""

    def columns(self, labels: Sequence[str], top: int) -> dict[str, type]:
        """Return the columns of CSV and Parquet, and what they contain: str, float or bool. The first is the path."""

    def cells(self, prediction: Any, top: int) -> list[object]:
        """Return the row of CSV, in the order of `columns`; None for an empty cell."""

    def values(self, prediction: Any, top: int) -> Mapping[str, Any]:
        """Return the row of Parquet, by the names of `columns`; what is missing is null."""

    def rows(self, prediction: Any, top: int) -> list[tuple[str, ...]]:
        """Return the rows of a table for people: one cell for each of `HEADS`."""

    def predicted(self, prediction: Any) -> str | None:
        """Return the label in words; None where there is none."""

    def explained(self, prediction: Any, top: int) -> list[int]:
        """Return the outputs whose reasons people want to see first, for an image that can be read."""

    def stated(self, prediction: Any, place: int) -> str:
        """One output in words, for an image that can be read."""


@dataclass(frozen=True)
class Writing:
    """How the predictions of one model are written.

    Args:
        neighbors: how many training images stand beside each prediction.
    """

    task: str = tasks.DEFAULT
    labels: tuple[str, ...] = ()
    neighbors: int = 0

    @cached_property
    def form(self) -> Form:
        """The form of the task."""
        return find(self.task)


def find(task: str) -> Form:
    """Return the form of a task.

    Raises:
        UsageError: if there is no such task.
    """
    tasks.find(task)
    return cast(Form, import_module(f"{__name__}.{task}"))
