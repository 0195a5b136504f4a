"""Fit temperature, rejection, thresholds and prediction sets, and measure calibration.

Everything here is fitted on labels and probabilities of the validation split, which no weight was fitted on.
"""

import math
from typing import Any

import numpy as np

from imgclf.errors import DatasetError, UsageError

BINS = 15

TEMPERATURES = (0.05, 20.0)
_PRIOR = 0.5  # standard deviation of the logarithm of the temperature, before any image


def measure(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Measure how far confidence is from accuracy, over bins of equal width of the confidence.

    Args:
        labels: int (n,).
        probabilities: float (n, classes); rows sum to 1.

    Returns:
        `ece`, the expected calibration error, and `mce`, the maximum, both in [0, 1], lower is better; and `bins` with
        images: `from`, `to`, `n`, `confidence` and `accuracy`, both means.

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3 and 5.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for number in np.unique(place).tolist():
        own = place == number
        rows.append(
            {
                "from": number / bins,
                "to": (number + 1) / bins,
                "n": int(own.sum()),
                "confidence": float(confidence[own].mean()),
                "accuracy": float(correct[own].mean()),
            }
        )
    gaps = [(abs(row["accuracy"] - row["confidence"]), row["n"]) for row in rows]
    ece = sum(gap * n for gap, n in gaps) / len(labels)
    return {"ece": ece, "mce": max(gap for gap, _ in gaps), "bins": rows}


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Fit the divisor of the logits that gives the smallest log loss.

    Few images say little, and for a model without a mistake the best temperature would be 0. The logarithm therefore
    has a normal prior around 0 with a standard deviation of 0.5.

    Args:
        labels: int (n,).
        logits: float (n, classes), or logarithms of probabilities, which differ by a constant only.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2; the prior is ours.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        nats = -log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels]
        return float(nats.sum()) + prior(log_temperature)

    low, high = (math.log(end) for end in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def prior(log_temperature: float) -> float:
    """Return what a temperature costs before any image, in nats: the logarithm has a normal distribution around 0."""
    return (log_temperature / _PRIOR) ** 2 / 2


def rejection(labels: np.ndarray, probabilities: np.ndarray, precision: float) -> float:
    """Find the lowest confidence from which this share of the predictions is correct.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        precision: the share of correct predictions to reach among the covered images, in (0, 1].

    Raises:
        DatasetError: if no confidence reaches it.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last = np.append(confidence[order][1:] != confidence[order][:-1], True)  # equals are all in or all out
    met = np.flatnonzero((shares >= precision) & last)
    if not len(met):
        best = int(np.where(last, shares, -1).argmax())
        raise DatasetError(
            f"--precision {precision:g} cannot be reached on {len(labels)} validation images: the highest is "
            f"{shares[best]:.3g}, at a confidence of {confidence[order][best]:.3g}. Lower it, or train a better model."
        )
    return 0.0 if met[-1] == len(order) - 1 else float(confidence[order][met[-1]])


def threshold(positive: np.ndarray, scores: np.ndarray, goal: str) -> float:
    """Fit the probability from which the positive one of two classes is predicted.

    Args:
        positive: bool (n,).
        scores: float (n,), the probability of the positive class.
        goal: `precision=0.95`, the lowest threshold that reaches it; `recall=0.9`, the highest one; or `cost=1:10`, the
            one with the lowest cost if a false alarm costs 1 and a miss 10.

    Raises:
        UsageError: if the goal is another.
        DatasetError: if it cannot be reached, or one of the two classes lacks images.
    """
    name, wanted, miss = parse_goal(goal)
    if positive.all() or not positive.any():
        raise DatasetError(f"--threshold {goal}: expected validation images of both classes, found one class only.")
    levels = np.unique(scores)  # rising
    order = np.argsort(scores)
    at = np.searchsorted(scores[order], levels)  # images below each level
    rising = np.append(0, np.cumsum(positive[order]))
    hits, predicted = positive.sum() - rising[at], len(scores) - at
    if name == "recall":
        return float(levels[np.flatnonzero(hits / positive.sum() >= wanted)[-1]])
    if name == "precision":
        met = np.flatnonzero(hits / predicted >= wanted)
        if not len(met):
            best = int((hits / predicted).argmax())
            raise DatasetError(
                f"--threshold {goal}: cannot be reached on {len(scores)} validation images; the highest is "
                f"{hits[best] / predicted[best]:.3g}, at a threshold of {levels[best]:.3g}. Lower the goal."
            )
        return float(levels[met[0]])
    costs = wanted * (predicted - hits) + miss * (positive.sum() - hits)
    return float(levels[int(costs.argmin())])


def parse_goal(goal: str) -> tuple[str, float, float]:
    """Parse a goal: its name and its one or two numbers.

    Raises:
        UsageError: if it is not one of those of `threshold`.
    """
    name, _, value = (part.strip() for part in goal.partition("="))
    try:
        numbers = [float(part) for part in value.split(":")]
    except ValueError:
        numbers = []
    if name in ("precision", "recall") and len(numbers) == 1 and 0 < numbers[0] <= 1:
        return name, numbers[0], 0.0
    if name == "cost" and len(numbers) == 2 and min(numbers) > 0 and math.isfinite(sum(numbers)):
        return name, numbers[0], numbers[1]
    raise UsageError(
        "--threshold: expected precision=P or recall=R, from above 0 to 1, or cost=A:M, the costs of a false alarm and "
        f"of a miss; found {goal!r}."
    )


def conformal(labels: np.ndarray, probabilities: np.ndarray, coverage: float) -> float:
    """Fit the probability from which a class belongs to the prediction set, so that sets contain the true class.

    For images drawn as these were, the set of all classes of at least this probability contains the true class in a
    share `coverage` of cases or more, whatever the model. With few images it is 0: every class is in every set.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        coverage: in (0, 1).

    Source: Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341; split conformal prediction.
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels])
    rank = math.floor((len(own) + 1) * (1 - coverage) + 1e-9)  # how many may lie below
    return float(own[rank - 1]) if rank >= 1 else 0.0
