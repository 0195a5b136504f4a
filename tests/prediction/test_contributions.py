"""What features weigh: sums that equal scikit-learn's own decision values and probabilities, and hand calculations."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from imgclf.prediction import contributions


def data(classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(20 * classes) % classes
    return (rng.normal(size=(20 * classes, 4)) * (1, 5, 9, 2) + labels[:, None]).astype(np.float32), labels


def scaled(estimator, classes):
    return make_pipeline(StandardScaler(), estimator).fit(*data(classes))


def both(decisions):
    """The decision values of two classes, from those of the second."""
    return np.stack([-decisions, decisions], axis=1)


def summed(estimator, vectors, classes):
    """Bases and weights in all, float (n, classes); scores must be these."""
    found = [[contributions.find(estimator, vector, place) for place in range(classes)] for vector in vectors]
    sums = np.array([[each.base + each.weights.sum() for each in row] for row in found])
    np.testing.assert_allclose([[each.score for each in row] for row in found], sums)
    return sums


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_sums_to_its_decision_value(classes):
    model, asked = scaled(LogisticRegression(), classes), data(classes, 1)[0][:5]
    expected = model.decision_function(asked)
    np.testing.assert_allclose(
        summed(model, asked, classes), both(expected) if classes == 2 else expected, rtol=1e-4, atol=1e-5
    )


def test_a_linear_svm_of_two_classes_sums_to_its_decision_value():
    model, asked = scaled(SVC(kernel="linear"), 2), data(2, 1)[0][:5]
    np.testing.assert_allclose(summed(model, asked, 2), both(model.decision_function(asked)), rtol=1e-4, atol=1e-5)


def test_a_linear_svm_of_three_classes_sums_to_the_mean_of_its_pairs():
    model, asked = scaled(SVC(kernel="linear", decision_function_shape="ovo"), 3), data(3, 1)[0][:5]
    ab, ac, bc = model.decision_function(asked).T
    expected = np.stack([ab + ac, bc - ab, -ac - bc], axis=1) / 2
    np.testing.assert_allclose(summed(model, asked, 3), expected, rtol=1e-4, atol=1e-5)
    found = contributions.find(scaled(SVC(kernel="linear", break_ties=True), 3), asked[0], 1)
    assert found.score == pytest.approx(expected[0, 1], rel=1e-4)
    assert found.measure == "mean decision value against the other classes"


@pytest.mark.parametrize("model", [DecisionTreeClassifier(max_depth=3), RandomForestClassifier(20, random_state=1)])
def test_trees_sum_to_their_probability(model):
    model, asked = model.fit(*data(3)), data(3, 1)[0][:5]
    np.testing.assert_allclose(summed(model, asked, 3), model.predict_proba(asked), atol=1e-12)


def test_one_split_gives_all_weight_to_its_feature():
    model = DecisionTreeClassifier().fit([[0, 5], [0, 6], [0, 7], [1, 6]], [0, 0, 0, 1])
    found = contributions.find(model, np.array([1, 6]), 1)
    assert (found.base, found.weights.tolist(), found.score) == (0.25, [0.75, 0], 1)


def test_naive_bayes_sums_to_the_log_odds_against_the_rival():
    model, asked = GaussianNB().fit(*data(3)), data(3, 1)[0][:5]
    logs = model.predict_log_proba(asked)
    for row, vector in enumerate(asked):
        for place in range(3):
            found = contributions.find(model, vector, place)
            others = [other for other in range(3) if other != place]
            assert found.rival == max(others, key=lambda other: logs[row, other])
            assert found.score == pytest.approx(logs[row, place] - logs[row, found.rival], rel=1e-4, abs=1e-6)
            assert found.base + found.weights.sum() == pytest.approx(found.score)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_nonlinear_svm_weighs_a_feature_by_replacing_it_with_its_mean(classes):
    model, [vector, *_] = scaled(SVC(decision_function_shape="ovo"), classes), data(classes, 1)[0]
    found = contributions.find(model, vector, 1)
    replaced = vector.copy()
    replaced[2] = model[0].mean_[2]
    decisions = model.decision_function(np.stack([vector, replaced]))
    score = decisions if classes == 2 else (decisions[:, 2] - decisions[:, 0]) / 2
    assert found.base is None
    assert found.score == pytest.approx(score[0], rel=1e-5)
    assert found.weights[2] == pytest.approx(score[0] - score[1], rel=1e-4)


def test_a_linear_kernel_weighs_the_same_either_way():
    """Replacing a feature by its mean removes exactly its part of a sum."""
    vector = data(3, 1)[0][0]
    linear = contributions.find(scaled(SVC(kernel="linear"), 3), vector, 2)
    poly = contributions.find(scaled(SVC(kernel="poly", degree=1, gamma=1.0), 3), vector, 2)
    np.testing.assert_allclose(poly.weights, linear.weights, rtol=1e-3, atol=1e-4)


def test_one_vs_rest_explains_the_classifier_of_the_class():
    known, labels = data(3)
    several = OneVsRestClassifier(GaussianNB()).fit(known, labels)
    alone = GaussianNB().fit(known, labels == 2)
    found, expected = (contributions.find(model, known[0], place) for model, place in ((several, 2), (alone, 1)))
    np.testing.assert_allclose(found.weights, expected.weights)
    assert found.score == pytest.approx(expected.score)


def test_neighbors_are_told_from_models_that_weigh():
    assert contributions.is_neighbors(scaled(KNeighborsClassifier(1), 2))
    assert not contributions.is_neighbors(scaled(SVC(), 2))


def test_the_largest_weights_come_first_and_zeros_never():
    assert contributions.ranked(np.array([0.1, -3, 0, 2]), 4) == [1, 3, 0]
    assert contributions.ranked(np.array([0.1, -3, 0, 2]), 2) == [1, 3]
