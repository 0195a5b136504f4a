"""How much faster the head is fitted than by scikit-learn's LogisticRegression, both cross-validating the strength, on
the same standardized features, in one process and one thread of linear algebra.

    python tests/benchmarks/head.py [--images N] [--width N] [--classes N]

The features are made: correlated, as those of a backbone are, a few directions holding most of the variance.
"""

import argparse
import sys
import time

import numpy as np
from processes import verdict
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from imgclf.tasks import logistic as probe

SPEEDUP, DIFFERENCE = 3.0, 1e-4
FACTORS = 600


def made(images: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(images) % classes)
    scales = np.arange(1, FACTORS + 1) ** -0.7
    centers = rng.normal(0, 0.7, (classes, FACTORS)) * np.arange(1, FACTORS + 1) ** -0.35
    factors = (rng.normal(size=(images, FACTORS)) + centers[labels]) * scales
    mixed = factors @ rng.normal(size=(FACTORS, width)) / np.sqrt(np.square(scales).sum())
    return np.logaddexp(0, mixed + rng.normal(0, 0.15, mixed.shape) - 1).astype(np.float32), labels


def usual(scaled: np.ndarray, labels: np.ndarray, strengths: np.ndarray) -> None:
    """Every strength in every fold, each fit from the one before, and one on all images."""
    losses = np.zeros(len(strengths))
    for fitted, held_out in StratifiedKFold(5, shuffle=True, random_state=0).split(scaled, labels):
        model = LogisticRegression(max_iter=1000, tol=1e-5, warm_start=True)
        for place, strength in enumerate(strengths):
            model.set_params(C=strength).fit(scaled[fitted], labels[fitted])
            losses[place] += probe.log_loss(model.decision_function(scaled[held_out]), labels[held_out])
    LogisticRegression(C=strengths[losses.argmin()], max_iter=1000, tol=1e-5).fit(scaled, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 2500), ("width", 1984), ("classes", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    features, labels = made(options.images, options.width, options.classes)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    with threadpool_limits(1, user_api="blas"):
        started = time.process_time()
        probe.fit(features, labels, classes=options.classes, seed=0)
        ours_s = time.process_time() - started
        started = time.process_time()
        usual(scaled, labels, np.logspace(-4, 2, 7))
        theirs_s = time.process_time() - started
        probe.STRENGTHS = (1e-2,)  # the same strength for both
        kernel, bias = probe.fit(features, labels, classes=options.classes, seed=0)
        exact = LogisticRegression(C=1e-2, max_iter=10_000, tol=1e-7).fit(scaled.astype(np.float64), labels)
    losses = [
        probe.log_loss(logits, labels)
        for logits in (features @ kernel + bias, exact.decision_function(scaled.astype(np.float64)))
    ]
    print(f"processor time: probe.fit {ours_s:.1f} s, scikit-learn {theirs_s:.1f} s")
    met = verdict("the head is fitted faster by a factor of", theirs_s / ours_s, SPEEDUP, "", at_least=True)
    met &= verdict("log loss at C = 0.01 differs by, in 1e-4", 1e4 * abs(losses[0] - losses[1]), 1e4 * DIFFERENCE, "")
    sys.exit(not met)


if __name__ == "__main__":
    main()
