"""Augmentation: known pixels in, known pixels out."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from imgclf import policies
from imgclf.policies import OPERATIONS, POLICIES, Policy
from imgclf.training import augmentation, augmentation_layers
from imgclf.training.augmentation import Augmenter, Crop

import keras  # isort: skip  (imgclf chooses its backend first)

GENTLE = {name: {"pick": 1}.get(name, min(operation.most, 0.3)) for name, operation in OPERATIONS.items()}


def pictures(count: int = 6, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def augmented(policy: str, images: np.ndarray, seed: int = 0, step: int = 0) -> np.ndarray:
    changed, _ = Augmenter(policies.find(policy), seed=seed)(images, np.eye(len(images), dtype=np.float32), step)
    return np.asarray(changed)


def fixed(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Draw the same for every image instead of at random."""

    def draw(self: object, name: str, images: np.ndarray, on: object, shape: tuple[int, ...] = ()) -> np.ndarray:
        return np.full((len(images), *shape), value if name in self.strengths else 0, np.float32)  # type: ignore[attr-defined]

    monkeypatch.setattr(augmentation_layers.Own, "draw", draw)


# The crop, on the host.


def crop(policy: str, size_px: int, images: np.ndarray, seed: int = 0) -> np.ndarray:
    return Crop(policies.find(policy), size_px)(images, np.random.default_rng(seed))


def test_no_crop_returns_the_same_pixels() -> None:
    images = pictures()
    np.testing.assert_array_equal(crop("none", 16, images), images)


def test_a_crop_of_a_ramp_stays_in_its_range_and_keeps_at_least_the_stated_area() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3))[None].repeat(50, axis=0)
    cropped = crop("crop=0.75", 32, ramp).astype(int)
    spans = cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0]
    assert spans.min() > 0.45 * 255  # the side of a quarter of the area is a half
    assert spans.min() < 0.6 * 255 < spans.max()


def test_crops_are_resized_by_different_filters() -> None:
    lines = np.tile(np.array([0, 255, 0, 0], np.uint8), (16, 4))[None, :, :, None].repeat(3, 3).repeat(60, 0)
    spread = crop("crop=0.0001", 33, lines).std(axis=(1, 2, 3))
    groups = np.unique(spread.round(), return_counts=True)[1]
    assert len(groups) >= 3 and groups.min() >= 1  # sharper filters keep more of the contrast


@pytest.mark.parametrize("name", POLICIES)
def test_the_crop_of_every_policy_gives_the_wanted_size_and_follows_its_seed(name: str) -> None:
    one, two, other = (crop(name, 12, pictures(), seed) for seed in (1, 1, 2))
    assert one.shape == (6, 12, 12, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert name == "none" or (one != other).any()


# All operations, on the device.


@pytest.mark.parametrize("text", [*(f"{name}={GENTLE[name]}" for name in OPERATIONS), *POLICIES])
def test_an_operation_keeps_shape_and_range_and_follows_seed_and_step(text: str) -> None:
    images = pictures()
    one, two = (augmented(text, images, seed=1, step=5) for _ in range(2))
    assert one.shape == images.shape
    assert one.dtype == np.float32
    assert one.min() >= -1e-3 and one.max() <= 255.001
    np.testing.assert_array_equal(one, two)
    if set(dict(policies.find(text).operations)) - {"crop", "stretch"}:
        assert (one != augmented(text, images, seed=1, step=6)).any()
        assert (one != augmented(text, images, seed=2, step=5)).any()
    else:
        np.testing.assert_array_equal(one, images)


@pytest.mark.parametrize(("operation", "axis"), [("flip", 2), ("flip-vertical", 1)])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_flips_mirror_the_stated_share_of_the_images(operation: str, axis: int, share: float) -> None:
    images = pictures(400, 4)
    flipped = augmented(f"{operation}={share}", images)
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == np.flip(images, axis)).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert abs(mirrored.mean() - share) < 0.09  # four deviations of 400 draws


def test_a_quarter_turn_is_that_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, 90)
    images = pictures()
    np.testing.assert_allclose(augmented("rotate=90", images), np.rot90(images, axes=(1, 2)), atol=0.02)


def test_a_shift_moves_whole_pixels_and_mirrors_what_it_uncovers(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, 0.125)
    images = pictures()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(augmented("shift=0.125", images), padded[:, 4:, 4:], atol=0.02)


def test_zoom_shrinks_about_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, 1.0)  # every second pixel of twice the view
    ramp = np.broadcast_to(np.arange(17, dtype=np.uint8)[:, None], (1, 17, 17, 3))
    np.testing.assert_allclose(augmented("zoom=1", ramp)[0, 8, 4:13, 0], np.arange(0, 17, 2), atol=0.01)


@pytest.mark.parametrize("text", ["rotate=40", "zoom=0.3", "shear=20", "rotate=20,zoom=0.2,shear=10"])
def test_what_stands_in_the_centre_stays_there(text: str) -> None:
    image = np.zeros((40, 33, 33, 3), np.uint8)
    image[:, 13:20, 13:20] = 255
    moved = augmented(text, image)[..., 0]
    weights = moved / moved.sum(axis=(1, 2), keepdims=True)
    assert np.abs((weights.sum(axis=1) * np.arange(33)).sum(axis=1) - 16).max() < 0.1
    assert np.abs((weights.sum(axis=2) * np.arange(33)).sum(axis=1) - 16).max() < 0.1
    assert moved.std(axis=0).max() > 10  # it does move around it


def test_perspective_with_equal_corners_is_a_central_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, 0.25)
    ramp = np.broadcast_to(np.linspace(0, 240, 33).astype(np.float32)[:, None], (2, 33, 33, 3))
    seen = augmented("perspective=0.25", ramp)
    np.testing.assert_allclose(seen[0, 5, :, 0], np.linspace(60, 180, 33), atol=0.1)


def test_bilinear_samples_are_those_of_scipy() -> None:
    images = pictures(3, 9).astype(np.float32)
    x, y = np.random.default_rng(1).uniform(-8, 16, (2, 3, 9, 9)).astype(np.float32)
    sampled = np.asarray(augmentation_layers.sampled(keras.ops.convert_to_tensor(images), x, y))
    for i in range(3):
        for channel in range(3):
            wanted = ndimage.map_coordinates(images[i, :, :, channel], [y[i], x[i]], order=1, mode="reflect")
            np.testing.assert_allclose(sampled[i, :, :, channel], wanted, atol=1e-2)


def test_elastic_waves_move_pixels_no_farther_than_stated_and_smoothly() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (20, 64, 64, 3))
    moved = augmented("elastic=0.05", ramp)[:, 8:-8, 8:-8, 0] - ramp[:, 8:-8, 8:-8, 0]
    assert 1 < np.abs(moved).max() < 0.05 * 64 + 0.01
    assert np.abs(np.diff(moved, axis=2)).max() < 1


def test_a_blur_is_that_of_scipy_and_keeps_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, 0.05)  # of 32 px: a deviation of 1.6 px
    images = pictures(2, 32)
    wanted = ndimage.gaussian_filter(images.astype(np.float64), (0, 1.6, 1.6, 0), truncate=8)
    np.testing.assert_allclose(augmented("blur=0.05", images)[:, 12:20, 12:20], wanted[:, 12:20, 12:20], atol=0.05)
    even = np.full((2, 32, 32, 3), 200, np.uint8)
    np.testing.assert_allclose(augmented("blur=0.05", even), even, atol=1e-3)


def test_sharpening_keeps_an_even_picture_even_up_to_its_border() -> None:
    even = np.full((4, 16, 16, 3), 100, np.uint8)
    np.testing.assert_allclose(augmented("sharpen=1", even), even, atol=1e-3)
    assert augmented("sharpen=1", pictures()).std() > 1.05 * pictures().std()


def test_brightness_is_one_shift_for_each_image() -> None:
    grey = np.full((50, 8, 8, 3), 128, np.uint8)
    shifts = augmented("brightness=0.1", grey) - 128
    assert (shifts == shifts[:, :1, :1, :1]).all()
    assert np.abs(shifts).max() <= 25.5
    assert shifts.min() < -15 and shifts.max() > 15
    assert len(np.unique(shifts)) > 40


def test_contrast_goes_down_as_well_as_up_about_the_mean() -> None:
    halves = np.full((50, 8, 8, 3), 100, np.uint8)
    halves[:, 4:] = 120
    changed = augmented("contrast=0.5", halves)
    spans = changed[:, -1, 0, 0] - changed[:, 0, 0, 0]
    assert 10 <= spans.min() < 15 and 25 < spans.max() <= 30
    np.testing.assert_allclose(changed.mean(axis=(1, 2, 3)), 110, atol=0.01)


@pytest.mark.parametrize("text", ["saturation=1", "hue=90"])
def test_colour_operations_leave_grey_alone_and_keep_the_brightest_channel(text: str) -> None:
    grey = np.full((4, 4, 4, 3), 90, np.uint8)
    np.testing.assert_allclose(augmented(text, grey), grey, atol=0.01)
    changed = augmented(text, np.broadcast_to(np.array([200, 100, 50], np.uint8), (30, 4, 4, 3)))
    np.testing.assert_allclose(changed.max(axis=3), 200, atol=0.05)
    assert len(np.unique(changed[:, 0, 0].round(2), axis=0)) > 25


def test_grey_takes_the_colour_of_the_stated_share() -> None:
    coloured = np.broadcast_to(np.array([200, 100, 50], np.uint8), (400, 2, 2, 3))
    without = (np.ptp(augmented("gray=0.3", coloured), axis=3) < 0.01).all(axis=(1, 2))
    assert abs(without.mean() - 0.3) < 0.09


def test_erasing_hides_a_box_of_at_most_the_stated_area_in_half_of_the_images() -> None:
    hidden = augmented("erase=0.2", np.full((400, 32, 32, 3), 250, np.uint8))[..., 0] == 127
    shares = hidden.mean(axis=(1, 2))
    assert shares.max() <= 0.2 + 2 / 32
    assert abs((shares > 0).mean() - 0.5) < 0.1
    box = hidden[np.argmax(shares)]
    assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()  # it is one


# Which images take what.


def test_each_image_takes_as_many_operations_as_picked() -> None:
    coloured = np.broadcast_to(np.array([200, 100, 50], np.uint8), (300, 4, 4, 3))
    changed = augmented("gray=1,brightness=0.2,pick=1", coloured)[:, 0, 0]
    grey = np.ptp(changed, axis=1) < 0.01
    lighter = np.abs(changed - (200, 100, 50)).max(axis=1) > 0.01
    assert ((changed[grey] - changed[grey][0]) == 0).all()  # none of the grey ones is lighter, too
    assert (grey | lighter).all()
    assert abs(grey.mean() - 0.5) < 0.12


def test_framing_is_not_picked_from() -> None:
    images = pictures(200, 4)
    mirrored = augmented("flip=0.5,hue=1,gray=1,pick=1", images)
    left, right = (np.abs(mirrored[..., :2, 0].mean(axis=(1, 2)) - view) for view in ([0], [0]))
    assert left.shape == right.shape
    grey = images @ np.array([0.2989, 0.587, 0.114], np.float32)
    taken = np.ptp(mirrored, axis=3).max(axis=(1, 2)) < 0.01
    turned = np.isclose(mirrored[..., 0], grey[:, :, ::-1], atol=0.1).all(axis=(1, 2))
    assert 0.3 < turned[taken].mean() < 0.7


def test_chains_are_mixed_with_the_image_itself() -> None:
    """One operation, so every chain is the grey image: the result lies between the two, anywhere."""
    coloured = np.broadcast_to(np.array([200, 100, 50], np.float32), (200, 2, 2, 3))
    changed = augmented("gray=1,pick=1,chains=3", coloured)[:, 0, 0]
    grey = (200 * 0.2989 + 100 * 0.587 + 50 * 0.114) * np.ones(3)
    kept = (changed[:, 0] - grey[0]) / (200 - grey[0])
    np.testing.assert_allclose(changed, kept[:, None] * (200, 100, 50) + (1 - kept[:, None]) * grey, atol=0.1)
    assert kept.min() >= -0.001 and kept.max() <= 1.001
    assert np.histogram(kept, 4, (0, 1))[0].min() > 25


# Mixing, with labels.


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_labels_are_mixed_as_the_images_are(alphas: dict[str, float]) -> None:
    """Image i has the one value 2 i, so an image's mean is that of the values by their labels."""
    values = 2 * np.arange(100)
    images = np.broadcast_to(values[:, None, None, None], (100, 16, 16, 3)).astype(np.uint8)
    mixed, targets = Augmenter(Policy(), seed=3, **alphas)(images, np.eye(100, dtype=np.float32), 0)
    mixed, targets = np.asarray(mixed), np.asarray(targets)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    tolerance = 0.1 if "cutmix" not in alphas else 2 * 100 * 0.14  # a box ends between pixels
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets @ values, atol=tolerance)
    others = (targets > 1e-3).sum(axis=1)
    assert set(others) == {1, 2}
    blended = np.array([len(np.unique(image)) == 1 and image[0, 0, 0] % 2 > 0.01 for image in mixed])
    pasted = np.array([len(np.unique(image)) == 2 for image in mixed])
    assert (blended.sum() > 20) == ("mixup" in alphas)
    assert (pasted.sum() > 20) == ("cutmix" in alphas)


def test_without_mixing_labels_stay() -> None:
    targets = np.eye(6, dtype=np.float32)
    _, after = Augmenter(POLICIES["heavy"], seed=0)(pictures(), targets, 0)
    np.testing.assert_array_equal(np.asarray(after), targets)


# Inside the compiled step.


def small_model(side: int | None = 16) -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((side, side, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(pixels)))
    return keras.Model(pixels, keras.layers.Dense(6)(x))


def test_a_training_model_predicts_without_augmentation_and_has_no_weights_of_its_own() -> None:
    model = small_model()
    trained = augmentation.training_model(model, Augmenter(POLICIES["rand-augment"], seed=0, mixup=0.2))
    assert [v.path for v in trained.variables] == [v.path for v in model.variables]
    np.testing.assert_array_equal(trained.predict(pictures(), verbose=0), model.predict(pictures(), verbose=0))
    assert augmentation.training_model(model, Augmenter(Policy(), seed=0)) is model


def test_the_compiled_step_sees_what_the_augmenter_makes_of_its_number() -> None:
    """Steps of learning rate 0 report the loss of the augmented batch, which is computed here by hand, uncompiled."""
    images, targets = pictures(), np.eye(6, dtype=np.float32)
    model = small_model()
    augmenter = Augmenter(policies.find("rotate=90,flip=0.5,brightness=0.5"), seed=4, cutmix=1.0)
    trained = augmentation.training_model(model, augmenter)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    seen = [trained.fit(images, targets, batch_size=6, shuffle=False, verbose=0).history["loss"][0] for _ in range(3)]
    for step, value in enumerate(seen):
        changed, mixed = augmenter(images, targets, step)
        assert value == pytest.approx(float(loss(mixed, model(changed))), rel=1e-4)
    assert len({round(value, 4) for value in seen}) == 3


@pytest.mark.slow
def test_what_is_said_to_compile_under_xla_does() -> None:
    drawable = {name: value for name, value in GENTLE.items() if name not in augmentation_layers.Affine.names}
    policy = Policy.from_dict({name: value for name, value in drawable.items() if name != "perspective"} | {"pick": 3})
    augmenter = Augmenter(policy, seed=0)
    assert augmenter.supports_jit
    trained = augmentation.training_model(small_model(), augmenter)
    trained.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=True)
    assert np.isfinite(trained.fit(pictures(), np.eye(6, dtype=np.float32), verbose=0).history["loss"][0])


JAX = """
import numpy as np
from dataclasses import replace
from imgclf import policies
from imgclf.settings import TrainConfig
from imgclf.training import augmentation, loop, recipe
from imgclf.training.images import Part
from imgclf.models import classifier
import keras
from keras import layers
assert keras.backend.backend() == "jax"

def train():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Conv2D(8, 3, 2)(layers.Rescaling(1 / 255)(pixels))
    model = classifier.build(keras.Model(pixels, x), 2)
    part = Part(np.random.default_rng(0).integers(0, 256, (16, 24, 24, 3), dtype=np.uint8), np.arange(16) % 2)
    settings = TrainConfig(backbone="small-cnn", image_size=24, image_sizes="16,24", epochs=2, batch_size=8, lr=0.01,
                           augment="none", seed=3, mixup=0.5, cutmix=0.5)
    plan = replace(recipe.resolve(settings)[0], policy=policy)
    rows = loop.fit(model, part, None, plan, loop.Options("scratch"))
    return [row["loss"] for row in rows]

strengths = {name: min(0.2, operation.most) for name, operation in policies.OPERATIONS.items()}
policy = policies.Policy.from_dict(strengths | {"pick": 4})
one, two = train(), train()
assert one == two, (one, two)
assert np.isfinite(one).all()
print("trained")
"""


@pytest.mark.slow
@pytest.mark.jax
def test_jax_trains_on_every_operation_and_draws_the_same_twice() -> None:
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", JAX], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout.endswith("trained\n"), done.stderr[-3000:]
