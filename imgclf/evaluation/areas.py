"""One class against the rest: the areas under its curves, and the curves. Arrays only."""

import numpy as np

NAMES = ("roc_auc", "average_precision")

_LEAST = 1e-3  # below every image's weight in a draw


def per_class(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float | None]]:
    """`roc_auc` and `average_precision` of every class; None for a class without images, or with all of them."""
    from sklearn import metrics as sklearn_metrics  # takes a second, which callers that only need names save

    rows: list[dict[str, float | None]] = []
    for index in range(probabilities.shape[1]):
        own, values = labels == index, probabilities[:, index]
        if own.any() and not own.all():
            area = float(sklearn_metrics.roc_auc_score(own, values))
            rows.append(
                {"roc_auc": area, "average_precision": float(sklearn_metrics.average_precision_score(own, values))}
            )
        else:
            rows.append(dict.fromkeys(NAMES))
    return rows


def of_draws(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the macro means of the area under ROC and of the average precision for bootstrap draws.

    Average precision is the mean precision at the scores of a class's images. Each image is left out here where the
    precision at its own score is computed: it always counts as found there, which with few images makes the mean too
    high, by more than a standard deviation with 20 classes of 10 images.

    Images of other classes between two scores of the class's own images are summed into bins.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        weights: float32 (n, b), the weight of each image in each of b draws.

    Returns:
        Both (b,); NaN where a draw has no class beside others.
    """
    from scipy import sparse

    n, width = weights.shape
    sums, known = np.zeros((2, width)), np.zeros(width)
    for index in range(probabilities.shape[1]):
        own, values = labels == index, probabilities[:, index]
        if not own.any() or own.all():
            continue
        rows = np.flatnonzero(own)
        rows = rows[np.argsort(values[rows])]
        levels, first, level = np.unique(values[rows], return_index=True, return_inverse=True)
        place = np.searchsorted(levels, values[~own])  # levels below
        equal = levels[np.minimum(place, len(levels) - 1)] == values[~own]
        bins = 2 * place + equal  # even: between two levels; odd: on one
        others = sparse.csr_matrix(
            (np.ones(len(bins), np.float32), (bins, np.flatnonzero(~own))), (2 * len(levels) + 1, n)
        )
        counts = others @ weights
        below = np.cumsum(counts, axis=0)
        owned = weights[rows]  # (own images, b), rising
        count, rest = owned.sum(axis=0), below[-1]
        ahead = below[:-1:2] + counts[1::2] / 2  # (levels, b): others below each level, and half of those on it
        false = rest - below[:-1:2]  # others on each level or above
        true = np.cumsum(owned[::-1], axis=0)[::-1]
        if len(levels) < len(rows):
            ahead, false, true = ahead[level], false[level], true[first[level]]
        found = true - owned if len(rows) > 1 else true
        positives = found + false
        precision = np.divide(found, positives, out=np.ones_like(found), where=positives > _LEAST)
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.stack([(owned * ahead).sum(axis=0) / (count * rest), (owned * precision).sum(axis=0) / count])
        defined = (count > 0) & (rest > 0)
        sums[:, defined] += both[:, defined]
        known += defined
    with np.errstate(invalid="ignore"):
        roc, precisions = sums / known
    return roc, precisions


def curves(labels: np.ndarray, probabilities: np.ndarray, index: int, *, points: int = 200) -> dict[str, np.ndarray]:
    """Compute the ROC and precision-recall curves of one class against the rest, thinned to about `points` points.

    Returns:
        `fpr`, `tpr`, `recall` and `precision`, each float (m,); empty for a class without images, or with all of them.
    """
    from sklearn import metrics as sklearn_metrics

    own, values = labels == index, probabilities[:, index]
    if not own.any() or own.all():
        return dict.fromkeys(("fpr", "tpr", "recall", "precision"), np.empty(0))
    fpr, tpr, _ = sklearn_metrics.roc_curve(own, values)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(own, values)

    def thinned(*lines: np.ndarray) -> tuple[np.ndarray, ...]:
        keep = np.unique(np.linspace(0, len(lines[0]) - 1, points).round().astype(int))
        return tuple(line[keep] for line in lines)

    (fpr, tpr), (recall, precision) = thinned(fpr, tpr), thinned(recall, precision)
    return {"fpr": fpr, "tpr": tpr, "recall": recall, "precision": precision}
