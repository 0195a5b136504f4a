"""The estimators of scikit-learn: classifiers on feature vectors, here on the embedding of a frozen backbone."""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from imgclf import environment, storage, tasks
from imgclf.data import cache as caches
from imgclf.data.dataset import TRAIN, VALIDATION
from imgclf.descriptors import extraction
from imgclf.descriptors.kinds import EMBEDDING, SIZE_PX, Descriptor, parse
from imgclf.errors import ArtifactError, UsageError
from imgclf.models import sources
from imgclf.prediction import artifact
from imgclf.prediction import classical as stored
from imgclf.prediction.artifact import File
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.settings.augmentation import AUGMENTATION
from imgclf.settings.base import about, flag_of
from imgclf.settings.small_cnn import PANEL as LAYERS
from imgclf.settings.training import TRAINING
from imgclf.training import history
from imgclf.training.estimators import Work
from imgclf.training.images import Images
from imgclf.training.progress import OnProgress, Row
from imgclf.training.time_budget import Clock

if TYPE_CHECKING:
    import keras

    from imgclf.training.neural import Network

log = logging.getLogger("imgclf")

FOLDER = "estimator"

_WITHOUT_EFFECT = (TRAINING, AUGMENTATION, LAYERS)
_MORE_WITHOUT_EFFECT = ("precision", "tensorboard", "mlflow", "image_sizes", "cached_augmentations")
_PROBE: dict[str, Any] = {"method": "probe", "augment": "none", "batch_size": 32}
"""How a run records that nothing is trained but the classifier on frozen features."""

COMPARED = 16
CLOSE = 1e-3
"""The stored backbone is run on COMPARED images, and may differ by this share of the largest feature."""


def _knn(settings: TrainConfig) -> Any:
    algorithm = settings.search_algorithm.replace("-", "_")
    return KNeighborsClassifier(settings.k, weights=settings.neighbor_weights, algorithm=algorithm)


def _tree(settings: TrainConfig) -> Any:
    return DecisionTreeClassifier(**_branches(settings))


def _forest(settings: TrainConfig) -> Any:
    return RandomForestClassifier(TREES, **_branches(settings))


def _branches(settings: TrainConfig) -> dict[str, Any]:
    return {
        "max_depth": settings.max_depth,
        "max_leaf_nodes": settings.max_leaves,
        "ccp_alpha": settings.prune,
        "random_state": settings.seed,
    }


def _svm(settings: TrainConfig) -> Any:
    gamma = "scale" if settings.gamma is None else settings.gamma
    return SVC(C=settings.C, kernel=settings.kernel, gamma=gamma, break_ties=True)  # so the largest value decides


def _logreg(settings: TrainConfig) -> Any:
    return LogisticRegression(C=settings.C, max_iter=5000)


def _naive_bayes(settings: TrainConfig) -> Any:
    return GaussianNB()


def ranked(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Order features by how much their means differ between classes, most first: int (d,), by the F of an ANOVA.

    Args:
        vectors: float (n, d).
        labels: int (n,).
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)  # of constant features, which come last
        found = f_classif(vectors, labels)[0]
    return np.argsort(-np.nan_to_num(found, nan=-1.0, posinf=np.inf), kind="stable")


TREES = 200

MAKERS: dict[str, Callable[[TrainConfig], Any]] = {
    "knn": _knn,
    "tree": _tree,
    "forest": _forest,
    "svm": _svm,
    "logreg": _logreg,
    "naive-bayes": _naive_bayes,
}
"""By `--model`: from settings to an estimator of scikit-learn."""

UNSCALED = ("tree", "forest", "naive-bayes")
"""They treat each feature by itself, so scaling changes nothing, and thresholds are in the features' own units."""


def make(settings: TrainConfig, count: int) -> Any:
    """Return an unfitted estimator of scikit-learn, on standardized features where their scale matters.

    Args:
        count: the number of training images.

    Raises:
        UsageError: if the settings do not fit the number.
    """
    _check(settings, count)
    estimator = MAKERS[settings.model](settings)
    if settings.one_vs_rest:
        estimator = OneVsRestClassifier(estimator)
    return estimator if settings.model in UNSCALED else make_pipeline(StandardScaler(), estimator)


def _check(settings: TrainConfig, count: int) -> None:
    if settings.model == "knn" and settings.k > count:
        raise UsageError(f"--k: expected at most {count}, the number of training images, found {settings.k}.")


@dataclass
class FittedClassical:
    """See `estimators.Fitted`."""

    settings: TrainConfig
    images: Images
    embeddings: np.ndarray
    logits: np.ndarray
    rows: list[Row]
    estimator: Any
    model: "keras.Model | None"
    temperature: float = 1.0
    outputs: tuple[str, ...] = stored.ClassicalRuntime.names
    has_frozen_features: bool = True

    def predictions(self, split: str, temperature: float = 1.0) -> np.ndarray:
        """See `Fitted`."""
        return self.images.task.link(self.logits[self.images.rows(split)] / temperature)

    def divide(self, temperature: float) -> None:
        """See `Fitted`."""
        self.temperature *= temperature

    def store(self, run: Run) -> dict[str, File]:
        """See `Fitted`. The folder appears once it is seen to predict what was fitted."""
        place = run.path / FOLDER
        with storage.stage(run.path) as parent:
            stage = parent / FOLDER
            facts = stored.About(
                size_px=self.images.size_px,
                classes=self.logits.shape[1],
                width=self.embeddings.shape[1],
                features=self.settings.features,
                temperature=self.temperature,
                paths=self._kept_paths(),
            )
            stored.write(stage, self.estimator, facts)
            if self.model is not None:
                self._write_backbone(self.model, stage / stored.BACKBONE)
            self._prove(stage, place)
            if place.exists():
                os.replace(place, parent / "old")
            os.replace(stage, place)
        return {FOLDER: File(stored.FORMAT, *artifact.hash_tree(place))}

    def _kept_paths(self) -> tuple[str, ...]:
        """Return the training images, where the classifier keeps vectors of theirs."""
        if self.settings.model not in ("knn", "svm"):
            return ()
        samples = self.images.dataset.samples
        return tuple(samples[row].path for row in self.images.rows(TRAIN))

    def _write_backbone(self, model: "keras.Model", path: Path) -> None:
        """Convert the backbone, or find it converted by an earlier run or fold."""
        from imgclf.exporting import embedding
        from imgclf.training import features

        kept = caches.Store.of(self.settings.cache, self.settings.cache_limit_gb)
        facts = ["embedding.tflite", features.VERSION, environment.versions().get("tensorflow"), self.images.size_px]
        name = caches.digest([*facts, features.fingerprint(model)])
        content = kept.read(name, None, np.uint8) if kept else None
        if content is not None:
            path.write_bytes(content.tobytes())
            return
        embedding.write(model, path)
        if kept:
            kept.keep(name, np.frombuffer(path.read_bytes(), np.uint8))

    def _prove(self, stage: Path, place: Path) -> None:
        """Load the folder as prediction does, and compare.

        Raises:
            ArtifactError: if features or logits differ.
        """
        runtime = stored.ClassicalRuntime.start(stage, "float32")
        expected = self.embeddings[:COMPARED]
        pixels = self.images.pixels[: len(expected)].astype(np.float32)
        found = runtime.outputs(pixels, ("embedding",))["embedding"]
        difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9))
        again = stored.logits(stored.read(stage)[0], self.embeddings)
        if not difference <= CLOSE:
            raise ArtifactError(
                f"{place}: expected the features of training within {CLOSE:g} of the largest, found a difference of "
                f"{difference:.2g}. The classifier is not kept."
            )
        if not np.array_equal(again, self.logits):
            raise ArtifactError(f"{place}: the stored classifier predicts otherwise than the fitted one; not kept.")

    def exports(self, clock: Clock) -> tuple[str, ...]:
        """See `Fitted`."""
        return self.settings.export_formats


class Classical:
    """See `estimators.Estimator`. A backbone is needed for the embedding alone, and is that of a probe."""

    def __init__(self, settings: TrainConfig, network: "Network | None") -> None:
        self._network = network
        self.settings, self.image_size, self.name = settings, settings.image_size or SIZE_PX, settings.model
        self.limit_s, self.shared = math.inf, True
        self._descriptor = Descriptor(settings.features, self.image_size)

    @classmethod
    def resolve(cls, settings: TrainConfig, side_px: float = math.inf) -> tuple[Self, list[str]]:
        """See `Estimator`."""
        tasks.refuse(settings.task, "--model")
        environment.require_extras(settings.extras)
        export = _exports(settings)
        settings, notes = _cleared(settings)
        if _needs_network(settings):
            from imgclf.training.neural import Network  # Keras takes seconds to import, and other features need none

            network, more = Network.resolve(replace(settings, method="probe"), side_px)
            return cls(replace(network.settings, export=export), network), [*notes, *more]
        size = settings.image_size or SIZE_PX
        settings = replace(settings, **_PROBE, backbone=sources.NONE, weights=sources.NONE, image_size=size)
        return cls(replace(settings, export=export), None), notes

    @classmethod
    def of_run(cls, settings: TrainConfig) -> Self:
        """See `Estimator`."""
        if not _needs_network(settings):
            return cls(settings, None)
        from imgclf.training.neural import Network

        return cls(settings, Network.of_run(settings))

    def check(self, count: int) -> None:
        """See `Estimator`."""
        _check(self.settings, count)

    def build(self, classes: int, run: Run | None = None) -> "keras.Model | None":
        """See `Estimator`. The head is never used."""
        return self._network.build(classes, run) if self._network else None

    def keep(self, built: "keras.Model | None", run: Run) -> None:
        """See `Estimator`."""
        if self._network:
            self._network.keep(built, run)

    def columns(self, built: "keras.Model | None") -> list[str]:
        """Return the names of the columns of `vectors`."""
        return self._descriptor.names(built.get_layer("embedding").output.shape[-1] if built else 0)

    def vectors(self, built: "keras.Model | None", images: Images, on_progress: OnProgress | None) -> np.ndarray:
        """See `Estimator`."""
        embeddings = self._network.vectors(built, images, on_progress) if self._network and built else None
        return extraction.of_pixels(self._descriptor, images.pixels, embeddings, on_progress)

    def fit(self, built: "keras.Model | None", work: Work) -> FittedClassical:
        """See `Estimator`."""
        started = time.monotonic()
        images, task, labels = work.images, work.images.task, work.images.targets
        vectors = self.vectors(built, images, work.on_progress)
        rows = {split: images.rows(split) for split in (TRAIN, VALIDATION)}
        estimator = make(self.settings, len(rows[TRAIN])).fit(vectors[rows[TRAIN]], labels[rows[TRAIN]])
        scores = stored.logits(estimator, vectors)
        row: Row = {"phase": self.settings.model, "epoch": 1, "image_size": self.image_size}
        for split, prefix in ((TRAIN, ""), (VALIDATION, "val_")):
            if len(rows[split]):
                found = task.score(scores[rows[split]], labels[rows[split]])
                row |= dict(zip((f"{prefix}loss", f"{prefix}{task.SCORE}"), found, strict=True))
        row["seconds"] = time.monotonic() - started
        history.write(work.run.history_file, [row], task.SCORE)
        log.info("%s: fitted to %d images in %.1f s.", self.settings.model, len(rows[TRAIN]), row["seconds"])
        return FittedClassical(self.settings, images, vectors, scores, [row], estimator, built)


def _needs_network(settings: TrainConfig) -> bool:
    return any(part.name == EMBEDDING for part in parse(settings.features))


def _exports(settings: TrainConfig) -> str:
    """Return the exports of a classical model: ONNX, where it is asked for.

    Raises:
        UsageError: if it cannot have what is asked for.
        MissingError: if a package is not installed.
    """
    if settings.export in (TrainConfig.export, "none"):
        return "none"
    from imgclf.exporting import classical as exporting

    if others := [name for name in settings.export_formats if name != "onnx"]:
        raise UsageError(
            f"--export {settings.export}: expected onnx or none, found {', '.join(others)}. A classifier of --model "
            f"{settings.model} has no other form than ONNX besides {FOLDER}/ in its run."
        )
    if reason := exporting.why_not(settings):
        raise UsageError(f"--export onnx: {reason}")
    exporting.require()
    return "onnx"


def _cleared(settings: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Return the settings without those of gradient descent, and which were given in vain."""
    cleared: dict[str, Any] = {}
    given = []
    for field in fields(TrainConfig):
        is_moot = about(field).panel in _WITHOUT_EFFECT or field.name in _MORE_WITHOUT_EFFECT
        value = getattr(settings, field.name)
        if is_moot and value not in (field.default, _PROBE.get(field.name, field.default)):
            given.append(flag_of(field.name))
        if is_moot:
            cleared[field.name] = field.default
    note = [f"{', '.join(given)}: no effect on --model {settings.model}."] if given else []
    return replace(settings, **cleared), note
