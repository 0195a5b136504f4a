"""Labeled images, probabilities and rules -> scores and predictions, and the files that hold both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import storage
from imgclf.data.dataset import Sample
from imgclf.evaluation import decisions, metrics, outputs, plots
from imgclf.evaluation.outputs import Predictions
from imgclf.prediction import decision
from imgclf.prediction.decision import NO_RULES, Decision
from imgclf.runs import Run


@dataclass(frozen=True)
class Scored:
    """The content of `metrics.json`, and of `predictions.csv`."""

    metrics: dict[str, Any]
    predictions: Predictions

    def write(self, folder: Path) -> None:
        """Write `metrics.json`, `predictions.csv` and `confusion_matrix.png`.

        Raises:
            OSError: if a file cannot be written.
        """
        place = Run(folder)
        outputs.write_predictions(place.predictions, *self.predictions)
        plots.confusion_matrix(folder / "confusion_matrix.png", self.metrics)
        storage.write_json(place.metrics, self.metrics)


def score(
    samples: Sequence[Sample],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    rules: Decision = NO_RULES,
    outlier_scores: np.ndarray | None = None,
    *,
    top_k: int = 5,
) -> Scored:
    """Apply the rules, and score what comes of it.

    Args:
        samples: n images with their true classes.
        probabilities: float (n, classes).
        outlier_scores: float (n,), for a model with an out-of-distribution threshold.

    Returns:
        The scores of `metrics.score`, with `decisions.measure` under the key `decision`.

    Raises:
        ValueError: for the reasons of `metrics.score`.
    """
    names = list(class_names)
    index = {name: place for place, name in enumerate(names)}
    labels = np.array([index[sample.label] for sample in samples], np.int64)
    labels, probabilities = metrics.check(labels, probabilities, names)
    decided = decision.decide(probabilities, names, rules, outlier_scores)
    groups = [sample.group for sample in samples]
    found = metrics.score(labels, probabilities, names, decided.predicted, top_k=top_k, groups=groups)
    found["decision"] = decisions.measure(labels, decided, names, rules, scored=outlier_scores is not None)
    paths = [sample.path for sample in samples]
    return Scored(found, Predictions(paths, labels, probabilities, names, decided.predicted, decided.confidence))
