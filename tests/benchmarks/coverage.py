"""How many of 100 intervals of 95 % hold the true score: simulated test sets of a model that is not perfect.

python tests/benchmarks/coverage.py [--draws 1000]
"""

import argparse

import numpy as np

from imgclf.evaluation import metrics

KEYS = (
    *("balanced_accuracy", "macro_precision", "macro_f1", "weighted_precision", "weighted_f1"),
    *("macro_specificity", "cohen_kappa", "matthews", "macro_roc_auc", "macro_average_precision", "log_loss", "brier"),
)
"""All headline scores that have no interval of Wilson's; `macro_recall` is `balanced_accuracy`."""

CASES = {
    "2 x 100": (100, 100),
    "180 + 20": (180, 20),
    "60, 50, 50, 40": (60, 50, 50, 40),
    "60, 50, 40, 30, 20": (60, 50, 40, 30, 20),
    "10 x 20": (20,) * 10,
    "20 x 10": (10,) * 20,
    "2 x 300": (300, 300),
    "2 x 25": (25, 25),
    "12, 10, 8": (12, 10, 8),
}
"""Images of each class."""


def simulated(rng: np.random.Generator, sizes: tuple[int, ...], skill: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Labels and overconfident probabilities of a model that knows some classes better than others.

    Args:
        skill: how many deviations the logit of the true class lies above the others in the class known least; the
            class known best has one more.
    """
    labels = np.repeat(np.arange(len(sizes)), sizes)
    logits = rng.normal(size=(len(labels), len(sizes)))
    logits[np.arange(len(labels)), labels] += np.linspace(skill, skill + 1, len(sizes))[labels]
    powers = np.exp(1.3 * logits)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def coverage(
    sizes: tuple[int, ...], draws: int, *, skill: float = 1.2, replicates: int = 500, seed: int = 5
) -> dict[str, float]:
    """The share of intervals that hold the score of a test set hundreds of times as large."""
    rng = np.random.default_rng(seed)
    names = [str(i) for i in range(len(sizes))]
    many = tuple(160_000 // sum(sizes) * size for size in sizes)
    whole = metrics.score(*simulated(rng, many, skill), names, replicates=1)
    hits = dict.fromkeys(KEYS, 0)
    for _ in range(draws):
        found = metrics.score(*simulated(rng, sizes, skill), names, replicates=replicates)["intervals"]
        for key in KEYS:
            hits[key] += found[key] is not None and found[key][0] <= whole[key] <= found[key][1]
    return {key: count / draws for key, count in hits.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--skill", type=float, default=1.2, help="2.7 is a model that is nearly always right")
    options = parser.parse_args()
    print("images of a class |", " | ".join(KEYS))
    for name in options.case or CASES:
        found = coverage(CASES[name], options.draws, skill=options.skill)
        print(name, "|", " | ".join(f"{share:.3f}" for share in found.values()), flush=True)
