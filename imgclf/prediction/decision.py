"""From probabilities to an answer: a class, "unknown", a set of classes. The same rules for every engine and command.

The rules are fitted on validation images after training and kept in `artifact.json`, the features of training images
that the outlier score needs in a file beside it.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgclf.errors import ArtifactError

UNKNOWN = "unknown"
"""What is answered where no class is named."""

UNSURE, OUTLIER = "unsure", "outlier"
"""Why an answer is "unknown": confidence too low, or an image unlike all training images."""

FILE = "outliers.npz"
FORMAT = "features"

NEIGHBOURS = 5
MOST_KEPT = 2000
"""So many training images are kept to compare with, at most: 5 MB of 1,280 features each."""


@dataclass(frozen=True)
class Decision:
    """The rules of one model.

    Args:
        outlier_above: the outlier score above which an image is unlike the training images; None for no such rule.
        false_alarms: the share of images like the training images for which that was chosen.
        set_from: the probability from which on a class belongs to the prediction set; None for no sets.
        coverage: the share of sets that hold the true class, for which that was chosen.
        positive: the class whose probability decides alone, in a problem of two; None where the larger one does.
        threshold: the probability of `positive` from which on it is the answer.
    """

    outlier_above: float | None = None
    false_alarms: float | None = None
    set_from: float | None = None
    coverage: float | None = None
    positive: str | None = None
    threshold: float | None = None


class Outliers:
    """How far images are from the training images, in the features of the model.

    Source: Sun et al. 2022, arXiv:2204.06507: the distance to the k-th nearest neighbour among normalised features.
    """

    def __init__(self, known: np.ndarray) -> None:
        """Args: known float (m, d), features of training images, each of length 1."""
        self._known = known.astype(np.float32)

    @classmethod
    def fit(cls, embeddings: np.ndarray, seed: int = 0) -> "Outliers":
        """Keep what is needed of training features (n, d); of very many, a random part."""
        if len(embeddings) > MOST_KEPT:
            rows = np.random.default_rng(seed).choice(len(embeddings), MOST_KEPT, replace=False)
            embeddings = embeddings[np.sort(rows)]
        return cls(_normalised(embeddings).astype(np.float16))

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 (n,), 0 to 2: the distance of features (n, d) to their k-th nearest neighbour; larger is stranger."""
        likeness = _normalised(embeddings) @ self._known.T  # cosines (n, m)
        place = max(0, likeness.shape[1] - NEIGHBOURS)
        nearest = np.partition(likeness, place, axis=1)[:, place]
        distances: np.ndarray = np.sqrt(np.maximum(2 - 2 * nearest, 0)).astype(np.float32)
        return distances

    def to_bytes(self) -> bytes:
        """The content of `outliers.npz`."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, known=self._known.astype(np.float16))
        return file.getvalue()

    @classmethod
    def read(cls, path: Path) -> "Outliers":
        """Read what `to_bytes` gave.

        Raises:
            ArtifactError: if the file is damaged.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                return cls(arrays["known"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ArtifactError(
                f"{path}: expected features of training images, found a damaged file ({error})."
            ) from None


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    unit: np.ndarray = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return unit


def best(probabilities: np.ndarray, labels: tuple[str, ...], rules: Decision) -> np.ndarray:
    """The answered class of each row, int (n,): the most probable one, of equals the first, or by a threshold."""
    if rules.positive is None or rules.threshold is None:
        answer: np.ndarray = probabilities.argmax(axis=1)
        return answer
    positive = labels.index(rules.positive)
    return np.where(probabilities[:, positive] >= rules.threshold, positive, 1 - positive)


def prediction_set(probabilities: np.ndarray, rules: Decision) -> np.ndarray | None:
    """Which classes are in the set of each row: bool (n, classes), the most probable one always; None without sets."""
    if rules.set_from is None:
        return None
    member: np.ndarray = probabilities >= rules.set_from
    member[np.arange(len(member)), probabilities.argmax(axis=1)] = True
    return member


NO_RULES = Decision()
