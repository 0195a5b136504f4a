import numpy as np
import pytest

from imgclf.errors import GateError, UsageError
from imgclf.evaluation import gates, metrics
from imgclf.evaluation.scorers import multiclass, multilabel, regression

SCORES = metrics.score(np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 0]], ["ant", "bee"])
"""Accuracy 0.75, 95 % interval 0.30 to 0.95; macro recall 0.5."""

KEYS = multiclass.GATES


def test_gates_are_read_from_a_list():
    assert gates.parse("accuracy=0.9, macro_f1 = .85,accuracy.low=1", KEYS) == {
        "accuracy": 0.9,
        "macro_f1": 0.85,
        "accuracy.low": 1.0,
    }
    assert gates.parse(None, KEYS) == {}


@pytest.mark.parametrize(
    "text",
    [
        "accuracy",
        "accuracy=",
        "acc=0.9",
        "macro_f1.mid=0.5",
        "accuracy=90",
        "accuracy=nan",
        "=1",
        "log_loss=inf",
        "per_class.ant=1",
    ],
)
def test_an_unknown_key_or_an_impossible_value_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--fail-under"):
        gates.parse(text, KEYS)


def test_scores_at_their_gates_pass():
    gates.check(SCORES, {"accuracy": 0.75, "macro_recall": 0.5, "accuracy.low": 0.3}, KEYS)


def test_all_that_fell_short_is_named_and_nothing_else():
    with pytest.raises(GateError) as caught:
        gates.check(SCORES, {"accuracy": 0.75, "macro_recall": 0.6, "accuracy.low": 0.31}, KEYS)
    assert "macro_recall is 0.5, below 0.6" in str(caught.value)
    assert "accuracy.low is 0.30" in str(caught.value)
    assert "accuracy is" not in str(caught.value)


def test_of_losses_the_gate_is_what_they_may_be_at_most():
    gates.check(SCORES, {"brier": 0.5, "calibration.ece": 0.25}, KEYS)
    with pytest.raises(GateError, match=r"brier is 0\.5, above 0\.4"):
        gates.check(SCORES, {"brier": 0.4}, KEYS)


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        *(("n=4", True), ("n=5", False), ("per_class.ant.recall=1", True), ("per_class.bee.recall=0.1", False)),
        *(("per_class.ant.recall.low=0.4", True), ("per_class.ant.recall.low=0.5", False), ("top_k.1=0.75", True)),
        *(
            ("per_class.bee.roc_auc=0.5", True),
            ("cohen_kappa=-0.5", True),
            ("matthews=-0.5", False),
            ("macro_f1.high=0.99", False),
        ),
    ],
)
def test_keys_inside_others_can_be_gates_too(gate, passes):
    if passes:
        gates.check(SCORES, gates.parse(gate, KEYS), KEYS)
    else:
        with pytest.raises(GateError):
            gates.check(SCORES, gates.parse(gate, KEYS), KEYS)


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        *(("decision.answered=0.9", True), ("decision.answered=0.91", False), ("decision.outlier=0.1", True)),
        *(
            ("decision.outlier=0.05", False),
            ("decision.precision.low=0.7", True),
            ("decision.precision.low=0.8", False),
        ),
        *(("decision.precision.high=0.95", True), ("decision.set_coverage=0.5", False)),
    ],
)
def test_what_the_rules_for_answers_make_of_the_images_can_be_a_gate(gate, passes):
    found = SCORES | {"decision": {"answered": 0.9, "outlier": 0.1, "precision": 0.85, "interval": [0.75, 0.95]}}
    if passes:
        gates.check(found, gates.parse(gate, KEYS), KEYS)
    else:
        with pytest.raises(GateError):
            gates.check(found, gates.parse(gate, KEYS), KEYS)


@pytest.mark.parametrize(("gate", "named"), [("per_class.wasp.recall=0.5", "ant, bee"), ("top_k.9=0.5", "--top-k")])
def test_a_class_or_a_k_that_does_not_exist_is_a_usage_error(gate, named):
    with pytest.raises(UsageError, match=named):
        gates.check(SCORES, gates.parse(gate, KEYS), KEYS)


def test_what_is_not_known_passes_no_gate():
    one_class = metrics.score(np.array([0, 0]), np.eye(2)[[0, 1]], ["ant", "bee"])
    with pytest.raises(GateError, match="macro_roc_auc is undefined, since the images do not suffice for it"):
        gates.check(one_class, {"macro_roc_auc": 0.0}, KEYS)


def test_every_score_can_be_a_gate_with_both_ends():
    chance = ("cohen_kappa", "matthews")
    labels, rng = np.arange(60) % 3, np.random.default_rng(0)
    found = metrics.score(labels, rng.dirichlet(np.ones(3), 60), ["ant", "bee", "wasp"], replicates=20)
    for key in metrics.INTERVALS:
        least = 1000 if key in metrics.LOSSES else -1 if key in chance else 0
        for end in ("", ".low", ".high"):
            gates.check(found, gates.parse(f"{key}{end}={least}", KEYS), KEYS)


def test_the_error_lists_every_key():
    with pytest.raises(UsageError) as raised:
        gates.parse("acuracy=0.9", KEYS)
    assert "unknown score 'acuracy'. Did you mean accuracy?" in str(raised.value)
    listed = str(raised.value).partition("keys are ")[2].partition(";")[0].split(", ")
    for key in listed:
        assert gates.parse(f"{key.replace('NAME', 'ant').replace('K', '5')}=1", KEYS)
    assert {*metrics.INTERVALS, "n", "per_class.NAME.recall", "decision.answered"} <= set(listed)


LABELS = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], np.float32)
TAGS = multilabel.measure(LABELS, LABELS * 0.9, LABELS * [[1, 1], [1, 1], [1, 1], [0, 1]], ["cat", "dog"])
"""Six labels, of which one is missed: a cat. So 1 of 8 answers is incorrect, and 1 of 4 images."""

NUMBERS = regression.measure(
    np.array([[1.0, 10], [2, 20], [3, 30], [4, 40]]), np.array([[1.5, 10], [2, 20], [3, 30], [4, 44]]), ["age", "size"]
)
"""Mean errors of 0.125 and 1."""

ONE = regression.measure(np.array([[1.0], [2], [3], [4]]), np.array([[1.5], [2], [3], [4]]), ["age"])


@pytest.mark.parametrize(
    ("scores", "task", "gate", "missed"),
    [
        (TAGS, multilabel, "mean_average_precision=1,subset_accuracy=0.75,hamming_loss=0.125,n=4", None),
        (TAGS, multilabel, "hamming_loss=0.12", r"hamming_loss is 0\.125, above 0\.12"),
        (TAGS, multilabel, "per_class.cat.recall=0.6,per_class.dog.recall=1", None),
        (TAGS, multilabel, "per_class.cat.recall=0.7", r"per_class\.cat\.recall is 0\.66.*, below 0\.7"),
        (TAGS, multilabel, "subset_accuracy.low=0.31", r"subset_accuracy\.low is 0\.30.*, below 0\.31"),
        (TAGS, multilabel, "per_class.cat.recall.high=0.97,per_class.cat.support=3", None),
        (ONE, regression, "mae=0.125,r2=0.9,spearman=1,median_error=0,rmse=0.25,mae.low=0", None),
        (ONE, regression, "mae=0.1", r"mae is 0\.125, above 0\.1"),
        (ONE, regression, "r2=0.96", r"r2 is 0\.95, below 0\.96"),
        (NUMBERS, regression, "r2=0.9,per_value.age.mae=0.125,per_value.size.mae=1", None),
        (NUMBERS, regression, "per_value.size.mae.high=0.5", r"per_value\.size\.mae\.high is .*, above 0\.5"),
    ],
)
def test_the_scores_of_other_tasks_can_be_gates(scores, task, gate, missed):
    found = gates.parse(gate, task.GATES)
    if missed is None:
        return gates.check(scores, found, task.GATES)
    with pytest.raises(GateError, match=missed):
        gates.check(scores, found, task.GATES)


@pytest.mark.parametrize(
    ("scores", "task", "gate", "message"),
    [
        (ONE, regression, "accuracy=0.9", "unknown score 'accuracy'.*The keys are n, r2, spearman, mae"),
        (ONE, regression, "map=0.9", "Did you mean mae"),
        (ONE, regression, "mae=-1", "expected a number from 0 on for mae, found '-1'"),
        (ONE, regression, "r2=1.5", "expected a number up to 1 for r2, found '1.5'"),
        (TAGS, multilabel, "macro_f1=90", "expected a number from 0 to 1 for macro_f1, found '90'"),
        (TAGS, multilabel, "decision.empty.low=0", "unknown score"),
        (TAGS, multilabel, "per_class.cow.recall=0.5", "unknown name; expected one of cat, dog"),
        (NUMBERS, regression, "mae=2", "2 numbers have no common one. Name one: per_value.age.mae"),
    ],
)
def test_a_gate_that_another_task_cannot_have_is_a_usage_error(scores, task, gate, message):
    with pytest.raises(UsageError, match=message):
        gates.check(scores, gates.parse(gate, task.GATES), task.GATES)


@pytest.mark.parametrize(("scores", "task"), [(TAGS, multilabel), (ONE, regression)])
def test_every_score_of_a_task_is_a_gate(scores, task):
    plain = {key for key, value in scores.items() if isinstance(value, int | float)}
    assert plain <= set(task.GATES.ranges)
