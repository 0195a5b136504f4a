from pathlib import Path

import numpy as np
import pytest

from imgclf import runs
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation import decisions, outputs
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import artifact
from imgclf.prediction.decision import Decision, decide
from imgclf.runs import Run
from imgclf.settings import CalibrateConfig

NAMES = ["ant", "bee"]
CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55], [0.1, 0.9]], np.float32)
LABELS = np.array([0, 0, 1, 1, 1])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = runs.create(tmp_path / "run")
    outputs.write_predictions(made.validation, [f"{i}.png" for i in range(5)], LABELS, CHANCES, NAMES)
    artifact.write(made.path, artifact.Artifact(tuple(NAMES), 16, "squash", "small", ("probabilities",), "", {}))
    return made


def measure(labels, probabilities, rules, outlier_scores=None, names=NAMES):
    return decisions.measure(labels, decide(probabilities, names, rules, outlier_scores), names, rules)


def test_answers_counted_by_hand():
    rules = Decision(outlier_above=1.0, set_from=0.4, coverage=0.9, reject_below=0.58)
    found = measure(LABELS, CHANCES, rules, np.array([0, 2, 0, 0, 0]))
    assert (found["answered"], found["unsure"], found["outlier"]) == (3 / 5, 1 / 5, 1 / 5)
    assert found["precision"] == pytest.approx(2 / 3) and found["interval"] == list(wilson(2, 3))
    assert found["set_coverage"] == 1 and found["set_size"] == pytest.approx(7 / 5)


def test_a_positive_class_is_counted_at_its_threshold():
    found = measure(LABELS, CHANCES, Decision(positive="bee", threshold=0.4))
    assert (found["positive_precision"], found["positive_recall"], found["positive_specificity"]) == (1, 1, 1)
    assert found["precision"] == 1
    plain = measure(LABELS, CHANCES, Decision())
    assert plain["precision"] == 4 / 5 and "positive" not in plain and "set_size" not in plain


def test_rules_are_fitted_on_validation_kept_and_taken_away_again(run):
    config = CalibrateConfig(reject_below="auto", precision=1.0, coverage="0.6", positive="bee", threshold="recall=1")
    facts, _ = decisions.calibrate(run, config)
    assert artifact.read(run.path) == facts
    assert facts.decision.reject_below == pytest.approx(0.8)  # from there on all are right
    assert facts.decision.set_from == pytest.approx(0.55)
    assert (facts.decision.positive, facts.decision.threshold) == ("bee", pytest.approx(0.4))
    kept, _ = decisions.calibrate(run, CalibrateConfig(coverage="none"))
    assert kept.decision.set_from is None and kept.decision.reject_below == facts.decision.reject_below
    cleared, _ = decisions.calibrate(run, CalibrateConfig(reject_below="none", threshold="none"))
    assert cleared.decision == Decision()
    assert decisions.calibrate(run, CalibrateConfig(reject_below="0.7"))[0].decision.reject_below == 0.7


def drawn(rng: np.random.Generator, n: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the overconfident probabilities of a model that is right in about half of the cases."""
    logits = rng.normal(0, 1.5, (n, classes))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1).clip(0, classes - 1)
    powers = chances**1.5
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "models"), [(50, 200), (200, 100), (1000, 30)])
@pytest.mark.parametrize("asked", [0.8, 0.9, 0.95, 0.99])
def test_sets_miss_the_true_class_as_often_as_asked_where_they_are_stored_read_and_applied(run, asked, n, models):
    names = [str(i) for i in range(10)]
    rng = np.random.default_rng(0)
    artifact.write(run.path, artifact.Artifact(tuple(names), 16, "squash", "small", ("probabilities",), "", {}))
    found = []
    for _ in range(models):
        labels, probabilities = drawn(rng, n)
        outputs.write_predictions(run.validation, map(str, range(n)), labels, probabilities, names)
        decisions.calibrate(run, CalibrateConfig(coverage=str(asked)))
        rules = artifact.read(run.path).decision
        labels, probabilities = drawn(rng, 1000)
        found.append(measure(labels, probabilities, rules, names=names)["set_coverage"])
    misses = np.floor((n + 1) * (1 - asked) + 1e-9) / (n + 1)  # what theory says: 1 - asked, in steps of 1 / (n + 1)
    assert 1 - asked - 1 / (n + 1) < misses <= 1 - asked + 1e-9
    error = np.std(found) / np.sqrt(models)
    assert 1 - np.mean(found) == pytest.approx(misses, abs=3 * error + 1e-9)


def test_what_cannot_be_reached_or_is_missing_is_an_error(run):
    with pytest.raises(UsageError, match="--positive"):
        decisions.calibrate(run, CalibrateConfig(threshold="recall=1", positive="wasp"))
    wrong = 1 - LABELS
    outputs.write_predictions(run.validation, list("abcde"), wrong, CHANCES, NAMES)
    with pytest.raises(DatasetError, match="cannot be reached on 5 validation images"):
        decisions.calibrate(run, CalibrateConfig(reject_below="auto", precision=1.0))
    run.validation.unlink()
    with pytest.raises(RunError, match=r"validation\.csv"):
        decisions.calibrate(run, CalibrateConfig(coverage="0.9"))


@pytest.mark.parametrize(
    "settings",
    [
        {"reject_below": "1.5"},
        {"reject_below": "high"},
        {"coverage": "1"},
        {"precision": 0.0},
        {"outliers": "all"},
        {"positive": "ant"},
    ],
)
def test_an_impossible_setting_is_a_usage_error(settings):
    with pytest.raises(UsageError):
        CalibrateConfig(**settings)
