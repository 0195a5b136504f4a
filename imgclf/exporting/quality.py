"""Measure accuracy, speed and size of a quantized model."""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import prediction, tasks
from imgclf.data import run_data
from imgclf.data.dataset import TEST, TRAIN
from imgclf.errors import ArtifactError, RunError
from imgclf.exporting import litert, parity
from imgclf.exporting.parity import KEPT, Samples
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.classifier import Classifier
from imgclf.runs import Run

CALIBRATION = 100
"""Training images that show int8 which values occur, at most."""

SCORED, SCORED_BYTES = 1000, 1 << 28
"""Images of the test split that are scored, at most, and bytes of their pixels."""

BATCH = 32
AGREEMENT = 0.9
"""The share of the test part's labels that must stay as they are in 32 bits."""


@dataclass(frozen=True)
class Quality:
    """Before is the same model in 32 bits in the same format.

    Accuracies (of other tasks, their score) are of `images`, those of the test part that were asked, and the agreement
    of labels is a share of them; `images_per_s`
    is the model alone, without decoding, on all cores; `bytes_before` is the size of the file.
    """

    images: int
    accuracy_before: float
    accuracy: float
    label_agreement: float
    images_per_s_before: float
    images_per_s: float
    bytes_before: int


def calibration(run: Run, facts: Artifact) -> np.ndarray:
    """Pixels of up to CALIBRATION training images, float32 (n, s, s, 3).

    Raises:
        ArtifactError: if none of them can be read any more.
    """
    dataset = run_data.read(run, verify=False)
    part = dataset.part(TRAIN) if any(s.split == TRAIN for s in dataset.samples) else dataset  # all, of an ensemble
    pixels = [image for _, _, image in parity.readable_images(part, facts, CALIBRATION)]
    if not pixels:
        raise ArtifactError(
            f"{run.path}: expected training images, on which int8 is calibrated, found none that can be read in "
            f"{part.root}."
        )
    return np.stack(pixels).astype(np.float32)


def measure(run: Run, facts: Artifact, new: Path, graph: Any) -> Quality | None:
    """Ask a quantised LiteRT model and the one in 32 bits about the run's test part; None where it has no images.

    Args:
        facts: what `artifact.json` beside the new model says.

    Raises:
        ArtifactError: if fewer than AGREEMENT of the labels stay what they were.
    """
    try:
        part = run_data.read(run, verify=False).part(TEST)
    except RunError:
        return None
    count = min(SCORED, SCORED_BYTES // (3 * facts.image_size**2))
    read = [(sample.label, image) for sample, _, image in parity.readable_images(part, facts, count)]
    if not read:
        return None
    task = tasks.find(facts.task)
    truth = task.encode([label for label, _ in read], facts.labels)
    pixels = np.stack([image for _, image in read])  # as bytes: a quarter of what they are as numbers
    with tempfile.TemporaryDirectory(dir=new.parent) as folder:
        full = Path(folder) / "model.tflite"
        full.write_bytes(litert.convert(graph, facts.labels))
        before_bytes = full.stat().st_size
        artifact.write(full.parent, replace(facts, files={full.name: File("litert", *artifact.hash_tree(full))}))
        (before, rate_before), (after, rate) = _ask((prediction.load(full), prediction.load(new)), pixels)
    agreement = task.agreement(before, after, 0.0)
    if agreement < AGREEMENT:
        raise ArtifactError(
            f"{run.path / new.name}: expected at least {AGREEMENT:.0%} of the labels of {len(truth)} test images as in "
            f"32 bits, found {agreement:.0%}. {KEPT}"
        )
    return Quality(
        images=len(truth),
        accuracy_before=task.best_score(before, truth),
        accuracy=task.best_score(after, truth),
        label_agreement=agreement,
        images_per_s_before=rate_before,
        images_per_s=rate,
        bytes_before=before_bytes,
    )


def _ask(classifiers: Sequence[Classifier], pixels: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """For each classifier its outputs (n, classes), and images per second: one batch for each in turn, so that what
    else the machine does slows them alike."""
    outputs: list[list[np.ndarray]] = [[] for _ in classifiers]
    seconds = [0.0 for _ in classifiers]
    for classifier in classifiers:  # the first run makes ready
        classifier.probabilities(pixels[:1].astype(np.float32))
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH].astype(np.float32)
        for place, classifier in enumerate(classifiers):
            begin = time.perf_counter()
            outputs[place].append(classifier.probabilities(batch))
            seconds[place] += time.perf_counter() - begin
    return [(np.concatenate(rows), round(len(pixels) / spent, 1)) for rows, spent in zip(outputs, seconds, strict=True)]


def agreements(
    new: Path, precisions: Iterable[str], samples: Samples, expected: np.ndarray, task: str
) -> dict[str, float]:
    """For other precisions that the same file can be run in: the share of labels that are Keras's.

    Args:
        expected: the outputs (n, classes) of the task.
    """
    found = {}
    for precision in precisions:
        answers = prediction.load(new, precision=precision).probabilities(samples.pixels)
        found[precision] = tasks.find(task).agreement(expected, answers, 0.0)
    return found
