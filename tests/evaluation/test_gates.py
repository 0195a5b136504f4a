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
    "text", ["accuracy", "accuracy=", "acc=0.9", "macro_f1.low=0.5", "accuracy=90", "accuracy=nan", "=1"]
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


def test_every_key_that_a_gate_can_have_can_be_checked():
    gates.check(SCORES, dict.fromkeys(gates.KEYS, 0.0))
