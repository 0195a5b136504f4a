"""Classifiers of scikit-learn on feature vectors: the stored form, and the runtime that predicts with it.

A stored one is a folder: `estimator.skops`, which contains no code and is refused if it names foreign types;
`about.json`; and, where the embedding of a backbone is among the features, `backbone.tflite`, which computes it.
Neither Keras nor TensorFlow is needed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from imgclf import environment, runs, storage
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.prediction.decision import Neighbor
from imgclf.prediction.litert import LiteRTRuntime

EXTRA = "'imgclf[classical]'"
FORMAT = "sklearn"
"""In artifact.json."""

ESTIMATOR, ABOUT, BACKBONE = "estimator.skops", "about.json", "backbone.tflite"

VECTORS_FORMAT = "onnx-features"
"""An exported graph that starts at feature vectors: in `artifact.json`, but nothing that predicts images."""

TRUSTED = frozenset(
    {
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
    }
)
"""Types of scikit-learn that skops does not trust by itself: arrays of numbers, rebuilt by scikit-learn's own code."""

FLOOR = 1e-4
"""The smallest probability of a class. That none of a few neighbors is of a class does not make it impossible, and the
temperature, which is fitted on validation images, divides logarithms."""


@dataclass(frozen=True)
class About:
    """What a stored classifier has to say of itself.

    Args:
        size_px: the side of the images.
        features: the kind of the feature vectors, as `descriptors.kinds` knows it.
        width: the length of a feature vector.
        temperature: what the logits are divided by.
        paths: the images that it was fitted to, in their order, where it keeps their vectors: `knn` and `svm`.
    """

    size_px: int
    classes: int
    width: int
    features: str
    temperature: float = 1.0
    paths: Sequence[str] = ()


def parts(estimator: Any) -> tuple[Any, list[Any]]:
    """Return what scales vectors, None for nothing, and the classifiers behind it: one, or one for each class."""
    scaler, last = (estimator[0], estimator[-1]) if hasattr(estimator, "named_steps") else (None, estimator)
    is_several = type(last).__name__ == "OneVsRestClassifier"  # forests have estimators_, too
    return scaler, list(last.estimators_) if is_several else [last]


def logits(estimator: Any, vectors: np.ndarray) -> np.ndarray:
    """float32 (n, classes): an estimator's own decision values, or else the logarithms of its probabilities.

    The largest is that of the class that the estimator predicts.

    Args:
        estimator: a fitted classifier of scikit-learn for the classes 0 to classes - 1.
        vectors: float32 (n, width).
    """
    if hasattr(estimator, "decision_function"):
        values = np.asarray(estimator.decision_function(vectors))
        values = np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values
    else:
        values = np.log(np.maximum(estimator.predict_proba(vectors), FLOOR))
    return values.astype(np.float32)


def write(folder: Path, estimator: Any, about: About) -> None:
    """Store a fitted classifier of scikit-learn in a folder; `backbone.tflite` is the caller's.

    Raises:
        MissingError: if skops is not installed.
    """
    environment.require("skops", EXTRA)
    from skops import io

    folder.mkdir(parents=True, exist_ok=True)
    (folder / ESTIMATOR).write_bytes(io.dumps(estimator))
    storage.write_json(folder / ABOUT, asdict(about))


def read(folder: Path) -> tuple[Any, About]:
    """Read what `write` stored.

    Raises:
        MissingError: if skops or scikit-learn is not installed.
        ArtifactError: if the folder is damaged, or its estimator contains a type that is not scikit-learn's or NumPy's.
    """
    environment.require("skops", EXTRA)
    from skops import io

    path = folder / ESTIMATOR
    try:
        about = About(**runs.read_json(folder / ABOUT))
        data = path.read_bytes()
        foreign = sorted(set(io.get_untrusted_types(data=data)) - TRUSTED)
        if foreign:
            raise ArtifactError(
                f"{path}: refused, since it contains the type {foreign[0]}, whose code would run. Train again, or "
                "restore the file."
            )
        estimator = io.loads(data, trusted=sorted(TRUSTED))
    except ArtifactError:
        raise
    except (RunError, OSError) as error:
        raise ArtifactError(f"{folder}: the classifier cannot be read ({error}).") from None
    except Exception as error:  # skops raises nearly anything on a damaged file
        what = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"{path}: damaged classifier ({what:.300}). Restore it, or train again.") from None
    return estimator, about


class ClassicalRuntime:
    """A stored classifier of scikit-learn: `estimator`, and `columns`, the names of its features.

    Raises:
        MissingError: if skops, or what computes the features, is not installed.
        ArtifactError: if it is damaged or foreign.
    """

    package: ClassVar[str] = "skops"
    batch_size = 4
    names: tuple[str, ...] = ("probabilities", "embedding")

    def __init__(self, path: Path) -> None:
        from imgclf.descriptors.kinds import Descriptor  # 10 ms that networks do not need

        self.estimator, about = read(path)
        self._path, self._paths = path, about.paths
        self.size_px, self.classes, self._temperature = about.size_px, about.classes, about.temperature
        try:
            self._descriptor = Descriptor(about.features, about.size_px)
        except UsageError as error:
            raise ArtifactError(f"{path}: {error} Restore the folder, or train again.") from None
        self._backbone = LiteRTRuntime(path / BACKBONE, "embedding") if self._descriptor.has_embedding else None
        self.columns = self._descriptor.names(self._backbone.classes if self._backbone else 0)
        width = len(self.columns)
        wanted = int(getattr(self.estimator, "n_features_in_", about.width))
        if not wanted == about.width == width:
            raise ArtifactError(
                f"{path}: expected features of length {wanted}, for which the classifier was fitted, found {width} of "
                f"{about.features}. Restore the folder, or train again."
            )

    @classmethod
    def start(cls, path: Path, precision: str) -> "ClassicalRuntime":
        """See `Runtime`."""
        return cls(path)

    def prepare(self, calls: int) -> None:
        """See `Runtime`."""
        if self._backbone:
            self._backbone.prepare(calls)

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        embeddings = self._backbone.outputs(pixels, ("embedding",))["embedding"] if self._backbone else None
        vectors = self._descriptor.vectors(np.clip(pixels, 0, 255).round().astype(np.uint8), embeddings)
        found = {"embedding": vectors}
        if "probabilities" in names:
            found["probabilities"] = softmax(logits(self.estimator, vectors) / self._temperature)
        return {name: found[name] for name in names}

    def neighbors(self, vectors: np.ndarray | None, count: int) -> list[tuple[Neighbor, ...]]:
        """Return the nearest training images of each feature vector, the nearest first.

        Args:
            vectors: float32 (n, width), as `outputs` returns them; None to check alone.

        Raises:
            UsageError: if the classifier is not k nearest neighbors, or has fewer training images.
            ArtifactError: if the training images are not named.
        """
        scaler, (knn, *_) = parts(self.estimator)
        if not hasattr(knn, "kneighbors"):
            raise UsageError("--neighbors: expected a run of --model knn, found one of another classifier.")
        known = int(knn.n_samples_fit_)
        if count > known:
            raise UsageError(f"--neighbors: expected at most {known}, the number of training images, found {count}.")
        if len(self._paths) != known:
            raise ArtifactError(f"{self._path}: the training images are not named. Train again for --neighbors.")
        if vectors is None:
            return []
        found = knn.kneighbors(vectors if scaler is None else scaler.transform(vectors), count)
        return [
            tuple(Neighbor(self._paths[row], float(distance)) for distance, row in zip(*pair, strict=True))
            for pair in zip(*found, strict=True)
        ]


def softmax(values: np.ndarray) -> np.ndarray:
    """float32 (n, classes), rows sum to 1."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: np.ndarray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
