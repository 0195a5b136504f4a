"""Distillation: a student learns what a trained run predicts for each training image, besides the true label.

With p the teacher's probabilities and q the student's, both at temperature T, and w the weight of the true labels, the
loss of a labeled image is w CE(label, student) + (1 - w) T^2 CE(p, q); that of an unlabeled image is T^2 CE(p, q).

Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
"""

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from imgclf import documents, runs, storage, tasks
from imgclf.data import dataset as datasets
from imgclf.data import file_listing, loading
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Sample, listed
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.prediction import artifact
from imgclf.prediction import loading as prediction
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.settings.classical import NETWORK
from imgclf.training.progress import OnProgress

log = logging.getLogger("imgclf")

SMALLEST = 1e-12
"""Smallest probability whose logarithm is taken."""


@dataclass(frozen=True)
class Lessons:
    """What the teacher adds to the training images.

    Args:
        targets: float32 (n + u, 2 classes), of the n training images and u unlabeled ones: first 1 at the true class,
            nothing for an unlabeled image; then the teacher's softened probabilities.
        unlabeled: uint8 (u, s, s, 3); None where there are none.
    """

    targets: np.ndarray
    unlabeled: loading.Pixels | None

    def pixels(self, own: loading.Rows) -> loading.Rows:
        """Those of the training images and the unlabeled ones."""
        return own if self.unlabeled is None else _Joined(own, self.unlabeled)


class _Joined:
    """The images of two sources under consecutive numbers."""

    def __init__(self, first: loading.Rows, second: loading.Rows) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        rows, count = np.arange(len(self))[index], len(self._first)
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        is_first = rows < count
        found[is_first], found[~is_first] = self._first[rows[is_first]], self._second[rows[~is_first] - count]
        return found


def check(settings: TrainConfig, dataset: Dataset) -> TrainConfig:
    """Check that the teacher can teach these images, and make its path and that of unlabeled images absolute.

    Raises:
        UsageError: if the settings do not go together, or the teacher has another task or other classes.
        RunError: if there is no such run, or it is not finished.
        DatasetError: if the folder of unlabeled images is missing.
    """
    if settings.distill is None:
        if settings.unlabeled is not None:
            raise UsageError(f"--unlabeled {settings.unlabeled}: expected --distill RUN beside it, found none.")
        return settings
    tasks.refuse(dataset.task, "--distill")
    if settings.model != NETWORK:
        raise UsageError(f"--distill: expected a student trained by gradient descent, found --model {settings.model}.")
    teacher = runs.find(settings.distill)
    if not teacher.artifact.is_file():
        raise RunError(f"--distill {teacher.path}: the training of this run is not finished. Resume it first.")
    facts = artifact.read(teacher.path)
    if facts.task != dataset.task:
        raise UsageError(f"--distill {teacher.path}: expected a teacher of --task {dataset.task}, found {facts.task}.")
    if set(facts.labels) != set(dataset.class_names):
        raise UsageError(
            f"--distill {teacher.path}: expected a teacher of the classes {listed(dataset.class_names)}, found "
            f"{listed(facts.labels)}. Choose classes with --classes, or another teacher."
        )
    if settings.unlabeled is not None and not Path(settings.unlabeled).is_dir():
        raise DatasetError(f"--unlabeled {settings.unlabeled}: expected a folder of images, found none.")
    _warn_of_leaks(teacher, dataset)
    more = settings.unlabeled and str(Path(settings.unlabeled).resolve())
    return TrainConfig(**settings.to_dict() | {"distill": str(teacher.path.resolve()), "unlabeled": more})


def _warn_of_leaks(teacher: Run, dataset: Dataset) -> None:
    """Say so if the teacher was trained on images that the student is tested on."""
    if not teacher.manifest.is_file():
        return
    taught = datasets.read_manifest(teacher.manifest, dataset.root).samples
    known = {s.sha256 for s in taught if s.split in (TRAIN, VALIDATION) and s.sha256}
    seen = sum(s.sha256 in known for s in dataset.samples if s.split == TEST)
    if seen:
        log.warning(
            "The teacher was trained on %d of the test images, so the student's test scores are too good. Use the "
            "teacher's split: --split-from %s.",
            seen,
            teacher.path,
        )


def lessons(
    settings: TrainConfig, dataset: Dataset, run: Run, size_px: int, on_progress: OnProgress | None
) -> Lessons | None:
    """Return the lessons of a training; None where it has no teacher.

    The teacher's probabilities are stored in the run, so that a training that resumes learns the same.

    Args:
        dataset: the images that could be decoded.
        run: whose soft labels to use, or to write.
        size_px: of the student's images.

    Raises:
        RunError: if the stored soft labels are damaged, or are of other images.
        DatasetError: if unlabeled images are gone, or there are none.
    """
    if settings.distill is None:
        return None
    train, extra = dataset.part(TRAIN), None
    pixels: loading.Pixels | None = None
    if settings.unlabeled is not None:
        extra, pixels = loading.decode(
            _unlabeled(Path(settings.unlabeled), dataset),
            size_px,
            settings.decoding,
            cache=settings.cache,
            cache_limit_gb=settings.cache_limit_gb,
        )
        for skipped in extra.skipped:
            log.warning("Left out %s: %s", skipped.path, skipped.reason)
    asked = [train, extra] if extra else [train]
    hashes = np.concatenate([loading.content_hashes(each) for each in asked])
    stored = _read(run, dataset.class_names) if run.soft_labels.is_file() else None
    if stored is None:
        paths = [path for each in asked for path in each.paths]
        probabilities = _predictions(Path(settings.distill), paths, dataset.class_names, on_progress)
        _write(run, hashes, probabilities)
        log.info(
            "Distillation: soft labels of %d training images%s from %s, temperature %g, weight of the true labels %g.",
            len(train),
            f" and {len(extra)} unlabeled images" if extra else "",
            settings.distill,
            settings.distill_temperature,
            settings.label_weight,
        )
    else:
        if changed := [value for value in hashes.tolist() if value not in stored]:
            raise RunError(
                f"{run.soft_labels}: expected soft labels of every training image, found none for {len(changed)} of "
                f"{len(hashes)}: training or unlabeled images have changed since. Train again."
            )
        probabilities = np.stack([stored[value] for value in hashes.tolist()])
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(train)), train.labels] = 1
    softened = soften(probabilities, settings.distill_temperature)
    return Lessons(np.concatenate([truth, softened], axis=1), pixels)


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """float32 (n, classes): the probabilities that the same logits give when they are divided by a temperature."""
    logits = np.log(np.maximum(probabilities, SMALLEST))
    softened: np.ndarray = softmax(logits / temperature, axis=1).astype(np.float32)
    return softened


def _unlabeled(folder: Path, dataset: Dataset) -> Dataset:
    """Return the images of a folder at any depth, but for those that the labeled data contain, whatever their split."""
    found = file_listing.scan(folder)
    samples = tuple(Sample(path, "", TRAIN) for path in found.files)
    if not samples:
        raise DatasetError(f"--unlabeled {folder}: expected images, found none.")
    every = Dataset(folder, samples, dataset.class_names)
    known = set(loading.content_hashes(dataset).tolist())
    hashes = loading.content_hashes(every)
    once = dict(zip(hashes.tolist(), samples, strict=True))
    kept = tuple(
        Sample(sample.path, "", TRAIN, sha256=value.decode()) for value, sample in once.items() if value not in known
    )
    if len(kept) < len(samples):
        log.info(
            "%s: left out %d of %d images, which are among the labeled ones or there twice.",
            folder,
            len(samples) - len(kept),
            len(samples),
        )
    if not kept:
        raise DatasetError(f"--unlabeled {folder}: expected images that are not among the labeled ones, found none.")
    return Dataset(folder, kept, dataset.class_names)


def _predictions(
    teacher: Path, paths: list[Path], class_names: tuple[str, ...], on_progress: OnProgress | None
) -> np.ndarray:
    """Return the teacher's probabilities, float32 (n, classes), in the order of `class_names`."""
    classifier = prediction.load(teacher, count=len(paths))
    order = [classifier.labels.index(name) for name in class_names]
    rows = np.empty((len(paths), len(order)), np.float32)
    for place, found in enumerate(classifier.stream(paths)):
        if found.error:
            raise DatasetError(f"{paths[place]}: the teacher cannot read this image ({found.error}).")
        rows[place] = found.probabilities[order]
        if on_progress:
            on_progress("the teacher's predictions", place + 1, len(paths))
    return rows


def _write(run: Run, hashes: np.ndarray, probabilities: np.ndarray) -> None:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, sha256=hashes, probabilities=probabilities)
    storage.write_atomic(run.soft_labels, file.getvalue(), parents=False)


def _read(run: Run, class_names: tuple[str, ...]) -> dict[bytes, np.ndarray]:
    """Return the stored probabilities by the SHA-256 of the images."""
    try:
        found = documents.arrays(run.soft_labels)
        hashes, probabilities = found["sha256"], found["probabilities"]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{run.soft_labels}: the soft labels are damaged ({error}). Train again.") from None
    if probabilities.shape != (len(hashes), len(class_names)):
        raise RunError(
            f"{run.soft_labels}: expected probabilities of {len(hashes)} images and {len(class_names)} classes, found "
            f"the shape {probabilities.shape}. Train again."
        )
    return dict(zip(hashes.tolist(), probabilities, strict=True))
