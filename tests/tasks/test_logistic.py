"""The probe equals scikit-learn's logistic regression on the same features."""

import re

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from imgclf.tasks import logistic as probe


def data(classes: int, count: int = 120, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centers = rng.normal(0, 1, (classes, width))
    return (centers[labels] * 1.5 + rng.normal(0, 1, (count, width)) * 3 + 5).astype(np.float32), labels


def correlated(classes: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As features of images are: a few directions hold most of the variance, and no column is centered."""
    features, labels = data(classes, count, width)
    rng = np.random.default_rng(1)
    decay = np.arange(1, width + 1, dtype=np.float32) ** -1.0
    return ((features * decay) @ rng.normal(size=(width, width)) + 3).astype(np.float32), labels


def reference(strength: float, balanced: bool = False) -> LogisticRegression:
    """Newton's method, which is exact and shares no code with a descent."""
    weighting = "balanced" if balanced else None
    return LogisticRegression(C=strength, class_weight=weighting, solver="newton-cholesky", tol=1e-8)


def standardized(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(axis=0)) / features.std(axis=0)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_probe_gives_scikit_learns_probabilities(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(classes)
    monkeypatch.setattr(probe, "STRENGTHS", (0.1,))
    kernel, bias = probe.fit(features, labels, classes=classes, seed=0)
    scaled = standardized(features)
    expected = LogisticRegression(C=0.1, max_iter=5000, tol=1e-6).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(softmax(features @ kernel + bias, axis=1), expected, atol=2e-3)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize(
    ("classes", "count", "width"), [(2, 150, 12), (5, 300, 40), (3, 60, 90), (7, 80, 80), (4, 41, 120)]
)
def test_the_optimum_is_scikit_learns(
    classes: int, count: int, width: int, strength: float, balanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = correlated(classes, count, width)
    labels[: count // 3] = 0  # one class has more images than the others
    monkeypatch.setattr(probe, "STRENGTHS", (strength,))
    kernel, bias = probe.fit(features, labels, classes=classes, seed=0, balanced=balanced)
    scaled = standardized(features.astype(np.float64))
    model = reference(strength, balanced).fit(scaled, labels)
    expected = log_loss(labels, model.predict_proba(scaled))
    assert log_loss(labels, softmax(features @ kernel + bias, axis=1)) == pytest.approx(expected, abs=1e-4)


def test_views_of_an_image_share_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = correlated(4, 160, 20)
    views = np.stack([features, features + np.random.default_rng(2).normal(0, 1, features.shape).astype("f")])
    monkeypatch.setattr(probe, "STRENGTHS", (0.05,))
    kernel, bias = probe.fit(views, labels, classes=4, seed=0)
    rows = views.reshape(-1, 20).astype(np.float64)
    scaled, both = standardized(rows), np.tile(labels, 2)
    expected = reference(0.05).fit(scaled, both, sample_weight=np.full(320, 0.5)).predict_proba(scaled)
    np.testing.assert_allclose(softmax(rows @ kernel + bias, axis=1), expected, atol=2e-3)
    same, _ = probe.fit(np.stack([features, features]), labels, classes=4, seed=0)
    np.testing.assert_allclose(same, probe.fit(features, labels, classes=4, seed=0)[0], atol=1e-3)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("classes", "count", "width"), [(2, 150, 12), (5, 300, 30), (3, 90, 60)])
def test_the_strength_is_that_of_trying_all(
    classes: int, count: int, width: int, balanced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    features, labels = correlated(classes, count, width)
    scaled = standardized(features).astype(np.float64)
    held_out = probe.folds(labels, seed=0)
    assert len(held_out) == probe.FOLDS
    losses = []
    for strength in probe.STRENGTHS:
        model = reference(strength, balanced)
        answers = np.zeros((count, classes))
        for held in held_out:
            answers[held] = model.fit(scaled[~held], labels[~held]).predict_proba(scaled[held])
        losses.append(log_loss(labels, answers))
    with caplog.at_level("INFO", "imgclf"):
        probe.fit(features, labels, classes=classes, seed=0, balanced=balanced)
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1  # ordinary data does not reach the ends of the range
    assert f"C = {probe.STRENGTHS[best]:g}, " in caplog.text
    assert float(caplog.text.split()[-1].rstrip(".")) == pytest.approx(losses[best], rel=2e-2)


def test_folds_are_stratified_and_part_the_images() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 23, 7, 1])
    held_out = probe.folds(labels, seed=0)
    counts = np.stack([np.bincount(labels[held], minlength=4) for held in held_out])
    assert len(held_out) == 5
    assert (counts.sum(axis=0) == [50, 23, 7, 0]).all()  # the only image of a class is never held out
    assert np.ptp(counts, axis=0).max() <= 1
    assert (np.sum(held_out, axis=0)[:-1] == 1).all()
    assert len(probe.folds(np.repeat([0, 1], [9, 3]), seed=0)) == 3


def test_noise_gets_a_strong_penalty_and_clear_classes_a_weak_one(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    noise = rng.normal(size=(200, 50)).astype(np.float32)
    clear = noise.copy()
    clear[:, 0] += 8 * labels
    with caplog.at_level("INFO", "imgclf"):
        for features in (noise, clear):
            probe.fit(features, labels, classes=2, seed=0)
    chosen = [float(value) for value in re.findall(r"C = (\S+), ", caplog.text)]
    assert len(chosen) == 2
    assert chosen[0] == pytest.approx(min(probe.STRENGTHS))
    assert chosen[0] < chosen[1] < max(probe.STRENGTHS)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_far_apart_give_no_infinite_loss(classes: int) -> None:
    labels = np.arange(60) % classes
    features = (1000.0 * np.eye(classes)[labels] + np.random.default_rng(0).normal(size=(60, classes))).astype("f")
    kernel, bias = probe.fit(features, labels, classes=classes, seed=0)
    assert ((features @ kernel + bias).argmax(axis=1) == labels).all()


def test_a_dead_feature_and_a_class_of_one_image_are_survived() -> None:
    features, labels = data(2, 21)
    features[:, 3] = 0.0
    labels = np.r_[np.zeros(20, int), 1]
    kernel, bias = probe.fit(features, labels, classes=2, seed=0)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()


def test_constant_features_give_the_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    kernel, bias = probe.fit(np.full((100, 8), 3.7, np.float32), labels, classes=3, seed=0)
    assert not kernel.any()
    np.testing.assert_allclose(softmax(bias[np.newaxis]), [[0.6, 0.3, 0.1]], atol=1e-3)


def test_one_image_of_each_class_gets_the_default_strength(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "imgclf"):
        kernel, bias = probe.fit(np.eye(3, 5, dtype=np.float32), np.arange(3), classes=3, seed=0)
    assert "not cross-validated" in caplog.text
    assert ((np.eye(3, 5) @ kernel + bias).argmax(axis=1) == np.arange(3)).all()


def test_of_many_images_the_same_share_of_each_class_is_used_for_the_strength() -> None:
    labels = np.repeat([0, 1, 2], [9_000, 990, 3])
    used = probe.subset(labels, seed=0)
    counts = np.bincount(labels[used])
    assert counts[2] == 3
    assert abs(counts[0] / counts[1] - 9_000 / 990) < 0.1
    assert probe.CHOOSING_LEAST <= len(used) <= probe.CHOOSING_LEAST + 5
    assert len(set(used)) == len(used)
    assert (probe.subset(labels[:1500], seed=0) == np.arange(1500)).all()
