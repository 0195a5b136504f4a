"""The scores of predictions, for many weightings of the images at once. Arrays only."""

import numpy as np

REJECTED = -1
"""The predicted class of a rejected image."""

PER_CLASS = ("precision", "recall", "f1", "specificity")
"""The scores of one class against the rest that depend on the predictions alone."""

_TINY = float(np.finfo(np.float32).eps)


class Sums:
    """The scores of weighted images, from sums over the images: what the bootstrap needs, for many draws at once.

    scikit-learn has each of these scores for one set of images; a thousand sets would take it minutes.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> None:
        from scipy import sparse

        n, classes = probabilities.shape
        rows, one = np.arange(n), np.ones(n, np.float32)
        self.hits = predicted == labels
        known, right = predicted != REJECTED, self.hits
        self.true = sparse.csr_matrix((one, (labels, rows)), (classes, n))
        self.said = sparse.csr_matrix((one[known], (predicted[known], rows[known])), (classes, n))
        self.right = sparse.csr_matrix((one[right], (labels[right], rows[right])), (classes, n))
        self._in_truth = np.bincount(labels, minlength=classes)[:, None] > 0
        self._known = self._in_truth | (np.bincount(predicted[known], minlength=classes)[:, None] > 0)
        own = probabilities[rows, labels].astype(np.float64)
        squares = (probabilities.astype(np.float64) ** 2).sum(axis=1)
        self.losses = np.stack([-np.log(np.clip(own, _TINY, 1)), squares - 2 * own + 1])

    def numbers(self) -> dict[str, float | None]:
        """Every score of `scores`, of the images as they are; None where undefined."""
        return {name: number(values) for name, values in self.scores(self.once).items()}

    @property
    def once(self) -> np.ndarray:
        """The weights (n, 1) that count every image once."""
        return np.ones((len(self.hits), 1), np.float32)

    def per_class(self, weights: np.ndarray, more: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the scores of `PER_CLASS` and `support`, each (classes, b), for weights (n, b); 0 for 0/0.

        Args:
            more: (2, classes, b), images added to each class: correct ones, and incorrect ones, which are distributed
                over the other classes.
        """
        right, true, said = ((matrix @ weights).astype(np.float64) for matrix in (self.right, self.true, self.said))
        if more is not None:
            hits, misses = more * (true > 0)
            right, true = right + hits, true + hits + misses
            said = said + hits + (misses.sum(axis=0) - misses) / (len(misses) - 1)
        n = true.sum(axis=0)
        return {
            "precision": _divide(right, said),
            "recall": _divide(right, true),
            "f1": _divide(2 * right, true + said),
            "specificity": _divide(n - true - said + right, n - true),
            "support": true,
            "right": right,
            "said": said,
        }

    def scores(self, weights: np.ndarray, more: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Every score of `SCORES` and `LOSSES` but the areas, each (b,), for weights (n, b); NaN where undefined.

        Macro means are over the classes in the truth or the predictions, and a class whose score is 0/0 counts as 0, as
        with scikit-learn's `zero_division=0`. Balanced accuracy is over the classes in the truth.

        Args:
            more: see `per_class`; the losses do not use it.
        """
        own = self.per_class(weights, more)
        true, said, right = own["support"], own["said"], own["right"]
        n, covered, hits = true.sum(axis=0), said.sum(axis=0), right.sum(axis=0)
        found = {"accuracy": hits / n, "balanced_accuracy": _mean(own["recall"], self._in_truth)}
        micro = {"precision": _quotient(hits, covered), "recall": hits / n, "f1": 2 * hits / (n + covered)}
        for key in ("precision", "recall", "f1"):
            found[f"macro_{key}"] = _mean(own[key], self._known)
            found[f"weighted_{key}"] = _mean(own[key], true)
            found[f"micro_{key}"] = micro[key]
        others = ((n - true) * self._known).sum(axis=0)  # 0 where there is one class alone, which has no specificity
        found["macro_specificity"] = np.where(others > 0, _mean(own["specificity"], self._known), np.nan)
        chance = (true * said).sum(axis=0)
        found["cohen_kappa"] = _quotient(n * hits - chance, n * n - chance)
        squares = (said**2).sum(axis=0) + (n - covered) ** 2  # "rejected" is a prediction like any other here
        spread = (n * n - squares) * (n * n - (true**2).sum(axis=0))
        found["matthews"] = _quotient(n * hits - chance, np.sqrt(np.maximum(spread, 0)))  # below 0 by rounding alone
        found["log_loss"], found["brier"] = self.losses @ weights / weights.sum(axis=0)
        return found


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """As `_divide`, but NaN where undefined."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def undefined(score: str, support: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Whether a score of `PER_CLASS` is 0/0: bool (classes,).

    Args:
        support, said: (classes,), the images of each class, and those predicted as it.
    """
    below = {"precision": said, "recall": support, "f1": support + said, "specificity": support.sum() - support}
    return below[score] == 0


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (values * weights).sum(axis=0) / weights.sum(axis=0)


def number(values: np.ndarray) -> float | None:
    """Return the first value; None where it is not finite."""
    return float(values[0]) if np.isfinite(values[0]) else None
