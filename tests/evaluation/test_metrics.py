import json
import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from imgclf.evaluation import metrics

KEYS = [
    "n",
    "accuracy",
    "balanced_accuracy",
    *(f"{mean}_{key}" for mean in ("macro", "weighted") for key in ("precision", "recall", "f1")),
    "per_class",
    "top_k",
    "confusion_matrix",
    "intervals",
]


def sure(predicted: list[int], classes: int) -> np.ndarray:
    """Probabilities of a model that is sure of these classes: float32 (n, classes)."""
    return np.eye(classes, dtype=np.float32)[predicted]


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and probabilities (n, classes), without ties; some classes may have no images."""
    classes, n = draw(st.integers(2, 8)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probabilities = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    return rng.integers(0, draw(st.integers(1, classes)), n), probabilities


@pytest.mark.parametrize(
    ("right", "false_alarms", "overlooked", "precision", "recall", "f1"),
    [(0, 3, 2, 0, 0, 0), (3, 9, 1, 0.25, 0.75, 0.375), (2, 2, 2, 0.5, 0.5, 0.5), (6, 4, 9, 0.6, 0.4, 0.48)],
)
def test_f1_of_known_precision_and_recall(right, false_alarms, overlooked, precision, recall, f1):
    labels = [0] * right + [1] * false_alarms + [0] * overlooked
    predicted = [0] * right + [0] * false_alarms + [1] * overlooked
    row = metrics.score(np.array(labels), sure(predicted, 2), ["yes", "no"])["per_class"]["yes"]
    assert row == pytest.approx({"precision": precision, "recall": recall, "f1": f1, "support": right + overlooked})


def test_a_case_computed_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = [0, 0, 0, 1, 1, 2, 2, 2]
    scores = metrics.score(labels, sure(predicted, 3), ["a", "b", "c"])
    assert scores["n"] == 8
    assert scores["accuracy"] == scores["weighted_recall"] == 6 / 8
    assert scores["balanced_accuracy"] == scores["macro_recall"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert scores["macro_precision"] == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert scores["weighted_precision"] == pytest.approx((4 * 1 + 2 * 1 / 2 + 2 * 2 / 3) / 8)
    assert scores["macro_f1"] == pytest.approx((6 / 7 + 1 / 2 + 4 / 5) / 3)
    assert scores["weighted_f1"] == pytest.approx((4 * 6 / 7 + 2 * 1 / 2 + 2 * 4 / 5) / 8)
    assert scores["confusion_matrix"] == {"labels": ["a", "b", "c"], "counts": [[3, 1, 0], [0, 1, 1], [0, 0, 2]]}
    assert scores["top_k"] == {"1": 6 / 8}


@given(answers())
@settings(deadline=None, max_examples=50)
def test_scores_agree_with_scikit_learn_and_with_plain_counting(case):
    labels, probabilities = case
    classes = probabilities.shape[1]
    names = [f"class {i}" for i in range(classes)]
    scores = metrics.score(labels, probabilities, names, top_k=min(2, classes))
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(labels.tolist()))
    assert list(scores) == KEYS
    assert json.loads(json.dumps(scores)) == scores
    assert scores["accuracy"] == sk.accuracy_score(labels, predicted) == scores["top_k"]["1"]
    for mean in ("macro", "weighted"):
        for key, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected = function(labels, predicted, labels=present, average=mean, zero_division=0)
            assert scores[f"{mean}_{key}"] == pytest.approx(expected)
    assert scores["balanced_accuracy"] == pytest.approx(scores["macro_recall"])
    if classes > 2:  # scikit-learn's takes one column where there are two classes
        expected = sk.top_k_accuracy_score(labels, probabilities, k=2, labels=range(classes))
        assert scores["top_k"]["2"] == pytest.approx(expected)
    counts = scores["confusion_matrix"]["counts"]
    pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    for i, name in enumerate(names):
        right, said, true = counts[i][i], sum(row[i] for row in counts), sum(counts[i])
        assert counts[i] == [pairs.count((i, j)) for j in range(classes)]
        assert scores["per_class"][name]["support"] == true
        assert scores["per_class"][name]["precision"] == pytest.approx(right / said if said else 0)
        assert scores["per_class"][name]["recall"] == pytest.approx(right / true if true else 0)
        assert scores["per_class"][name]["f1"] == pytest.approx(2 * right / (said + true) if right else 0)


def test_a_class_without_images_counts_in_no_mean():
    labels, predicted = np.array([0, 0, 1, 1]), [0, 2, 1, 1]
    scores = metrics.score(labels, sure(predicted, 4), ["a", "b", "absent", "never said"])
    assert scores["balanced_accuracy"] == scores["macro_recall"] == (1 / 2 + 1) / 2
    assert scores["macro_precision"] == 1
    assert scores["per_class"]["absent"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_of_equal_probabilities_the_first_class_counts_in_every_score():
    scores = metrics.score(np.array([0, 1, 2, 3]), np.full((4, 4), 0.25), list("abcd"), top_k=3)
    assert scores["accuracy"] == scores["top_k"]["1"] == 1 / 4
    assert scores["top_k"]["3"] == 3 / 4
    assert [row[0] for row in scores["confusion_matrix"]["counts"]] == [1, 1, 1, 1]


def test_top_k_beyond_the_number_of_classes_is_left_out():
    four, five = (metrics.score(np.array([0]), sure([0], n), [str(i) for i in range(n)]) for n in (4, 5))
    assert four["top_k"] == {"1": 1}
    assert five["top_k"] == {"1": 1, "5": 1}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.randoms(use_true_random=False))
def test_the_ends_of_wilsons_interval_are_where_the_share_is_just_plausible(n: int, chance: random.Random):
    successes = chance.randint(0, n)
    low, high = metrics.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for end in (low, high):  # the score test's statistic at either end is the normal distribution's 97.5 % point
        distance = abs(successes / n - end)
        assert distance == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / n), abs=1e-9)
    interval = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_the_interval_of_the_accuracy_is_wilsons():
    scores = metrics.score(np.zeros(29, int), sure([0] + [1] * 28, 2), ["a", "b"])
    assert scores["intervals"] == {"accuracy": list(metrics.wilson(1, 29))}


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "why"),
    [
        ([0], [[0.5, np.nan]], "ab", "row 0"),
        ([0, 1], [[1, 0], [0.5, 0.6]], "ab", "row 1"),
        ([0], [[1.5, -0.5]], "ab", "row 0"),
        ([0], [[np.inf, 0]], "ab", "row 0"),
        ([0, 1], [[1, 0]], "ab", r"\(1,\)"),
        ([0], [[1, 0, 0]], "ab", r"\(n, 2\)"),
        ([0], [1, 0], "ab", r"\(n, 2\)"),
        ([], np.zeros((0, 2)), "ab", "at least one"),
        ([2], [[1, 0]], "ab", "0 to 1"),
        ([-1], [[1, 0]], "ab", "0 to 1"),
        ([0.5], [[1, 0]], "ab", "whole numbers"),
        ([0], [[1, 0]], "aa", "twice"),
        ([0], [[1]], "a", "at least 2"),
    ],
)
def test_what_cannot_be_scored_is_a_value_error_that_says_why(labels, probabilities, names, why):
    with pytest.raises(ValueError, match=why):
        metrics.score(np.array(labels), np.array(probabilities, np.float32), list(names))
