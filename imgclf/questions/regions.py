"""The decision regions of a classical model on two features."""

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import storage
from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import plane
from imgclf.questions.feature_table import FeatureTable
from imgclf.settings import FeaturesConfig, TrainConfig
from imgclf.settings.base import items
from imgclf.settings.classical import Kind
from imgclf.settings.features import NO_MODEL


@dataclass(frozen=True)
class Margin:
    """What a linear SVM between two classes minimizes, in standardized features.

    Args:
        hinge_loss: the mean of max(0, 1 - y f) over the images, y being -1 or 1.
        penalty: lambda / 2 times the squared length of the weights.
        strength: lambda, 1 / (C n).
        width: the distance between the two lines of the margin, 2 / the length of the weights.
    """

    hinge_loss: float
    penalty: float
    strength: float
    width: float


@dataclass(frozen=True)
class Regions:
    """A classifier fitted to two features of all images.

    Args:
        estimator: of scikit-learn, for classes in the order of their sorted names.
        accuracy: on the images that it was fitted to.
        supports: rows of the support vectors; None for other models.
        margin: for a linear SVM between two classes.
    """

    estimator: Any
    accuracy: float
    supports: np.ndarray | None
    margin: Margin | None


def columns(table: FeatureTable, config: FeaturesConfig) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the two columns that the settings name, float (n, 2), and their names.

    Raises:
        UsageError: if there is no such column, naming the nearest, or it is named twice.
    """
    asked = tuple(name.strip() for name in items(config.columns))
    for name in asked:
        if asked.count(name) > 1:
            raise UsageError(f"--columns: expected two different columns, found {name!r} twice.")
        if name not in table.names:
            near = difflib.get_close_matches(name, table.names, n=3)
            hint = (
                f"Did you mean {' or '.join(near)}?" if near else f"The first columns are {', '.join(table.names[:5])}."
            )
            raise UsageError(f"--columns: expected names of columns, found {name!r}. {hint}")
    return table.vectors[:, [table.names.index(name) for name in asked]].astype(np.float64), asked


def fit(points: np.ndarray, labels: list[str], config: FeaturesConfig) -> Regions:
    """Fit the model of the settings to two features of all images.

    Args:
        points: float (n, 2).
        labels: (n,), class names.

    Raises:
        UsageError: if the settings do not fit the number of images.
        DatasetError: if there is one class only.
    """
    from imgclf.prediction import classical as stored
    from imgclf.training import classical  # scikit-learn takes seconds to import

    names = sorted(set(labels))
    if len(names) < 2:
        raise DatasetError(f"--model {config.model}: expected images of at least 2 classes, found {len(names)}.")
    truth = np.array([names.index(label) for label in labels])
    same = {field.name: getattr(config, field.name) for field in fields(Kind)}
    estimator = classical.make(TrainConfig(**same, seed=config.seed), len(points)).fit(points, truth)
    accuracy = float((estimator.predict(points) == truth).mean())
    scaler, machines = stored.parts(estimator)
    if any(not hasattr(machine, "support_") for machine in machines):
        return Regions(estimator, accuracy, None, None)
    supports = np.unique(np.concatenate([machine.support_ for machine in machines]))
    margin = None
    if config.kernel == "linear" and len(names) == 2:
        weights, strength = machines[0].coef_[0], 1 / (config.C * len(points))
        values = machines[0].decision_function(scaler.transform(points))
        hinge = float(np.maximum(0, 1 - np.where(truth == 1, 1, -1) * values).mean())
        length = float(np.linalg.norm(weights))
        margin = Margin(hinge, strength / 2 * length**2, strength, 2 / max(length, 1e-12))
    return Regions(estimator, accuracy, supports, margin)


def write(path: Path, table: FeatureTable, config: FeaturesConfig) -> Regions | None:
    """Draw two columns as a plane, with the decision regions of a model if the settings name one, as PNG.

    Returns:
        What was fitted; None for no model.

    Raises:
        UsageError: if there is no such column, or the file cannot be written.
        DatasetError: if a model has one class only.
    """
    points, names = columns(table, config)
    found = None if config.model == NO_MODEL else fit(points, table.labels, config)
    drawn = plane.draw(
        points,
        table.labels,
        names,
        title=title(config, found),
        predict=found.estimator.predict if found else None,
        value=found.estimator.decision_function if found and found.margin else None,
        supports=found.supports if found else None,
    )
    storage.write_named(path, drawn, "--map")
    return found


def title(config: FeaturesConfig, found: Regions | None) -> str:
    """Say what is drawn, in one or two lines."""
    if found is None:
        return ""
    text = f"{config.model}: accuracy {found.accuracy:.3f} on these images"
    if found.margin:
        text += (
            f"\nhinge loss {found.margin.hinge_loss:.3g} + {found.margin.penalty:.3g} at lambda = 1/(C n) = "
            f"{found.margin.strength:.3g}; margin {found.margin.width:.3g} wide, standardized"
        )
    return text


def check(config: FeaturesConfig, path: Path | None) -> None:
    """Refuse settings that have no effect or exclude one another, before anything is computed.

    Raises:
        UsageError: if a model has no plane, or a plane is to be a page.
    """
    if config.model != NO_MODEL and config.columns is None:
        raise UsageError(f"--model {config.model}: expected --columns X,Y, the axes of the plane, found none.")
    if config.columns is not None and path is None:
        raise UsageError("--columns: expected --map FILE.png, found no map.")
    if config.columns is not None and path is not None and path.suffix.lower() != ".png":
        raise UsageError(f"--map {path}: expected a name that ends in .png for a plane of two columns.")
