"""A run's model on labeled images: which images and classes, the predictions, and their scores."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from imgclf import prediction, runs, storage, tasks
from imgclf.data import run_data
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Sample, Skipped, read_manifest
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation import gates, robustness, scorers, slices
from imgclf.evaluation.gates import Keys
from imgclf.evaluation.scorers import Scored
from imgclf.prediction import Classifier, Prediction, artifact
from imgclf.prediction.forms import Answer
from imgclf.runs import Run
from imgclf.settings import EvaluateConfig

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Called with the name of the phase, the steps done and the steps in all (None if unknown)."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of `scoring.score`, the folder with their files, the images left out of them, and the gates.

    `robustness` and `slices` are what was asked for besides, as `robustness.measure` and `slices.measure` return it.
    """

    folder: Path
    metrics: dict[str, Any]
    skipped: tuple[Skipped, ...]
    gates: Mapping[str, float]
    keys: Keys
    robustness: dict[str, Any] | None = None
    slices: dict[str, Any] | None = None

    def check(self) -> None:
        """Apply the gates of `EvaluateConfig.fail_under`.

        Raises:
            GateError: if a score misses its gate.
            UsageError: if a gate names an unknown class or k.
        """
        if self.gates:
            gates.check(self.metrics, self.gates, self.keys)


def evaluate(
    run: Run | Path | str,
    dataset: Dataset | None = None,
    config: EvaluateConfig | None = None,
    *,
    data: Path | None = None,
    output: Path | str | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score a run's model, and write `metrics.json`, `predictions.csv`, plots and the report.

    Classes are matched by name. Unreadable images are left out of the scores.

    Args:
        run: the run or its folder.
        dataset: labeled images. If they are already split, the test part is scored, or else the validation part; if
            not, all of them. None is the run's own test part.
        data: where the run's own images lie now, if they have moved; they are identified by their content.
        output: a new or empty folder. By default the run itself for its own test part, and
            `evaluations/<data>-<number>` in the run for other images.

    Raises:
        DatasetError: if images of the run's test part are missing, a class is missing or unknown (see
            `EvaluateConfig`), or no image is left.
        UsageError: if both `dataset` and `data` are given, or a gate in `fail_under` is unknown.
        RunError: if the run has no model, is damaged, its outputs are not probabilities, or the output cannot be
            written.
    """
    config = config or EvaluateConfig()
    run = runs.find(run)
    scorer = scorers.of(run)
    least = gates.parse(config.fail_under, scorer.GATES)
    for name in ("robustness", "slices"):
        if getattr(config, name):
            tasks.refuse(scorers.task_of(run), f"--{name}")
    labels = run.read_labels()
    output = Path(output) if output else None
    if dataset is not None and data is not None:
        raise UsageError("--data tells where the run's own images lie now; leave it out to score DATA.")
    part, files = _own_test_part(run, data, config) if dataset is None else _other_part(run, dataset, labels, config)
    runs.check_new(output)
    progress = on_progress or (lambda phase, done, total: None)
    progress("loading the model", 0, None)
    classifier = _classifier(run, labels, config.allow_truncated)
    predictions: list[Answer] = []
    for each in classifier.stream([files[sample.path] for sample in part.samples], config.batch_size):
        predictions.append(each)
        progress("predicting", len(predictions), len(part))
    progress("scoring", 0, None)
    samples, readable, skipped = _readable(part, predictions)
    scored = _score(run, samples, readable, classifier, config.top_k)
    extras = _more(config, classifier, samples, readable, files, progress)
    folder = output or run.path
    if dataset is not None and output is None:
        folder = runs.create_next(run.path / "evaluations", part.name or "data")
    progress("writing the report", 0, None)
    try:
        with _whole(run, folder) as stage:
            scored.write(stage)
            extras.write(stage)
            scorer.report(run, folder, files=files, formats=config.formats, stage=stage)
    except OSError as error:
        raise RunError(f"{folder}: the scores cannot be written ({error.strerror}). Choose another -o.") from None
    return Evaluation(folder, scored.metrics, skipped, least, scorer.GATES, extras.robustness, extras.slices)


@dataclass(frozen=True)
class _Extras:
    """What was asked for besides the scores, and the images of the contact sheet."""

    robustness: dict[str, Any] | None = None
    sheet: np.ndarray | None = None
    slices: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        if self.robustness and self.sheet is not None:
            robustness.write(folder, self.robustness, self.sheet)
        if self.slices:
            slices.write(folder, self.slices)


def _more(
    config: EvaluateConfig,
    classifier: Classifier,
    samples: Sequence[Sample],
    predictions: Sequence[Answer],
    files: Mapping[str, Path],
    progress: Progress,
) -> _Extras:
    """Score corrupted images, and slices of the images, where the settings ask for it."""
    sliced = None
    if config.slices:  # first, since a table that does not fit is an error
        progress("slices", 0, None)
        classes = cast(Sequence[Prediction], predictions)
        correct = [each.label == sample.label for each, sample in zip(classes, samples, strict=True)]
        table = Path(config.slice_table) if config.slice_table else None
        sliced = slices.measure(samples, files, correct, rules=classifier.decoding, table=table)
    if not config.robustness:
        return _Extras(slices=sliced)
    most, batch_size = config.robustness_images, config.batch_size
    tested, sheet = robustness.measure(
        classifier, samples, files, most=most, batch_size=batch_size, on_progress=progress
    )
    return _Extras(tested, sheet, sliced)


@contextlib.contextmanager
def _whole(run: Run, folder: Path) -> Iterator[Path]:
    """Stage files, which come into a new folder, or into the run, all at once."""
    if folder != run.path:
        with storage.new_folder(folder) as stage:
            yield stage
        return
    with run.lock(), storage.stage(folder) as stage:
        yield stage
        names = (*robustness.FILES, slices.FILE)  # of a former evaluation
        storage.install(stage, folder, remove=[name for name in names if not (stage / name).exists()])


def _readable(part: Dataset, predictions: Sequence[Answer]) -> tuple[list[Sample], list[Answer], tuple[Skipped, ...]]:
    """Return the images that could be read, their predictions, and the files of this part that could not be read."""
    kept = [pair for pair in zip(part.samples, predictions, strict=True) if pair[1].error is None]
    broken = [pair for pair in zip(part.samples, predictions, strict=True) if pair[1].error is not None]
    skipped = [*part.skipped, *(Skipped(sample.path, "unreadable", each.error or "") for sample, each in broken)]
    for item in skipped:
        log.warning("left out: %s: %s", item.path, item.reason)
    if not kept:
        raise DatasetError(f"{part.root}: none of the {len(part)} images to score can be read.")
    return [sample for sample, _ in kept], [each for _, each in kept], tuple(skipped)


def _score(
    run: Run, samples: Sequence[Sample], predictions: Sequence[Answer], classifier: Classifier, top_k: int
) -> Scored:
    outputs, scorer = np.array([each.output for each in predictions]), scorers.find(classifier.task)
    distances = [each.outlier_score for each in predictions if each.outlier_score is not None]
    outlier_scores = np.array(distances) if len(distances) == len(predictions) else None
    try:
        return scorer.score(samples, outputs, classifier.labels, classifier.rules, outlier_scores, top_k=top_k)
    except ValueError as error:
        raise RunError(f"{run.path}: the predictions cannot be scored. {error} Export or train again.") from None


def _other_part(
    run: Run, dataset: Dataset, labels: list[str], config: EvaluateConfig
) -> tuple[Dataset, Mapping[str, Path]]:
    """Return the images of a data set to score, and where their files lie."""
    task = scorers.task_of(run)
    if dataset.task != task:
        raise UsageError(f"--task {dataset.task}: {run.path} has the task {task}. Read the images with --task {task}.")
    part = scorers.find(task).matched(_part_to_score(dataset), labels, config)
    _warn_of_training_images(run, part)
    return part, part.files


def _own_test_part(run: Run, data: Path | None, config: EvaluateConfig) -> tuple[Dataset, Mapping[str, Path]]:
    """Return the test part under the names of the manifest, which other runs share, and where its files lie."""
    defaults = EvaluateConfig()
    if (config.missing_classes, config.unknown_classes) != (defaults.missing_classes, defaults.unknown_classes):
        log.info("--missing-classes and --unknown-classes have no effect on the run's own test part.")
    found = run_data.read(run, data, splits=(TEST,))
    if not len(found):
        raise DatasetError(
            f"{run.manifest}: the run has no test part. Name a folder to score instead: "
            f"imgclf evaluate {run.path} DATA."
        )
    gone = run_data.missing(found) if data is None else None
    if gone:
        raise gone
    named = [sample for sample in read_manifest(run.manifest, found.root).samples if sample.split == TEST]
    files = {sample.path: path for sample, path in zip(named, found.paths, strict=True)}
    return replace(found, samples=tuple(named)), files


def _part_to_score(dataset: Dataset) -> Dataset:
    """Return the test part, else the validation part, else everything, with its unreadable files."""
    dataset = dataset.as_given() if dataset.settings else dataset
    unreadable = tuple(s for s in dataset.skipped if s.kind == "unreadable")
    for split in (TEST, VALIDATION):
        part = dataset.part(split)
        if len(part):
            log.info("%s is already split: scoring its %s part, %d images.", dataset.root, split, len(part))
            folders = {_top(s) for s in part.samples}
            return replace(part, skipped=tuple(s for s in unreadable if _top(s) in folders))
    return replace(dataset, skipped=unreadable)


def _top(item: Sample | Skipped) -> str:
    return item.path.partition("/")[0]


def _warn_of_training_images(run: Run, part: Dataset) -> None:
    """Scores on training images say little; the manifest identifies these by their content."""
    if not run.manifest.is_file():
        return
    known = run_data.read(run, splits=(TRAIN, VALIDATION), verify=False)
    learned = {s.sha256 for s in known.samples if s.sha256}
    seen = sum(s.sha256 in learned for s in part.samples)
    if seen:
        log.warning("%d of these %d images were used in training, so the scores are optimistic.", seen, len(part))


def _classifier(run: Run, labels: list[str], allow_truncated: bool) -> Classifier:
    """Return the model as `imgclf predict` opens it: an exported one, or `model.keras` where nothing is exported."""
    if not run.artifact.is_file():
        raise RunError(f"{run.artifact}: missing, so the run has no model. Is the training finished?")
    classifier = prediction.load(run.path, allow_truncated=allow_truncated)
    if list(classifier.labels) != labels:
        raise RunError(f"{run.labels}: expected the classes of {artifact.NAME}, found others. Restore one of the two.")
    return classifier
