"""The probe equals scikit-learn's logistic regression on the same features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from imgclf.training import probe


def data(classes: int, count: int = 120, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = rng.normal(0, 1, (classes, width))
    return (centres[labels] * 1.5 + rng.normal(0, 1, (count, width)) * 3 + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_probe_gives_scikit_learns_probabilities(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(classes)
    monkeypatch.setattr(probe, "STRENGTHS", (0.1,))
    kernel, bias = probe.solve(features, labels, classes=classes, seed=0)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = LogisticRegression(C=0.1, max_iter=5000, tol=1e-6).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(probe.softmax(features @ kernel + bias), expected, atol=2e-3)


def test_noise_gets_a_strong_penalty_and_clear_classes_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    noise = rng.normal(size=(200, 50)).astype(np.float32)
    clear = noise.copy()
    clear[:, 0] += 8 * labels
    assert probe._choose_strength(noise[np.newaxis], labels, 0) == min(probe.STRENGTHS)
    assert probe._choose_strength(clear[np.newaxis], labels, 0) > min(probe.STRENGTHS)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_far_apart_give_no_infinite_loss(classes: int) -> None:
    labels = np.arange(60) % classes
    features = (1000.0 * np.eye(classes)[labels] + np.random.default_rng(0).normal(size=(60, classes))).astype("f")
    kernel, bias = probe.solve(features, labels, classes=classes, seed=0)
    assert ((features @ kernel + bias).argmax(axis=1) == labels).all()


def test_a_dead_feature_and_a_class_of_one_image_are_survived() -> None:
    features, labels = data(2, 21)
    features[:, 3] = 0.0
    labels = np.r_[np.zeros(20, int), 1]
    kernel, bias = probe.solve(features, labels, classes=2, seed=0)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()


def test_of_many_images_the_same_share_of_each_class_is_asked_for_the_strength() -> None:
    labels = np.repeat([0, 1, 2], [9_000, 990, 3])
    asked = probe._choosing(labels, seed=0)
    counts = np.bincount(labels[asked])
    assert counts[2] == 3
    assert abs(counts[0] / counts[1] - 9_000 / 990) < 0.1
    assert probe.CHOOSING_LEAST <= len(asked) <= probe.CHOOSING_LEAST + 5
    assert len(set(asked)) == len(asked)
    assert (probe._choosing(labels[:1500], seed=0) == np.arange(1500)).all()
