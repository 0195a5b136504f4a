"""How good the predictions of a task are: one module for each task, with what `Scorer` asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from imgclf import documents, runs, tasks
from imgclf.data.dataset import Dataset, Sample
from imgclf.errors import RunError
from imgclf.evaluation import gates
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.decision import Decision
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig, EvaluateConfig

Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""A table for the terminal: its title, columns and rows."""


@dataclass(frozen=True)
class Described:
    """What a model card says of a model, in Markdown.

    Args:
        purpose: a sentence on what the model predicts.
        kind: the task by Hugging Face's name, or a name in its manner where it has none.
        scores: a line for each paragraph and row.
        limits: what becomes of images that show nothing the model knows.
    """

    purpose: str
    kind: str
    scores: Sequence[str]
    limits: str


class Scored(Protocol):
    """The content of `metrics.json`, and of the files beside it."""

    @property
    def metrics(self) -> dict[str, Any]: ...

    def write(self, folder: Path) -> None:
        """Write `metrics.json`, `predictions.csv` and plots.

        Raises:
            OSError: if a file cannot be written.
        """


class Scorer(Protocol):
    """What a module here has.

    Args:
        OUTLIERS: whether images unlike the training images are rejected.
        SUMMARY: the scores whose mean over folds is given, and their ranges; the first is the most important.
        SHAPE: what its report and its conclusion rely on in a `metrics.json`.
        GATES: the scores in it that `--fail-under` knows.
    """

    OUTLIERS: bool
    SUMMARY: Mapping[str, tuple[float, float]]
    SHAPE: documents.Shape
    GATES: gates.Keys

    def temperature(self, targets: np.ndarray, logits: np.ndarray) -> float:
        """Return the divisor of the logits that suits validation images best."""

    def rules(self, targets: np.ndarray, outputs: np.ndarray, names: Sequence[str]) -> Decision:
        """Return the rules that every run gets, fitted on validation images; targets as `Dataset.labels`."""

    def write_outputs(self, path: Path, samples: Sequence[Sample], outputs: np.ndarray, names: Sequence[str]) -> None:
        """Write outputs and labels as CSV, without rules.

        Raises:
            OSError: if the file cannot be written.
        """

    def recalibrated(self, path: Path, facts: Artifact, config: CalibrateConfig) -> tuple[Decision, dict[str, Any]]:
        """Return the rules of a model with the changes that the settings ask for, fitted on a `validation.csv`.

        Returns:
            The rules, and what they make of those images: numbers, and `support`, the images of each name.

        Raises:
            UsageError: if a goal is not one of the task.
            DatasetError: if it cannot be reached.
            RunError: if the file is damaged, or has other names.
        """

    def score(
        self,
        samples: Sequence[Sample],
        outputs: np.ndarray,
        names: Sequence[str],
        rules: Decision,
        outlier_scores: np.ndarray | None = None,
        *,
        top_k: int = 5,
    ) -> Scored:
        """Apply the rules, and score what comes of it.

        Raises:
            ValueError: if the arrays do not fit together, or outputs are not what the task gives.
        """

    def read(self, path: Path) -> Any:
        """Return the content of a `predictions.csv`; it has `paths`.

        Raises:
            RunError: if the file is missing or damaged.
        """

    def names_of(self, found: Any) -> list[str]:
        """Return the names of the outputs in what `read` returned."""

    def pooled(self, found: Sequence[Any], paths: Sequence[str], names: Sequence[str], groups: Sequence[str]) -> Scored:
        """Score the predictions of several files together.

        Args:
            found: what `read` returned.
            paths, groups: of all their images, in the order of the files.

        Raises:
            RunError: if one has other names.
        """

    def compared(
        self, paths: Sequence[Path], found: Sequence[Any], rows: Sequence[np.ndarray], groups: Sequence[str]
    ) -> dict[str, Any]:
        """Compare runs on the same images; see `compare.compare`.

        Args:
            found: what `read` returned for each run.
            rows: for each run, the rows of the images.
            groups: of the images.

        Raises:
            RunError: if names or labels differ.
        """

    def matched(self, dataset: Dataset, names: Sequence[str], config: EvaluateConfig) -> Dataset:
        """Return the images that a model with these names can be scored on.

        Raises:
            DatasetError: if there are none, or the names differ in a way that the settings do not allow.
        """

    def headline(self, metrics: dict[str, Any], digits: int = 3) -> str:
        """Return the most important score with its interval, and the number of images."""

    def decided(self, metrics: dict[str, Any]) -> str:
        """Return a sentence on what the rules make of the images; empty where there is nothing to tell."""

    def tables(self, metrics: dict[str, Any]) -> list[Table]:
        """Return the scores for the terminal."""

    def described(self, facts: dict[str, Any]) -> Described:
        """Return what the model card says; facts as `facts.about` returns them."""

    def conclude(self, run: Run, folder: Path, metrics: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
        """Return the end of a training or an evaluation in plain words; see `conclusion.lines`."""

    def report(
        self,
        run: Run,
        folder: Path,
        *,
        files: Mapping[str, Path] | None = None,
        formats: Sequence[str] = ("html",),
        stage: Path | None = None,
    ) -> list[Path]:
        """Write the report on the scores in a folder; see `report.write`."""


def find(task: str) -> Scorer:
    """Return the scorer of a task.

    Raises:
        UsageError: if there is no such task.
    """
    tasks.find(task)
    return cast(Scorer, import_module(f"{__name__}.{task}"))


def read_scores(run: Run, folder: Path) -> dict[str, Any]:
    """Read the `metrics.json` in a folder, which has the scores of the run's task.

    Raises:
        RunError: if it is missing, damaged, or was written by an older version.
    """
    path = folder / run.metrics.name
    scores: dict[str, Any] = runs.read_json(path, runs.SOME_SCORES)
    try:
        of(run).SHAPE(scores, "")
    except ValueError as error:
        raise RunError(
            f"{path}: damaged, or written by an older version of imgclf ({error}). imgclf evaluate recomputes it."
        ) from None
    return scores


def task_of(run: Run) -> str:
    """Return the task of a run; the default where its `config.json` does not say.

    Raises:
        RunError: if the file is missing or damaged.
    """
    facts = runs.read_json(run.config, documents.fields({}, {"config": runs.SETTINGS}))
    return str(facts.get("config", {}).get("task", tasks.DEFAULT))


def of(run: Run) -> Scorer:
    """Return the scorer of a run's task.

    Raises:
        RunError: if its `config.json` is missing or damaged.
    """
    return find(task_of(run))
