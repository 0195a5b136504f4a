"""Augmentation: known pixels in, known pixels out."""

import numpy as np
import pytest

from imgclf.training.augmentation import POLICIES, Augment, Policy


def pictures(count: int = 6, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_no_operation_returns_the_same_pixels() -> None:
    images = pictures()
    np.testing.assert_array_equal(Augment(Policy(), 16)(images, np.random.default_rng(0)), images)


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = pictures(400, 4)
    flipped = Augment(Policy(flip=True), 4)(images, np.random.default_rng(0))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_a_crop_of_a_ramp_stays_in_its_range_and_keeps_at_least_the_stated_area() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3))[None].repeat(50, axis=0)
    cropped = Augment(Policy(crop_area=0.25), 32)(ramp, np.random.default_rng(0)).astype(int)
    spans = cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0]
    assert spans.min() > 0.45 * 255  # the side of a quarter of the area is a half
    assert spans.min() < 0.6 * 255 < spans.max()


def test_crops_are_resized_by_different_filters() -> None:
    lines = np.tile(np.array([0, 255, 0, 0], np.uint8), (16, 4))[None, :, :, None].repeat(3, 3).repeat(60, 0)
    spread = Augment(Policy(crop_area=0.9999), 33)(lines, np.random.default_rng(0)).std(axis=(1, 2, 3))
    groups = np.unique(spread.round(), return_counts=True)[1]
    assert len(groups) >= 3 and groups.min() >= 1  # sharper filters keep more of the contrast


def test_contrast_and_brightness_leave_a_grey_picture_grey_and_bounded() -> None:
    grey = np.full((20, 8, 8, 3), 128, np.uint8)
    changed = Augment(Policy(brightness=0.1, contrast=0.2), 8)(grey, np.random.default_rng(0))
    assert (changed == changed[:, :1, :1, :1]).all()
    assert changed.min() >= 128 - 27
    assert changed.max() <= 128 + 27
    assert len(np.unique(changed)) > 5


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_gives_the_wanted_size_and_follows_its_seed(name: str) -> None:
    images = pictures()
    augment = Augment(POLICIES[name], 12)
    one, two, other = (augment(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (6, 12, 12, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert name == "none" or (one != other).any()
