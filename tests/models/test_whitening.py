"""Features half-way to as telling as one another."""

import numpy as np
import pytest

from imgclf.models import whitening
from imgclf.models.whitening import Whitening


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Eight features, of which three directions hold nearly everything."""
    monkeypatch.setattr(whitening, "RANK", 3)
    rng = np.random.default_rng(0)
    common = rng.normal(size=(500, 3)) * (5, 3, 2) @ rng.normal(size=(3, 8))
    return (common + rng.normal(size=(500, 8)) + 10).astype(np.float32)


def test_long_directions_become_shorter_by_the_fourth_root_and_all_others_stay_alike(features: np.ndarray) -> None:
    found = Whitening.of(features)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    variances, directions = np.linalg.eigh(np.corrcoef(features.T))
    along = found(features - features.mean(axis=0)) @ directions  # each direction stays one
    lengths = along.std(axis=0) / (scaled @ directions).std(axis=0)
    ridge = whitening.RIDGE * variances.mean()
    expected = ((variances[-3:] + ridge) / (variances[:5].mean() + ridge)) ** -0.25
    np.testing.assert_allclose(lengths, [*np.ones(5), *expected], rtol=1e-3)
    assert lengths[-1] < lengths[-2] < lengths[-3] < 1


def test_a_folded_kernel_answers_to_the_features_themselves(features: np.ndarray) -> None:
    found = Whitening.of(features)
    kernel = np.random.default_rng(1).normal(size=(8, 4))
    np.testing.assert_allclose(features @ found.fold(kernel), found(features) @ kernel, rtol=1e-4, atol=1e-4)
    views = np.stack([features, features + 1])
    np.testing.assert_allclose(found(views)[1], found(features + 1), rtol=1e-5, atol=1e-5)


def test_a_feature_that_never_changes_does_no_harm(features: np.ndarray) -> None:
    features[:, 2] = 0.0
    assert np.isfinite(Whitening.of(features)(features)).all()


def test_it_is_written_in_sixteen_bits_and_read_again(features: np.ndarray) -> None:
    found = Whitening.of(features)
    again = Whitening.from_bytes(found.to_bytes())
    np.testing.assert_allclose(again(features), found(features), rtol=2e-3, atol=5e-3)
