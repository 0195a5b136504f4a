import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from imgclf.errors import GateError
from imgclf.evaluation import areas, gates, metrics
from imgclf.evaluation.scorers import multiclass

KEYS = [
    *("n", *metrics.SCORES, "log_loss", "brier", "per_class", "top_k", "confusion_matrix", "most_confused"),
    *("argmax", "calibration", "intervals", "groups", "warnings"),
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
    labels = [0] * right + [1] * false_alarms + [0] * overlooked + [1] * 7
    predicted = [0] * right + [0] * false_alarms + [1] * overlooked + [1] * 7
    row = metrics.score(np.array(labels), sure(predicted, 2), ["yes", "no"])["per_class"]["yes"]
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision, recall, f1))
    assert row["support"] == right + overlooked
    assert [row[key] for key in ("tp", "fp", "fn", "tn")] == [right, false_alarms, overlooked, 7]


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
    scores = metrics.score(labels, probabilities, names, top_k=min(2, classes), replicates=2)
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(labels.tolist()))
    either = sorted({*labels.tolist(), *predicted.tolist()})
    assert list(scores) == KEYS
    assert json.loads(json.dumps(scores)) == scores
    assert scores["accuracy"] == sk.accuracy_score(labels, predicted) == scores["top_k"]["1"]
    for mean in ("macro", "weighted"):
        for key, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            assert scores[f"{mean}_{key}"] == pytest.approx(function(labels, predicted, average=mean, zero_division=0))
            among = function(labels, predicted, labels=either, average=mean, zero_division=0)
            assert scores[f"{mean}_{key}"] == pytest.approx(among)
    expected = sk.recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert scores["balanced_accuracy"] == pytest.approx(expected)
    if classes > 2:  # scikit-learn's takes one column where there are two classes
        expected = sk.top_k_accuracy_score(labels, probabilities, k=2, labels=range(classes))
        assert scores["top_k"]["2"] == pytest.approx(expected)
    counts = scores["confusion_matrix"]["counts"]
    pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    for i, name in enumerate(names):
        right, said, true = counts[i][i], sum(row[i] for row in counts), sum(counts[i])
        assert counts[i] == [pairs.count((i, j)) for j in range(classes)]
        assert scores["per_class"][name]["support"] == true
        row = scores["per_class"][name]
        others = len(labels) - true
        assert row["precision"] == (pytest.approx(right / said) if said else None)
        assert row["recall"] == (pytest.approx(right / true) if true else None)
        assert row["f1"] == (pytest.approx(2 * right / (said + true)) if said + true else None)
        assert row["specificity"] == (pytest.approx((others - said + right) / others) if others else None)


@given(answers(), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_scores_of_rejected_images_agree_with_scikit_learn(case, share):
    """To scikit-learn a rejection is one more class, which is left out of the means."""
    labels, probabilities = case
    classes = probabilities.shape[1]
    names = [f"class {i}" for i in range(classes)]
    rng = np.random.default_rng(0)
    predicted = np.where(rng.uniform(size=len(labels)) < share, metrics.REJECTED, rng.integers(0, classes, len(labels)))
    scores = metrics.score(labels, probabilities, names, predicted, replicates=2)
    assert scores["accuracy"] == sk.accuracy_score(labels, predicted)
    present = sorted({*labels.tolist(), *predicted.tolist()} - {metrics.REJECTED})
    for key, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        for mean, among in (("macro", present), ("weighted", present), ("micro", range(classes))):
            expected = function(labels, predicted, labels=among, average=mean, zero_division=np.nan)
            if (mean, key) == ("micro", "precision") and (predicted == metrics.REJECTED).all():
                assert scores["micro_precision"] is None and np.isnan(expected)
                continue
            expected = function(labels, predicted, labels=among, average=mean, zero_division=0)
            assert scores[f"{mean}_{key}"] == pytest.approx(expected)
        each = function(labels, predicted, labels=range(classes), average=None, zero_division=np.nan)
        ours = [math.nan if row[key] is None else row[key] for row in scores["per_class"].values()]
        assert ours == pytest.approx(each, nan_ok=True)
    if len(labels) > 1 and len(set(labels.tolist()) | set(predicted.tolist())) > 1:
        assert scores["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted))
        if len(set(labels.tolist())) > 1 and len(set(predicted.tolist())) > 1:
            assert scores["matthews"] == pytest.approx(sk.matthews_corrcoef(labels, predicted), abs=1e-6)
        else:
            assert scores["matthews"] is None
    known = predicted != metrics.REJECTED
    counts = sk.confusion_matrix(labels, predicted, labels=range(classes)) if known.any() else np.zeros((classes,) * 2)
    assert scores["confusion_matrix"]["counts"] == counts.tolist()
    rejected = [int((~known & (labels == i)).sum()) for i in range(classes)]
    assert [row["rejected"] for row in scores["per_class"].values()] == rejected
    bare = metrics.score(labels, probabilities, names, replicates=2)
    for key in set(metrics.SCORES) - set(metrics.AREAS):
        assert scores["argmax"][key] == bare[key] == bare["argmax"][key]
    assert scores["argmax"]["intervals"]["accuracy"] == bare["intervals"]["accuracy"]
    for key in ("top_k", "log_loss", "brier", "calibration", *metrics.AREAS):
        assert scores[key] == bare[key]


def test_scores_with_rejected_images_computed_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 1, -1, 1, -1])
    scores = metrics.score(labels, sure([0, 0, 1, 0, 1, 0], 2), ["a", "b"], predicted)
    assert scores["accuracy"] == 3 / 6
    assert [row["recall"] for row in scores["per_class"].values()] == [2 / 4, 1 / 2]
    assert [row["precision"] for row in scores["per_class"].values()] == [1, 1 / 2]
    assert [row["specificity"] for row in scores["per_class"].values()] == [1, 3 / 4]
    assert [row["rejected"] for row in scores["per_class"].values()] == [1, 1]
    assert scores["micro_precision"] == 3 / 4 and scores["micro_recall"] == 3 / 6
    assert scores["intervals"]["accuracy"] == list(metrics.wilson(3, 6))
    assert scores["intervals"]["micro_precision"] == list(metrics.wilson(3, 4))
    assert scores["argmax"]["accuracy"] == scores["top_k"]["1"] == 4 / 6
    assert scores["argmax"]["per_class"]["b"]["recall"] == 1 / 2


def test_a_model_that_rejects_all_has_no_hit_and_no_precision():
    scores = metrics.score(np.array([0, 1]), sure([0, 1], 2), ["a", "b"], np.array([-1, -1]))
    assert scores["accuracy"] == scores["macro_f1"] == scores["macro_precision"] == 0
    assert scores["micro_precision"] is scores["matthews"] is None
    assert scores["intervals"]["micro_precision"] is None
    assert scores["argmax"]["accuracy"] == 1


@pytest.mark.parametrize("predicted", [[0], [0, 2], [0, -2]])
def test_predictions_that_are_no_classes_are_a_value_error(predicted):
    with pytest.raises(ValueError, match="predicted"):
        metrics.score(np.array([0, 1]), sure([0, 1], 2), ["a", "b"], np.array(predicted))


def test_a_class_without_images_counts_in_macro_means_where_it_is_predicted_and_nowhere_else():
    labels, predicted = np.array([0, 0, 1, 1]), [0, 2, 1, 1]
    scores = metrics.score(labels, sure(predicted, 4), ["a", "b", "absent", "never said"])
    assert scores["balanced_accuracy"] == (1 / 2 + 1) / 2
    assert scores["macro_recall"] == (1 / 2 + 1 + 0) / 3
    assert scores["macro_precision"] == (1 + 1 + 0) / 3
    assert scores["macro_specificity"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    absent = scores["per_class"]["absent"]
    assert [absent[key] for key in ("precision", "recall", "f1", "specificity", "support")] == [0, None, 0, 3 / 4, 0]
    assert absent["roc_auc"] is absent["average_precision"] is absent["intervals"]["recall"] is None
    never = scores["per_class"]["never said"]
    assert [never[key] for key in ("precision", "recall", "f1", "specificity")] == [None, None, None, 1]
    assert "Without images: 'absent', 'never said'." in scores["warnings"][1]


def test_what_is_undefined_is_none_and_not_0():
    scores = metrics.score(np.array([0, 0, 0]), sure([0, 0, 0], 2), ["cats", "dogs"])
    assert scores["accuracy"] == scores["macro_f1"] == 1
    undefined = ("macro_specificity", "matthews", "cohen_kappa", "macro_roc_auc")
    assert [scores[key] for key in undefined] == [scores["intervals"][key] for key in undefined] == [None] * 4
    assert scores["per_class"]["cats"]["specificity"] is None
    assert scores["per_class"]["dogs"]["specificity"] == 1
    for key in undefined:
        with pytest.raises(GateError, match=rf"{key} is undefined, since the images do not suffice"):
            gates.check(scores, {key: 0.5}, multiclass.GATES)
    constant = metrics.score(np.array([0, 1, 1]), sure([1, 1, 1], 2), ["cats", "dogs"])
    assert constant["matthews"] is None and constant["cohen_kappa"] == 0
    assert constant["macro_precision"] == (0 + 2 / 3) / 2


def test_of_equal_probabilities_the_first_class_counts_in_every_score():
    scores = metrics.score(np.array([0, 1, 2, 3]), np.full((4, 4), 0.25), list("abcd"), top_k=3)
    assert scores["accuracy"] == scores["top_k"]["1"] == 1 / 4
    assert scores["top_k"]["3"] == 3 / 4
    assert [row[0] for row in scores["confusion_matrix"]["counts"]] == [1, 1, 1, 1]


def test_top_k_of_all_classes_is_left_out():
    five, six = (metrics.score(np.array([0]), sure([0], n), [str(i) for i in range(n)]) for n in (5, 6))
    assert five["top_k"] == {"1": 1}
    assert six["top_k"] == {"1": 1, "5": 1}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_ends_of_wilsons_interval_are_where_the_share_is_just_plausible(n: int, chance: random.Random):
    successes = chance.randint(0, n)
    low, high = metrics.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for end in (low, high):  # the score test's statistic at either end is the normal distribution's 97.5 % point
        distance = abs(successes / n - end)
        assert distance == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / n), abs=1e-9)


@given(answers())
@settings(deadline=None, max_examples=50)
def test_the_other_scores_agree_with_scikit_learn(case):
    labels, probabilities = case
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    scores = metrics.score(labels, probabilities, [str(i) for i in range(classes)], replicates=2)
    assert scores["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=range(classes)), rel=1e-4)
    brier = sk.brier_score_loss(labels, probabilities, labels=range(classes), scale_by_half=False)
    assert scores["brier"] == pytest.approx(brier, rel=1e-4)
    if len({*labels, *predicted}) == 1:
        assert scores["cohen_kappa"] is None
    else:
        assert scores["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted), abs=1e-6)
    if len({*labels}) == 1 or len({*predicted}) == 1:
        assert scores["matthews"] is None
    else:
        assert scores["matthews"] == pytest.approx(sk.matthews_corrcoef(labels, predicted), abs=1e-6)
    for key, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert scores[f"micro_{key}"] == pytest.approx(function(labels, predicted, average="micro"))
    for i, row in enumerate(scores["per_class"].values()):
        own, said = labels == i, predicted == i
        assert row["specificity"] == (pytest.approx((~own & ~said).sum() / (~own).sum()) if (~own).any() else None)
        if 0 < own.sum() < len(own):
            assert row["roc_auc"] == sk.roc_auc_score(own, probabilities[:, i])
            assert row["average_precision"] == sk.average_precision_score(own, probabilities[:, i])
    if len(labels) > len(set(labels.tolist())) == classes > 2:
        expected = sk.roc_auc_score(labels, probabilities, multi_class="ovr", labels=range(classes))
        assert scores["macro_roc_auc"] == pytest.approx(expected)


@given(answers(), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_the_areas_of_images_drawn_anew_are_those_of_the_images_written_out(case, levels):
    labels, probabilities = case
    probabilities = np.round(probabilities, levels)  # with ties
    weights = np.random.default_rng(0).integers(0, 3, (len(labels), 3)).astype(np.float32)
    roc, precision = areas.of_draws(labels, probabilities, weights)
    for draw in range(3):
        rows = np.repeat(np.arange(len(labels)), weights[:, draw].astype(int))
        known = [i for i in range(probabilities.shape[1]) if 0 < (labels[rows] == i).sum() < len(rows)]
        if not known:
            assert np.isnan(roc[draw])
            continue
        sides = [(labels[rows] == i, probabilities[rows, i]) for i in known]
        assert roc[draw] == pytest.approx(np.mean([sk.roc_auc_score(*side) for side in sides]), abs=1e-6)
        expected = [among_others(labels == i, probabilities[:, i], weights[:, draw]) for i in known]
        assert precision[draw] == pytest.approx(np.mean(expected), abs=1e-6)


def among_others(own: np.ndarray, values: np.ndarray, weights: np.ndarray) -> float:
    """Average precision where each image is left out of the precision at its own score, by plain counting."""
    total = 0.0
    for image in np.flatnonzero(own):
        above = values >= values[image]
        if own.sum() > 1:
            above = above & (np.arange(len(own)) != image)
        found, answers = weights[above & own].sum(), weights[above].sum()
        total += weights[image] * (found / answers if answers else 1.0)
    return total / weights[own].sum()


@given(answers())
@settings(deadline=None, max_examples=20)
def test_leaving_images_out_of_the_precision_at_their_own_score_matters_to_few_images_only(case):
    labels, probabilities = case
    own = labels == 0
    if not 1 < own.sum() < len(own):
        return
    few = among_others(own, probabilities[:, 0], np.ones(len(own)))
    many = among_others(np.tile(own, 50), np.repeat(probabilities[None, :, 0], 50, 0).ravel(), np.ones(50 * len(own)))
    whole = sk.average_precision_score(own, probabilities[:, 0])
    assert few <= whole + 1e-9
    assert many == pytest.approx(whole, abs=0.02)


def test_shares_of_images_have_wilsons_interval():
    found = metrics.score(np.zeros(29, int), sure([0] + [1] * 28, 2), ["a", "b"])["intervals"]
    assert list(found) == [*metrics.SCORES, *metrics.LOSSES]
    assert found["accuracy"] == found["micro_f1"] == found["weighted_recall"] == list(metrics.wilson(1, 29))
    assert found["macro_roc_auc"] is None


@given(answers())
@settings(deadline=None, max_examples=30)
def test_every_score_lies_in_its_interval(case):
    labels, probabilities = case
    names = [str(i) for i in range(probabilities.shape[1])]
    scores = metrics.score(labels, probabilities, names, top_k=2, replicates=50)
    scores |= {f"top_{k}": share for k, share in scores["top_k"].items()}
    for key, ends in scores["intervals"].items():
        assert ends is None or ends[0] <= scores[key] <= ends[1]


def test_a_model_without_a_mistake_is_not_certain_to_make_none():
    labels = np.arange(40) % 2
    found = metrics.score(labels, sure(labels.tolist(), 2), ["a", "b"])["intervals"]
    assert found["macro_f1"] == found["macro_roc_auc"] == found["accuracy"] == list(metrics.wilson(40, 40))


@pytest.mark.parametrize(
    ("sizes", "without"),
    [
        ((1, 1, 1, 1), {*metrics.OF_CLASSES, *metrics.OF_PRECISION}),
        ((9, 9, 1), {*metrics.OF_CLASSES, *metrics.OF_PRECISION}),
        ((2, 2, 2), {*metrics.OF_PRECISION}),
        ((7, 7, 7), {*metrics.OF_PRECISION}),
        ((8, 8, 8), set()),
    ],
)
def test_no_interval_is_given_where_the_images_of_a_class_cannot_tell_it(sizes, without):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(len(sizes)), len(labels))
    scores = metrics.score(labels, probabilities, [str(i) for i in range(len(sizes))], replicates=50)
    assert {key for key, ends in scores["intervals"].items() if ends is None} == without
    assert all(scores[key] is not None for key in without)
    told = any(text.startswith("No interval for means over the classes") for text in scores["warnings"])
    assert told == (min(sizes) == 1)


def test_images_of_one_group_are_no_independent_evidence():
    labels = np.repeat(np.arange(2), 100)
    right = np.repeat([1, 1, 1, 0, 1, 1, 0, 1, 1, 1] * 2, 10)  # ten groups a class: all of a group alike
    probabilities = sure(np.where(right, labels, 1 - labels).tolist(), 2)
    groups = [f"plant {row // 10}" for row in range(200)]
    alone, grouped = (metrics.score(labels, probabilities, ["a", "b"], groups=g) for g in (None, groups))
    for key in ("accuracy", "macro_f1", "brier"):
        assert alone[key] == grouped[key]
        widths = [low_high[1] - low_high[0] for low_high in (alone["intervals"][key], grouped["intervals"][key])]
        assert widths[1] > 2 * widths[0]
    single = metrics.score(labels, probabilities, ["a", "b"], groups=["p"] * 100 + groups[100:])
    assert single["warnings"] == ["Only one group each, so means over the classes have no interval: 'a'."]
    assert single["intervals"]["macro_f1"] is None and single["intervals"]["accuracy"] is not None
    assert metrics.score(labels, probabilities, ["a", "b"], groups=[""] * 200) == alone


def test_a_class_with_few_images_is_named():
    labels = np.array([0] * 20 + [1] * 19)
    scores = metrics.score(labels, sure(labels.tolist(), 3), ["many", "few", "none"], replicates=2)
    assert "Few images of 'few' (19)" in scores["warnings"][0]
    assert "'none'" in scores["warnings"][1]


def test_the_most_confused_pairs_count_both_ways():
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = metrics.score(labels, sure([1, 1, 0, 0, 2, 2], 3), ["a", "b", "c"], replicates=2)["most_confused"]
    assert found == [
        {"classes": ["a", "b"], "count": 3, "counts": [2, 1]},
        {"classes": ["b", "c"], "count": 1, "counts": [1, 0]},
    ]


@given(answers())
@settings(deadline=None, max_examples=30)
def test_curves_begin_and_end_where_curves_do_and_have_their_areas(case):
    labels, probabilities = case
    curve = areas.curves(labels, probabilities, 0)
    if not 0 < (labels == 0).sum() < len(labels):
        assert not any(len(line) for line in curve.values())
        return
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    area = sk.auc(curve["fpr"], curve["tpr"])
    assert area == pytest.approx(sk.roc_auc_score(labels == 0, probabilities[:, 0]))


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


@pytest.mark.parametrize("grouped", [False, True])
def test_a_model_that_says_one_class_always_has_intervals_without_a_warning(grouped: bool):
    for n in range(4, 40):  # which ones round to a spread below 0 is chance
        groups = [f"group {row // 2}" for row in range(n)] if grouped else None
        scores = metrics.score(np.arange(n) % 2, np.tile([0.9, 0.1], (n, 1)), ["a", "b"], groups=groups)
        assert scores["matthews"] is scores["intervals"]["matthews"] is None
        low, high = scores["intervals"]["macro_f1"]
        assert 0 <= low <= scores["macro_f1"] <= high <= 1


def test_accuracy_that_one_class_alone_would_have_is_a_warning():
    labels = np.repeat([0, 1], [80, 20])
    always = np.tile([0.9, 0.1], (100, 1))
    found = metrics.score(labels, always, ["common", "rare"], replicates=50)["warnings"]
    assert [text for text in found if "for every image" in text] == [
        "Accuracy is not above 0.800, which predicting 'common' for every image gives: check the labels, add images, "
        "or try another --method."
    ]
    perfect = metrics.score(labels, np.eye(2)[labels], ["common", "rare"], replicates=50)["warnings"]
    assert not [text for text in perfect if "for every image" in text]
    balanced = np.eye(2)[labels]  # worse than always 'common' over images, but far above chance over classes
    balanced[:22] = balanced[:22, ::-1]
    found = metrics.score(labels, balanced, ["common", "rare"], replicates=50)
    assert found["accuracy"] == 0.78
    assert not [text for text in found["warnings"] if "for every image" in text]


def test_few_groups_are_counted_and_named_as_a_reason():
    labels = np.arange(40) % 2
    found = metrics.score(labels, np.eye(2)[labels], ["a", "b"], groups=["north", "south"] * 20, replicates=50)
    assert found["groups"] == 2
    assert any(text.startswith("Only 2 groups:") for text in found["warnings"])
    assert metrics.score(labels, np.eye(2)[labels], ["a", "b"], replicates=50)["groups"] == 0
