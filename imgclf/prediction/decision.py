"""From probabilities to a prediction: the one definition behind every engine, command, table, file and report.

The rules are fitted on validation images after training and stored in `artifact.json`. The features of training images
that the out-of-distribution score compares with are stored in `outliers.npz` beside it.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgclf import documents
from imgclf.errors import ArtifactError

UNKNOWN = "unknown"
"""What people are shown in place of a class where the image is rejected."""

REJECTED = -1
"""What stands in place of a class index where the image is rejected."""

UNSURE, OUTLIER = "unsure", "outlier"
"""Why an image is rejected: the confidence is too low, or the image is unlike the training images."""

FILE = "outliers.npz"
FORMAT = "features"

NEIGHBORS = 5
MOST_KEPT = 2000
"""Training images kept for comparison, at most: 5 MB with 1,280 features each."""


@dataclass(frozen=True)
class Decision:
    """The rules of one model; None switches a rule off.

    Args:
        outlier_above: the out-of-distribution threshold: images with a higher outlier score are rejected.
        false_alarms: the share of images like the training images for which `outlier_above` was chosen.
        set_from: the probability from which a class belongs to the prediction set.
        coverage: the share of sets that contain the true class for which `set_from` was chosen.
        positive: of two classes, the one whose probability decides alone.
        threshold: the probability of `positive` from which it is predicted.
        reject_below: images whose predicted class has a lower probability are rejected.
        thresholds: of several labels, the probability of each from which an image has it.
        widths: of numbers, how far each end of a prediction interval is from the prediction, by their names.
    """

    outlier_above: float | None = None
    false_alarms: float | None = None
    set_from: float | None = None
    coverage: float | None = None
    positive: str | None = None
    threshold: float | None = None
    reject_below: float | None = None
    thresholds: Mapping[str, float] | None = None
    widths: Mapping[str, float] | None = None


NO_RULES = Decision()


@dataclass(frozen=True, eq=False)
class Decided:
    """What the rules make of probabilities, one row for each image.

    Args:
        argmax: int (n,), the most probable class; of equals, the first.
        chosen: int (n,), the class before rejection: `argmax`, or the one that the threshold gives.
        confidence: float (n,), the probability of `chosen`.
        unsure: bool (n,), whether the image is rejected because `confidence` is too low.
        outlier: bool (n,), whether it is rejected because it is out of distribution. At most one of the two is true.
        members: bool (n, classes), the prediction sets; None without them.
    """

    argmax: np.ndarray
    chosen: np.ndarray
    confidence: np.ndarray
    unsure: np.ndarray
    outlier: np.ndarray
    members: np.ndarray | None

    @property
    def rejected(self) -> np.ndarray:
        """bool (n,), whether the image is given no class."""
        rejected: np.ndarray = self.unsure | self.outlier
        return rejected

    @property
    def predicted(self) -> np.ndarray:
        """int (n,), the predicted class, REJECTED where there is none."""
        return np.where(self.rejected, REJECTED, self.chosen)


def decide(
    probabilities: np.ndarray,
    labels: Sequence[str],
    rules: Decision = NO_RULES,
    outlier_scores: np.ndarray | None = None,
) -> Decided:
    """Apply the rules.

    Args:
        probabilities: float (n, classes).
        labels: the class names, in the order of the columns.
        outlier_scores: float (n,). Without them, no image is rejected as out of distribution.
    """
    argmax = probabilities.argmax(axis=1)
    chosen = argmax
    if rules.positive is not None and rules.threshold is not None:
        positive = labels.index(rules.positive)
        chosen = np.where(probabilities[:, positive] >= rules.threshold, positive, 1 - positive)
    confidence = probabilities[np.arange(len(chosen)), chosen]
    outlier = np.zeros(len(chosen), bool)
    if outlier_scores is not None and rules.outlier_above is not None:
        outlier = outlier_scores > rules.outlier_above
    members = None
    if rules.set_from is not None:
        members = probabilities >= rules.set_from
        members[np.arange(len(members)), argmax] = True  # no set is empty
    unsure = ~outlier & (confidence < (rules.reject_below or 0.0))
    return Decided(argmax, chosen, confidence, unsure, outlier, members)


class Neighbor(NamedTuple):
    """A training image, as the data set names it, and how far its feature vector is, each feature standardized."""

    path: str
    distance: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model and its rules say of one image: `probabilities`, float32 (classes,), or else an `error`.

    `path` is the name of the image and `file` where it lies; both are None for an image that is no file. `embedding`,
    float32 (d,), `feature_map`, float32 (h, w, d), and `pixels`, uint8 (s, s, 3), as the model saw them, are given on
    request, as are the nearest training images, `neighbors`. `outlier_score` is the distance from the training images;
    None where the model has no rule for it.
    """

    path: str | None
    probabilities: np.ndarray | None
    labels: tuple[str, ...]
    error: str | None = None
    embedding: np.ndarray | None = None
    file: str | None = None
    outlier_score: float | None = None
    rules: Decision = NO_RULES
    feature_map: np.ndarray | None = None
    pixels: np.ndarray | None = None
    neighbors: tuple[Neighbor, ...] | None = None

    @property
    def output(self) -> np.ndarray | None:
        """The model's output: the probabilities."""
        return self.probabilities

    @cached_property
    def _decided(self) -> Decided | None:
        if self.probabilities is None:
            return None
        scores = None if self.outlier_score is None else np.array([self.outlier_score])
        return decide(self.probabilities[None], self.labels, self.rules, scores)

    @property
    def reason(self) -> str | None:
        """Why the image is rejected: "unsure" or "outlier"; None where it is not, or cannot be read."""
        if self._decided is None or not self._decided.rejected[0]:
            return None
        return OUTLIER if self._decided.outlier[0] else UNSURE

    @property
    def rejected(self) -> bool:
        """Whether the image is given no class, although it could be read."""
        return self.reason is not None

    @property
    def label(self) -> str | None:
        """The predicted class: the most probable one, of equals the first, or the one that a threshold gives.

        None for an image that is rejected or cannot be read.
        """
        return None if self._decided is None or self.rejected else self.labels[self._decided.chosen[0]]

    @property
    def argmax(self) -> str | None:
        """The most probable class, whatever the rules say; None for an image that cannot be read."""
        return None if self._decided is None else self.labels[self._decided.argmax[0]]

    @property
    def confidence(self) -> float | None:
        """The probability, 0 to 1, of the predicted class, or of the one that would be without the rejection."""
        return None if self._decided is None else _short(self._decided.confidence[0])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The prediction set, which contains the true class as often as `rules.coverage` says; None without sets."""
        if self._decided is None or self._decided.members is None:
            return None
        return tuple(np.array(self.labels, dtype=object)[self._decided.members[0]])

    def ranked(self, k: int) -> list[tuple[str, float]]:
        """As `top`, but the predicted class comes first, or "unknown" where the image is rejected."""
        if self._decided is None or self.confidence is None:
            return []
        chosen = self.labels[self._decided.chosen[0]]
        others = [pair for pair in self.top(len(self.labels)) if pair[0] != chosen]
        return [(UNKNOWN if self.rejected else chosen, self.confidence), *others][:k]

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the k most probable classes and their probabilities, falling; empty for an unreadable image."""
        if self.probabilities is None:
            return []
        best = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.labels[i], _short(self.probabilities[i])) for i in best]


def _short(value: np.floating) -> float:
    """Return the float with the fewest digits that is the same float32: 0.9 rather than 0.8999999761."""
    return float(str(value))


def _distances(similarity: np.ndarray) -> np.ndarray:
    """Cosines (n, m) -> float32 (n,): the distance to the k-th nearest."""
    place = max(0, similarity.shape[1] - NEIGHBORS)
    nearest = np.partition(similarity, place, axis=1)[:, place]
    distances: np.ndarray = np.sqrt(np.maximum(2 - 2 * nearest, 0)).astype(np.float32)
    return distances


class Outliers:
    """How far images are from the training images, in the features of the model.

    Source: Sun et al. 2022, arXiv:2204.06507: the distance to the k-th nearest neighbor among normalized features.
    """

    def __init__(self, known: np.ndarray) -> None:
        """Args: known float (m, d), features of training images, each of length 1."""
        self._known = known.astype(np.float32)

    @classmethod
    def fit(cls, embeddings: np.ndarray, seed: int = 0) -> "Outliers":
        """Keep training features (n, d); a random part where there are more than MOST_KEPT."""
        if len(embeddings) > MOST_KEPT:
            rows = np.random.default_rng(seed).choice(len(embeddings), MOST_KEPT, replace=False)
            embeddings = embeddings[np.sort(rows)]
        return cls(_normalized(embeddings).astype(np.float16))

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 (n,), 0 to 2: the distance of features (n, d) to their k-th nearest neighbor; larger is farther."""
        if embeddings.shape[1] != self._known.shape[1]:
            raise ArtifactError(
                f"{FILE}: expected features of {embeddings.shape[1]} numbers, as the model's, found "
                f"{self._known.shape[1]}. Restore it or train again."
            )
        return _distances(_normalized(embeddings) @ self._known.T)

    def own_scores(self) -> np.ndarray:
        """float32 (m,): the same for each training image among the others."""
        similarity = self._known @ self._known.T
        np.fill_diagonal(similarity, -1)
        return _distances(similarity)

    def to_bytes(self) -> bytes:
        """Return the content of `outliers.npz`."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, known=self._known.astype(np.float16))
        return file.getvalue()

    @classmethod
    def read(cls, path: Path) -> "Outliers":
        """Read what `to_bytes` returned.

        Raises:
            ArtifactError: if the file is damaged.
        """
        try:
            known = documents.arrays(path).get("known", np.zeros(0))
            if known.ndim != 2 or known.dtype.kind != "f" or not known.size or not np.isfinite(known).all():
                raise ValueError(f"expected floats (n, d), found {known.dtype} {known.shape}")
            return cls(known)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path}: damaged file ({error}). It should contain training features: restore it or train again."
            ) from None


def _normalized(embeddings: np.ndarray) -> np.ndarray:
    unit: np.ndarray = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return unit
