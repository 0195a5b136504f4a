"""A run's model on labelled images: which images, which classes, what it says of them, and how good that is."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import prediction, runs
from imgclf.data import run_data
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Sample, Skipped, read_manifest
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation import decisions, metrics, outputs, plots, report
from imgclf.prediction import artifact
from imgclf.prediction.classifier import Classifier, Prediction
from imgclf.runs import Run
from imgclf.settings import EvaluateConfig

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the phase's name, the steps done and the steps there are."""


@dataclass(frozen=True)
class Evaluation:
    """What came out: the scores of `metrics.score`, the folder that holds them, and the images left out of them."""

    folder: Path
    metrics: dict[str, Any]
    skipped: tuple[Skipped, ...]


def evaluate(
    run: Run | Path | str,
    dataset: Dataset | None = None,
    config: EvaluateConfig | None = None,
    *,
    data: Path | None = None,
    output: Path | str | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score a run's model, and write `metrics.json`, `predictions.csv`, `confusion_matrix.png` and the report.

    Classes are matched by name, whatever their order. Unreadable images are left out of the scores.

    Args:
        run: the run or its folder.
        dataset: labelled images. Of images that are already split the test part is scored, or else the validation
            part; of others all. None is the run's own test part.
        data: where the run's own images lie now, if no longer where the run found them; they are told by their content.
        output: a new or empty folder. By default the run itself for its own test part, and
            `evaluations/<data>-<number>` in the run for other images.

    Raises:
        DatasetError: if images of the run's test part are gone, a class is missing or unknown (see `EvaluateConfig`),
            or no image is left.
        UsageError: if both `dataset` and `data` are given.
        RunError: if the run has no model, is damaged, answers with what are no probabilities, or the output cannot be
            written.
    """
    defaults = EvaluateConfig()
    config = config or defaults
    run = runs.find(run)
    labels = run.read_labels()
    folder = output = Path(output) if output else None
    if dataset is not None and data is not None:
        raise UsageError("--data tells where the run's own images lie now; leave it out to score DATA.")
    files: dict[str, Path]
    if dataset is None:
        if (config.missing_classes, config.unknown_classes) != (defaults.missing_classes, defaults.unknown_classes):
            log.info("--missing-classes and --unknown-classes have no effect on the run's own test part.")
        part, files = _own_test_part(run, data)
        folder = output or run.path
    else:
        part = _matched(_part_to_score(dataset), labels, config)
        files = part.files
        _warn_of_training_images(run, part)
    if output and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output}: expected a new or empty folder, found something there. Choose another -o.")

    answers = []
    classifier = _classifier(run, labels, config.allow_truncated)
    for answer in classifier.stream([files[sample.path] for sample in part.samples], config.batch_size):
        answers.append(answer)
        if on_progress:
            on_progress("evaluating", len(answers), len(part))
    kept, skipped = _readable(part, answers)
    truth = np.array([labels.index(sample.label) for sample, _ in kept])
    probabilities = np.stack([row for _, row in kept])
    groups = [sample.group for sample, _ in kept]
    try:
        metrics.check(truth, probabilities, labels)
    except ValueError as error:
        raise RunError(f"{run.path}: the model's answers cannot be scored. {error} Export or train it again.") from None
    scores = metrics.score(truth, probabilities, labels, top_k=config.top_k, groups=groups)
    strange = [answer.outlier_score for answer in answers if answer.probabilities is not None]
    scores["decision"] = decisions.measure(
        truth,
        probabilities,
        labels,
        classifier.rules,
        reject_below=classifier.reject_below,
        outlier_scores=None if None in strange else np.array(strange, np.float32),
    )
    if folder is None:
        folder = runs.create_next(run.path / "evaluations", part.name or "data")
    try:
        paths = [sample.path for sample, _ in kept]
        outputs.write_predictions(folder / run.predictions.name, paths, truth, probabilities, labels)
        plots.confusion_matrix(folder / "confusion_matrix.png", scores)
        runs.write_json(folder / run.metrics.name, scores)
        report.write(run, folder, files=files, formats=config.formats)
    except OSError as error:
        raise RunError(f"{folder}: the scores cannot be written ({error.strerror}). Choose another -o.") from None
    return Evaluation(folder, scores, skipped)


def _readable(
    part: Dataset, answers: Sequence[Prediction]
) -> tuple[list[tuple[Sample, np.ndarray]], tuple[Skipped, ...]]:
    """The images that have probabilities, with these, and the files of this part that could not be read."""
    kept, skipped = [], [*part.skipped]
    for sample, answer in zip(part.samples, answers, strict=True):
        if answer.probabilities is None:
            skipped.append(Skipped(sample.path, "unreadable", answer.error or ""))
        else:
            kept.append((sample, answer.probabilities))
    for item in skipped:
        log.warning("left out: %s: %s", item.path, item.reason)
    if not kept:
        raise DatasetError(f"{part.root}: expected images to score, but none of {len(part)} could be read.")
    return kept, tuple(skipped)


def _own_test_part(run: Run, data: Path | None) -> tuple[Dataset, dict[str, Path]]:
    """The test part by the names of the manifest, under which other runs know it, too; and where its files lie."""
    found = run_data.read(run, data, splits=(TEST,))
    if not len(found):
        raise DatasetError(
            f"{run.manifest}: expected images of the test part, found none. Name a folder to score instead: "
            f"imgclf evaluate {run.path} DATA."
        )
    gone = run_data.missing(found) if data is None else None
    if gone:
        raise gone
    named = [sample for sample in read_manifest(run.manifest, found.root).samples if sample.split == TEST]
    files = {sample.path: path for sample, path in zip(named, found.paths, strict=True)}
    return replace(found, samples=tuple(named)), files


def _part_to_score(dataset: Dataset) -> Dataset:
    """The test part, else the validation part, else everything, with the unreadable files that lie in it."""
    dataset = dataset.as_given() if dataset.settings else dataset
    unreadable = tuple(s for s in dataset.skipped if s.kind == "unreadable")
    for side in (TEST, VALIDATION):
        part = dataset.part(side)
        if len(part):
            log.info("%s is already split: its %s part is scored, %d images.", dataset.root, side, len(part))
            folders = {_top(s) for s in part.samples}
            return replace(part, skipped=tuple(s for s in unreadable if _top(s) in folders))
    return replace(dataset, skipped=unreadable)


def _top(item: Sample | Skipped) -> str:
    return item.path.partition("/")[0]


def _matched(dataset: Dataset, labels: list[str], config: EvaluateConfig) -> Dataset:
    """The images whose class the model knows.

    Raises:
        DatasetError: if classes differ in a way that the settings do not allow, or nothing is left.
    """
    found = {s.label for s in dataset.samples}
    unknown = sorted(found - set(labels))
    if len(unknown) == len(found):
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {_listed(labels)}; found none of them, but "
            f"{_listed(unknown)}. Rename the folders, or choose another run."
        )
    if unknown and config.unknown_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected the model's classes, {_listed(labels)}; found {_listed(unknown)}, too. "
            "Rename the folders, or leave their images out with --unknown-classes skip."
        )
    missing = [name for name in labels if name not in found]
    if missing and config.missing_classes == "error":
        raise DatasetError(
            f"{dataset.root}: expected images of all the model's classes, found none of {_listed(missing)}. "
            "Score the others with --missing-classes allow."
        )
    if missing:
        log.info("no images of %s: they count in no mean.", _listed(missing))
    kept = tuple(s for s in dataset.samples if s.label not in unknown)
    if unknown:
        log.warning(
            "left out: %d images of %s, which the model does not know.", len(dataset) - len(kept), _listed(unknown)
        )
    return replace(dataset, samples=kept)


def _listed(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _warn_of_training_images(run: Run, part: Dataset) -> None:
    """Scores on images that the model has learned from say little; the manifest knows these by content."""
    if not run.manifest.is_file():
        return
    known = run_data.read(run, splits=(TRAIN, VALIDATION), verify=False)
    learned = {s.sha256 for s in known.samples if s.sha256}
    seen = sum(s.sha256 in learned for s in part.samples)
    if seen:
        log.warning("%d of these %d images were used in training: the scores flatter the model.", seen, len(part))


def _classifier(run: Run, labels: list[str], allow_truncated: bool) -> Classifier:
    """The exported model, or Keras's where nothing is exported."""
    exported = next((path for path in (run.litert, run.saved_model) if path.exists()), None)
    if exported:
        classifier = prediction.load(exported, allow_truncated=allow_truncated)
    elif run.model.is_file():
        from imgclf.prediction.runtimes import KerasRuntime

        facts = artifact.read(run.path)
        artifact.verify(run.path, facts, run.model.name)
        facts = replace(facts, allow_truncated=allow_truncated or facts.allow_truncated)
        classifier = Classifier(facts, KerasRuntime(run.model))
    else:
        raise RunError(f"{run.path}: expected a model in the run, found none. Is the training finished?")
    if list(classifier.labels) != labels:
        raise RunError(f"{run.labels}: expected the classes of {artifact.NAME}, found others. Restore one of the two.")
    return classifier
