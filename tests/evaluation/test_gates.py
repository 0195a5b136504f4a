import numpy as np
import pytest

from imgclf.errors import GateError, UsageError
from imgclf.evaluation import gates, metrics

SCORES = metrics.score(np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 0]], ["ant", "bee"])
"""Accuracy 0.75, 95 % interval 0.30 to 0.95; macro recall 0.5."""


def test_gates_are_read_from_a_list():
    assert gates.parse("accuracy=0.9, macro_f1 = .85,accuracy.low=1") == {
        "accuracy": 0.9,
        "macro_f1": 0.85,
        "accuracy.low": 1.0,
    }
    assert gates.parse(None) == {}


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
        gates.parse(text)


def test_scores_at_their_gates_pass():
    gates.check(SCORES, {"accuracy": 0.75, "macro_recall": 0.5, "accuracy.low": 0.3})


def test_all_that_fell_short_is_named_and_nothing_else():
    with pytest.raises(GateError) as caught:
        gates.check(SCORES, {"accuracy": 0.75, "macro_recall": 0.6, "accuracy.low": 0.31})
    assert "macro_recall is 0.5, below 0.6" in str(caught.value)
    assert "accuracy.low is 0.30" in str(caught.value)
    assert "accuracy is" not in str(caught.value)


def test_of_losses_the_gate_is_what_they_may_be_at_most():
    gates.check(SCORES, {"brier": 0.5, "calibration.ece": 0.25})
    with pytest.raises(GateError, match=r"brier is 0\.5, above 0\.4"):
        gates.check(SCORES, {"brier": 0.4})


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
        gates.check(SCORES, gates.parse(gate))
    else:
        with pytest.raises(GateError):
            gates.check(SCORES, gates.parse(gate))


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
        gates.check(found, gates.parse(gate))
    else:
        with pytest.raises(GateError):
            gates.check(found, gates.parse(gate))


@pytest.mark.parametrize(("gate", "named"), [("per_class.wasp.recall=0.5", "ant, bee"), ("top_k.9=0.5", "--top-k")])
def test_a_class_or_a_k_that_does_not_exist_is_a_usage_error(gate, named):
    with pytest.raises(UsageError, match=named):
        gates.check(SCORES, gates.parse(gate))


def test_what_is_not_known_passes_no_gate():
    one_class = metrics.score(np.array([0, 0]), np.eye(2)[[0, 1]], ["ant", "bee"])
    with pytest.raises(GateError, match="macro_roc_auc is undefined, since the images do not suffice for it"):
        gates.check(one_class, {"macro_roc_auc": 0.0})


def test_every_score_can_be_a_gate_with_both_ends():
    chance = ("cohen_kappa", "matthews")
    labels, rng = np.arange(60) % 3, np.random.default_rng(0)
    found = metrics.score(labels, rng.dirichlet(np.ones(3), 60), ["ant", "bee", "wasp"], replicates=20)
    for key in metrics.INTERVALS:
        for end in ("", ".low", ".high"):
            gates.check(
                found, gates.parse(f"{key}{end}={1000 if key in metrics.LOSSES else -1 if key in chance else 0}")
            )


def test_the_error_lists_every_key():
    with pytest.raises(UsageError) as raised:
        gates.parse("acuracy=0.9")
    assert "unknown score 'acuracy'. Did you mean accuracy?" in str(raised.value)
    listed = str(raised.value).partition("keys are ")[2].partition(";")[0].split(", ")
    for key in listed:
        assert gates.parse(f"{key.replace('NAME', 'ant').replace('K', '5')}=1")
    assert {*metrics.INTERVALS, "n", "per_class.NAME.recall", "decision.answered"} <= set(listed)
