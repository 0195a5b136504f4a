"""Is the network worth it? Simple classifiers and networks on the same folds, in one ranked table."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import storage, tasks
from imgclf.data import loading, reading, splitting
from imgclf.data.dataset import Dataset
from imgclf.descriptors import extraction
from imgclf.descriptors.extraction import OnProgress
from imgclf.descriptors.kinds import SIZE_PX, Descriptor
from imgclf.evaluation.compare import pair
from imgclf.evaluation.intervals import wilson
from imgclf.questions import pages
from imgclf.settings import BaselineConfig, FeaturesConfig, TrainConfig

CLASSICAL = {
    "mean-color": ("mean color + k-NN", "knn"),
    "color-histogram": ("color histogram + SVM", "svm"),
    "hog": ("HOG + SVM", "svm"),
    "lbp": ("LBP + forest", "forest"),
}
"""By the kind of the features: the name of the row, and the model."""

NETWORKS = {"lenet5": ("LeNet-5", 32), "small-cnn": ("small CNN", 64)}
"""By the backbone: the name of the row, and the side of its images in px."""

PROBE = "probe of the default backbone"
LEVEL = 0.05


@dataclass(frozen=True)
class Baseline:
    """The comparison.

    Args:
        rows: the best first: `name`, `accuracy`, `interval` (95%, Wilson), `seconds`, and `note`, such as
            "stopped after 30 s"; empty for nothing.
        images: how many were tested, each once.
        sentence: whether the network is worth it.
    """

    rows: list[dict[str, Any]]
    images: int
    folds: int
    sentence: str

    def write(self, path: Path) -> None:
        """Write the comparison as a page.

        Raises:
            UsageError: if the file cannot be written.
        """
        page = pages.render(
            "baseline.html", rows=self.rows, images=self.images, folds=self.folds, sentence=self.sentence
        )
        storage.write_named(path, page)


def baseline(
    dataset: Dataset, config: BaselineConfig | None = None, *, on_progress: OnProgress | None = None
) -> Baseline:
    """Cross-validate simple classifiers and networks on the same folds, and rank them by accuracy.

    A test split that the data came with stays out. Networks share what is left of the time limit; one that is cut short
    says so.

    Raises:
        UsageError: if the task of the data has no classes.
        MissingError: if the extra `classical` is needed and not installed.
        DatasetError: if a class would be without training images in one of the folds.
    """
    started = time.monotonic()
    config = reading.settled(dataset, config or BaselineConfig())
    tasks.refuse(dataset.task, "baseline")
    from imgclf.training import crossval  # Keras takes seconds to import

    dataset, _ = crossval.images_to_fold(dataset, config)
    dataset, _ = loading.decode(dataset, SIZE_PX, config.decoding)  # without images that cannot be read
    folds = splitting.folds(dataset, config.folds, config.seed, reading.related(dataset, config))
    work = _Work(dataset, config, folds, started + config.limit_s)
    found: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(config.wanted):
        if on_progress:
            on_progress(f"baseline {name},", place + 1, len(config.wanted))
        begun = time.monotonic()
        title, predicted, was_stopped = work.row(name, len(config.wanted) - place)
        spent = time.monotonic() - begun
        right = int((predicted == dataset.labels).sum())
        found[title] = predicted
        rows.append(
            {
                "name": title,
                "accuracy": right / len(dataset),
                "interval": list(wilson(right, len(dataset))),
                "seconds": round(spent, 1),
                "note": f"stopped after {spent:.0f} s" if was_stopped else "",
            }
        )
    rows.sort(key=lambda row: row["accuracy"], reverse=True)
    return Baseline(rows, len(dataset), config.folds, conclusion(dataset.labels, found))


@dataclass(frozen=True)
class _Work:
    dataset: Dataset
    config: BaselineConfig
    folds: list[tuple[np.ndarray, np.ndarray]]
    deadline: float

    def row(self, name: str, rows_left: int) -> tuple[str, np.ndarray, bool]:
        """Return the title of a row, the predicted class indices, and whether the time was up."""
        from imgclf.training import quick_fit

        labels, classes, seed = self.dataset.labels, len(self.dataset.class_names), self.config.seed
        if name == "majority":
            return "majority class", self._each(lambda train: np.bincount(labels[train]).argmax()), False
        if name in CLASSICAL:
            return CLASSICAL[name][0], self._classical(name), False
        if name == "probe":
            embeddings = self._embeddings()
            return PROBE, quick_fit.probes(embeddings, labels, self.folds, classes=classes, seed=seed).predicted, False
        title, size_px = NETWORKS[name]
        _, pixels = loading.decode(self.dataset, size_px, self.config.decoding)
        left_s = max(1.0, (self.deadline - time.monotonic()) / rows_left)
        fitted = quick_fit.networks(name, pixels[:], labels, self.folds, classes=classes, seed=seed, limit_s=left_s)
        return title, fitted.predicted, fitted.was_stopped

    def _each(self, constant: Callable[[np.ndarray], Any]) -> np.ndarray:
        predicted = np.zeros(len(self.dataset), np.int64)
        for train, tested in self.folds:
            predicted[tested] = constant(train)
        return predicted

    def _classical(self, name: str) -> np.ndarray:
        from imgclf.prediction import classical as stored
        from imgclf.training import classical

        _, pixels = loading.decode(self.dataset, SIZE_PX, self.config.decoding)
        vectors = extraction.of_pixels(Descriptor(name, SIZE_PX), pixels)
        predicted, labels = np.zeros(len(vectors), np.int64), self.dataset.labels
        for train, tested in self.folds:
            settings = TrainConfig(model=CLASSICAL[name][1], k=min(5, len(train)), seed=self.config.seed)
            estimator = classical.make(settings, len(train)).fit(vectors[train], labels[train])
            predicted[tested] = stored.logits(estimator, vectors[tested]).argmax(axis=1)
        return predicted

    def _embeddings(self) -> np.ndarray:
        from imgclf.questions.feature_table import features

        rules = self.config.decoding.to_dict()
        plain = replace(self.dataset, settings=None)
        return features(plain, FeaturesConfig(features="embedding", **rules)).vectors


def conclusion(labels: np.ndarray, predicted: dict[str, np.ndarray]) -> str:
    """Say whether the best network beats the best other classifier by more than chance explains.

    Args:
        labels: int (n,).
        predicted: int (n,) by the name of the row.
    """
    titles = {PROBE, *(title for title, _ in NETWORKS.values())}
    right = {name: int((own == labels).sum()) for name, own in predicted.items()}
    networks, others = ([name for name in right if (name in titles) is wanted] for wanted in (True, False))
    if not networks or not others:
        return "Compare a network with another classifier to learn whether it is worth it."
    network, other = (max(names, key=lambda name: right[name]) for names in (networks, others))
    gain = pair(labels, predicted[other], predicted[network])
    points, (low, high) = 100 * gain["accuracy"], (100 * end for end in gain["interval"])
    span = f"{points:+.1f} percentage points over {other} (95% CI {low:+.1f} to {high:+.1f})"
    if gain["p"] < LEVEL and points > 0:
        return f"The network is worth it: {network} gains {span}."
    why = ", which chance could explain" if gain["p"] >= LEVEL else ""
    return f"The network is not worth it yet: {network} changes accuracy by {span}{why}."


__all__ = ["Baseline", "baseline", "conclusion"]
