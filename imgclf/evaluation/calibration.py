"""Fit temperature, rejection, thresholds and prediction sets, and measure calibration.

Everything here is fitted on labels and probabilities of images that no weight was fitted on: the validation part.
"""

import math
from typing import Any

import numpy as np

from imgclf.errors import DatasetError, UsageError

BINS = 15

TEMPERATURES = (0.05, 20.0)
_PRIOR = 0.5  # deviation of the logarithm of the temperature, before any image was seen

GOALS = ("precision", "recall", "cost")
"""What a threshold can be chosen for."""

_TINY = 1e-30


def measure(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """How far confidence is from accuracy, over bins of equal width of the confidence.

    Args:
        labels: int (n,).
        probabilities: float (n, classes); rows sum to 1.

    Returns:
        `ece`, the expected calibration error, and `mce`, the largest, both in [0, 1], lower is better; and `bins`, the
        bins that hold images: `from`, `to`, `n`, `confidence` and `accuracy`, both means.

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3 and 5.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
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
                "accuracy": float(right[own].mean()),
            }
        )
    gaps = [(abs(row["accuracy"] - row["confidence"]), row["n"]) for row in rows]
    ece = sum(gap * n for gap, n in gaps) / len(labels)
    return {"ece": ece, "mce": max(gap for gap, _ in gaps), "bins": rows}


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The number by which logits are to be divided so that confidence is right: of the smallest log loss.

    Few images say little, and a model without a mistake asks for no temperature at all but 0. So a temperature far from
    1 has to be earned: its logarithm is taken to be normal around 0 with a deviation of 0.5 before the images speak.

    Args:
        labels: int (n,).
        logits: float (n, classes), or logarithms of probabilities, which are the same but for a constant.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2; the prior is ours.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        nats = np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, labels]
        return float(nats.sum()) + (log_temperature / _PRIOR) ** 2 / 2

    low, high = (math.log(end) for end in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities (n, classes) that the same logits give when divided by the temperature; float32."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), _TINY)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def rejection(labels: np.ndarray, probabilities: np.ndarray, precision: float) -> float:
    """The least confidence from which on this share of the answers is right.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        precision: the wanted share of right answers among those that are given, in (0, 1].

    Raises:
        DatasetError: if no confidence reaches it.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(confidence[order][1:] != confidence[order][:-1], True)  # equals are all in or all out
    met = np.flatnonzero((shares >= precision) & last)
    if not len(met):
        best = int(np.where(last, shares, -1).argmax())
        raise DatasetError(
            f"expected a confidence from which on {precision:g} of the answers are right, found none on "
            f"{len(labels)} validation images: the most is {shares[best]:.3g}, from {confidence[order][best]:.3g} on. "
            "Ask for less, or train a better model."
        )
    return 0.0 if met[-1] == len(order) - 1 else float(confidence[order][met[-1]])


def threshold(positive: np.ndarray, scores: np.ndarray, goal: str) -> float:
    """The probability from which on the positive class is the answer, in a problem of two classes.

    Args:
        positive: bool (n,).
        scores: float (n,), the probability of the positive class.
        goal: `precision=0.95`, the least threshold that reaches it; `recall=0.9`, the greatest one; or `cost=1:10`, the
            one of the smallest cost if a false alarm costs 1 and a miss 10.

    Raises:
        UsageError: if the goal is none of these.
        DatasetError: if it cannot be reached, or one of the two classes has no image.
    """
    name, wanted, miss = parse_goal(goal)
    if positive.all() or not positive.any():
        raise DatasetError(f"--threshold {goal}: expected validation images of both classes, found those of one alone.")
    levels = np.unique(scores)  # rising
    order = np.argsort(scores)
    at = np.searchsorted(scores[order], levels)  # so many images lie below each level
    rising = np.append(0, np.cumsum(positive[order]))
    hits, answered = positive.sum() - rising[at], len(scores) - at
    if name == "recall":
        return float(levels[np.flatnonzero(hits / positive.sum() >= wanted)[-1]])
    if name == "precision":
        met = np.flatnonzero(hits / answered >= wanted)
        if not len(met):
            best = int((hits / answered).argmax())
            raise DatasetError(
                f"--threshold {goal}: expected a threshold that reaches it on {len(scores)} validation images, found "
                f"none: the most is {hits[best] / answered[best]:.3g}, at {levels[best]:.3g}. Ask for less."
            )
        return float(levels[met[0]])
    costs = wanted * (answered - hits) + miss * (positive.sum() - hits)
    return float(levels[int(costs.argmin())])


def parse_goal(goal: str) -> tuple[str, float, float]:
    """The name of a goal and its one or two numbers.

    Raises:
        UsageError: if it is none of those of `threshold`.
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
    """The probability from which on a class belongs to the prediction set, so that sets hold the true class.

    For images drawn as these were, the set of all classes of at least this probability holds the true class in a share
    `coverage` of cases or more, whatever the model. With few images it is 0: every class is in every set.

    Args:
        labels: int (n,).
        probabilities: float (n, classes).
        coverage: in (0, 1).

    Source: Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341; split conformal prediction.
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels])
    rank = math.floor((len(own) + 1) * (1 - coverage) + 1e-9)  # so many may lie below
    return float(own[rank - 1]) if rank >= 1 else 0.0
