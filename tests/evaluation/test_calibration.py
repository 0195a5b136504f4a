import numpy as np
import pytest
from conftest import at_temperature
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import DatasetError, UsageError
from imgclf.evaluation import calibration


def answers(n: int, temperature: float = 1.0, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels that were drawn from the logits divided by the temperature, and the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    chances = at_temperature(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), temperature)
    return (chances.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1).clip(0, classes - 1), logits


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_calibration_errors_of_a_case_computed_by_hand():
    confident, unsure = [0.95, 0.05], [0.6, 0.4]
    found = calibration.measure(np.array([0, 0, 1, 0]), np.array([confident, confident, confident, unsure]), bins=10)
    assert [(b["n"], b["confidence"], b["accuracy"]) for b in found["bins"]] == [
        (1, pytest.approx(0.6), 1),
        (3, pytest.approx(0.95), pytest.approx(2 / 3)),
    ]
    assert found["ece"] == pytest.approx((1 * 0.4 + 3 * (0.95 - 2 / 3)) / 4)
    assert found["mce"] == pytest.approx(0.4)


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large():
    labels, logits = answers(20_000)
    assert calibration.measure(labels, softmax(logits))["ece"] < 0.015
    assert calibration.measure(labels, softmax(3 * logits))["ece"] > 0.1


@pytest.mark.parametrize("planted", [0.5, 1.0, 1.5, 3.0])
def test_a_planted_temperature_is_recovered(planted):
    labels, logits = answers(5000, planted)
    assert calibration.fit_temperature(labels, logits) == pytest.approx(planted, rel=0.05)
    logs = np.log(softmax(logits))
    assert calibration.fit_temperature(labels, logs) == pytest.approx(calibration.fit_temperature(labels, logits))


def test_few_images_without_a_mistake_do_not_make_a_model_certain():
    assert 0.5 < calibration.fit_temperature(np.zeros(5, int), np.tile([2.0, 0, 0], (5, 1))) < 1


def test_rejection_gives_the_least_confidence_with_the_wanted_share_of_right_answers():
    confidence = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 1, 0, 1])
    assert calibration.rejection(labels, probabilities, 1.0) == 0.9
    assert calibration.rejection(labels, probabilities, 0.75) == 0.7
    assert calibration.rejection(labels, probabilities, 0.6) == 0  # all answers together reach it
    with pytest.raises(DatasetError, match=r"on 1 validation images: the highest is 0, at a confidence of 0\.9"):
        calibration.rejection(np.array([1]), probabilities[:1], 0.5)


POSITIVE = np.array([0, 0, 1, 0, 1, 1], bool)
SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("precision=1", 0.5),
        ("precision=0.75", 0.3),
        ("precision=0.5", 0.1),
        ("recall=1", 0.3),
        ("recall=0.6", 0.5),
        ("recall=0.1", 0.6),
        ("cost=1:10", 0.3),
        ("cost=10:1", 0.5),
    ],
)
def test_a_threshold_meets_its_goal_at_the_least_price(goal, expected):
    assert calibration.threshold(POSITIVE, SCORES, goal) == expected


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(0.05, 1))
@settings(deadline=None)
def test_thresholds_are_the_best_of_all_levels(n, seed, wanted):
    rng = np.random.default_rng(seed)
    positive = np.append(rng.uniform(size=n - 2) < 0.5, [True, False])
    scores = rng.integers(0, 10, n) / 10

    def precision_recall(level: float) -> tuple[float, float]:
        said = scores >= level
        return positive[said].mean(), said[positive].mean()

    levels = sorted(set(scores.tolist()))
    assert calibration.threshold(positive, scores, f"recall={wanted}") == max(
        level for level in levels if precision_recall(level)[1] >= wanted
    )
    precise = [level for level in levels if precision_recall(level)[0] >= wanted]
    if precise:
        assert calibration.threshold(positive, scores, f"precision={wanted}") == precise[0]
    else:
        with pytest.raises(DatasetError, match="the highest is"):
            calibration.threshold(positive, scores, f"precision={wanted}")


@pytest.mark.parametrize("goal", ["precision", "precision=2", "recall=0", "cost=1", "cost=0:1", "beauty=1", "recall=x"])
def test_an_impossible_goal_is_a_usage_error(goal):
    with pytest.raises(UsageError, match="--threshold"):
        calibration.threshold(POSITIVE, SCORES, goal)


def test_a_threshold_needs_images_of_both_classes():
    with pytest.raises(DatasetError, match="both classes"):
        calibration.threshold(np.ones(3, bool), SCORES[:3], "recall=0.9")


def test_conformal_threshold_by_hand():
    probabilities = np.stack([np.arange(1, 20) / 20, 1 - np.arange(1, 20) / 20], axis=1)
    labels = np.zeros(19, int)
    assert calibration.conformal(labels, probabilities, 0.95) == 0.05
    assert calibration.conformal(labels, probabilities, 0.9) == 0.1
    assert calibration.conformal(labels[:18], probabilities[:18], 0.95) == 0  # too few images: every class is in


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_prediction_sets_hold_the_true_class_as_often_as_asked(coverage):
    found = []
    for seed in range(200):
        labels, logits = answers(300, seed=seed)
        probabilities = softmax(2 * logits)  # overconfident: sets hold all the same
        least = calibration.conformal(labels[:150], probabilities[:150], coverage)
        found.append((probabilities[np.arange(150, 300), labels[150:]] >= least).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert coverage - 3 * error <= np.mean(found) <= coverage + 1 / 151 + 3 * error
