"""95% intervals of scores: Wilson's for proportions, and a normal one over bootstrap draws for others. Arrays only."""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

REPLICATES = 1000
"""Bootstrap draws for an interval."""

Z_95 = 1.959963984540054  # the 97.5% quantile of the normal distribution: 95% lie between it and its negative

CHUNK = 4_000_000  # image draws in memory at a time: 16 MB


@functools.lru_cache(maxsize=4096)
def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a proportion, in [0, 1].

    Args:
        successes: how many of the `n` trials succeeded, 0 to n.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953 (without continuity correction).
    """
    from scipy import stats

    low, high = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return float(low), float(high)


def draws(
    labels: np.ndarray, groups: Sequence[str] | None = None, *, replicates: int = REPLICATES, seed: int = 0
) -> Iterator[np.ndarray]:
    """Resample the images with replacement, class by class; yield their weights, a few replicates at a time.

    n - 1 of the n images of a class are drawn, and each counts n / (n - 1): means of n drawn images would vary too
    little, by a twentieth in classes of ten. Where there are groups, whole groups are drawn, since images of one group
    are not independent evidence; an image without a group is a group by itself. A group belongs to the class of most
    of its images. What is alone in its class is always drawn.

    Args:
        labels: int (n,).
        groups: n names, "" for none.

    Yields:
        float32 (n, b), b replicates; `replicates` in all.

    Source: Rao and Wu 1988, doi:10.1080/01621459.1988.10478591, section 2.
    """
    unit, strata = units(labels, groups)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    step = max(1, CHUNK // len(labels))
    for start in range(0, replicates, step):
        width = min(step, replicates - start)
        counts = np.empty((len(strata), width), np.float32)
        for own in members:
            size = max(1, len(own) - 1)
            drawn = rng.integers(len(own), size=(size, width)) * width + np.arange(width)
            times = np.bincount(drawn.ravel(), minlength=len(own) * width).reshape(len(own), width)
            counts[own] = times * (len(own) / size)
        yield counts if groups is None else counts[unit]


def units(labels: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit of each image (n,), of those drawn as a whole, and the class of each unit (units,)."""
    if groups is None:
        return np.arange(len(labels)), labels
    numbers: dict[tuple[bool, str | int], int] = {}
    keys = [(True, name) if name else (False, row) for row, name in enumerate(groups)]
    unit = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    order = np.lexsort((labels, unit))
    pairs, counts = np.unique(np.stack([unit[order], labels[order]], axis=1), axis=0, return_counts=True)
    strata = np.zeros(unit.max() + 1, labels.dtype)
    best = np.zeros(len(strata), int)
    for (number, label), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        if count > best[number]:
            strata[number], best[number] = label, count
    return unit, strata


def normal(
    values: np.ndarray,
    estimate: float,
    certain: tuple[float, float],
    *,
    scale: str = "share",
    center: float | None = None,
) -> tuple[float, float] | None:
    """Return the 95% interval of a score from its bootstrap values: a normal one, by their mean and standard deviation
    on an unbounded scale, corrected for bias.

    Scores near a bound are distributed unevenly, and percentiles do not reach far enough from it. On the scale of
    logits, of Fisher's transformation of a correlation, or of the logarithm of a loss they are nearly normal. A draw
    counts as at most four times as near to a bound as the estimate, since such scales are unbounded.

    Where all values are equal, such as the areas of a model without a mistake, the bootstrap says nothing; the interval
    is then as wide as that of a proportion at its bound.

    Args:
        values: (replicates,); NaN where a draw does not define the score.
        estimate: the score itself. It always lies in the interval.
        certain: how high and how low a proportion can be where all of as many images fail, or succeed: the
            high end of `wilson(0, n)` and the low end of `wilson(n, n)`.
        scale: the range of the score: share, from 0 to 1; correlation, from -1 to 1; or loss, from 0.
        center: what the values are drawn around, if that is not the estimate.

    Source: Efron and Tibshirani 1993, section 12.6 (intervals on a transformed scale) and 10.6 (bias); the limit is
    ours.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    if scale == "correlation":
        around = None if center is None else (center + 1) / 2
        ends = normal((known + 1) / 2, (estimate + 1) / 2, certain, center=around)
        if ends is None:
            return None
        return min(2 * ends[0] - 1, estimate), max(2 * ends[1] - 1, estimate)  # there and back, the last bit may differ
    highest = math.inf if scale == "loss" else 1.0
    if not 1e-12 < estimate < highest - 1e-12 or np.ptp(known) < 1e-12:
        return _at_the_end(estimate, certain)
    nearest = estimate / 4, math.inf if scale == "loss" else 1 - (1 - estimate) / 4
    known, around = np.clip(known, *nearest), float(np.clip(estimate if center is None else center, *nearest))
    stretched, middle = (np.log(x) if scale == "loss" else np.log(x / (1 - x)) for x in (known, around))
    middle, half = 2 * middle - stretched.mean(), Z_95 * stretched.std()
    low, high = (math.exp(end) for end in (middle - half, middle + half))
    if scale != "loss":
        low, high = low / (1 + low), high / (1 + high)
    return min(low, estimate), max(high, estimate)


def _at_the_end(estimate: float, certain: tuple[float, float]) -> tuple[float, float] | None:
    if abs(estimate) < 1e-12:
        return 0.0, certain[0]
    if abs(estimate - 1) < 1e-12:
        return certain[1], 1.0
    return None


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values, so that the probability of any false rejection is at most the level that they are held to.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for done, place in enumerate(np.argsort(values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(values) - done) * values[place]))
        adjusted[place] = largest
    return adjusted
