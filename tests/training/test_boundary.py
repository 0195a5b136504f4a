"""Cutting a network in two: where it can be done, and that training the upper part alone is the same training."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgclf
from imgclf import policies
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.errors import UsageError
from imgclf.models import classifier, embedded
from imgclf.settings import TrainConfig
from imgclf.training import boundary, finetune, fitting

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip

SIZE_PX = 16

PLAN = fitting.Plan(
    sizes=(SIZE_PX,),
    epochs=2,
    batch_size=4,
    lr=1e-3,
    optimizer="sgd",
    warmup_epochs=0,
    weight_decay=0.0,
    label_smoothing=0.0,
    ema=0.0,
    policy=policies.Policy(),
    seed=0,
)


def block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def residual(*, two_scales: bool = False) -> keras.Model:
    """A stem and two residual blocks, always from the same start."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    x = layers.Conv2D(8, 3, 2, padding="same", name="stem")(x)
    return classifier.build(keras.Model(pixels, block(block(x, "one"), "two")), 2, two_scales=two_scales)


def ladder() -> keras.Model:
    """Two branches that feed one another throughout: nothing between stem and end holds all that passes."""
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    a = b = layers.Conv2D(4, 3, 2, padding="same", name="stem")(pixels)
    for step in range(4):
        a, b = (
            layers.Add()([layers.Conv2D(4, 3, padding="same", name=f"a_{step}")(a), b]),
            layers.Conv2D(4, 3, padding="same", name=f"b_{step}")(a),
        )
    return classifier.build(keras.Model(pixels, layers.Add(name="end")([a, b])), 2)


@pytest.fixture
def data(image_folder: Callable[..., Path]) -> tuple[Dataset, loading.Pixels]:
    return loading.decode(imgclf.read(image_folder(count=8)), SIZE_PX)


def config(tmp_path: Path, **options: object) -> TrainConfig:
    return TrainConfig(image_size=SIZE_PX, cache=str(tmp_path / "cache"), batch_size=4, augment="light", **options)


def test_cuts_are_where_everything_passes_through_one_tensor():
    names = [cut.layer for cut in boundary.cuts(residual())]
    assert names == ["rescale", "stem", "one_add", "one_out", "two_add", "two_out"]
    assert [cut.layer for cut in boundary.cuts(ladder())] == ["stem", "end"]


def test_at_two_scales_a_cut_goes_through_both_and_its_share_is_that_of_both():
    one, two = boundary.cuts(residual()), boundary.cuts(residual(two_scales=True))
    assert [cut.layer for cut in two] == [cut.layer for cut in one]
    shares = {cut.layer: cut.share for cut in two}
    stem, block_ = (64 + 25) * 27 * 8, (64 + 25) * 9 * 8 * 8  # 16 px and 10 px: maps of 8 x 8 and 5 x 5
    assert shares["one_out"] == pytest.approx(block_ / (stem + 2 * block_))


def test_a_layer_that_is_passed_twice_in_a_row_is_no_cut():
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    again = layers.Conv2D(3, 3, padding="same", name="again")
    end = layers.Conv2D(4, 3, padding="same", name="end")(again(again(pixels)))
    assert [cut.layer for cut in boundary.cuts(classifier.build(keras.Model(pixels, end), 2))] == ["end"]


def test_the_share_above_a_cut_is_counted_in_multiply_adds():
    shares = {cut.layer: cut.share for cut in boundary.cuts(residual())}
    stem, one = 27 * 8, 9 * 8 * 8  # weights; all maps are 8 x 8
    assert shares["stem"] == pytest.approx(2 * one / (stem + 2 * one))
    assert shares["one_out"] == pytest.approx(one / (stem + 2 * one))
    assert shares["two_out"] == 0
    assert boundary.Cut("", 0.25).ideal_gain == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("request_", "layer"),
    [("0.4", "one_out"), ("0.9", "stem"), ("two", "one_out"), ("two_conv", "one_out"), ("two_norm", "two_out")],
)
def test_a_request_snaps_to_the_nearest_cut_and_says_which(request_, layer, caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    cut = finetune.unfreeze(residual(), request_)
    assert cut and cut.layer == layer
    assert f"asked for {request_}; everything above {layer} moves" in caplog.text


def test_the_embedded_backbone_is_cut_below_its_last_stage():
    cut = boundary.nearest(classifier.build(embedded.build(96), 2), 1 / 3)
    assert cut and cut.layer == "stage_2_b_out"
    assert 0.2 < cut.share < 0.3


def test_where_no_cut_is_near_the_first_layers_stand_still(caplog):
    caplog.set_level(logging.INFO, logger="imgclf")
    model = ladder()
    assert finetune.unfreeze(model, "0.5") is None
    assert "no boundary" in caplog.text
    moving = {layer.name for layer in model.layers if layer.trainable and layer.weights}
    assert {"b_3", "a_3", "logits"} <= moving and not moving & {"stem", "a_0", "b_0"}


def test_a_layer_that_does_not_exist_is_an_error_that_lists_the_cuts():
    with pytest.raises(UsageError, match=r"no layer 'three'.*stem, one_add, one_out"):
        finetune.unfreeze(residual(), "three")


def test_blocks_go_from_the_top_down():
    model = residual()
    groups = boundary.blocks(model, boundary.Cut("stem", boundary.cuts(model)[1].share))
    assert [[name for name in group if "conv" in name] for group in groups if any("conv" in n for n in group)] == [
        ["two_conv"],
        ["one_conv"],
    ]


def gradients(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    import tensorflow as tf

    logits = classifier.logits(model)
    targets = np.eye(2, dtype=np.float32)[np.arange(len(x)) % 2]
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(
            keras.losses.categorical_crossentropy(targets, logits(x, training=True), from_logits=True)
        )
    found = tape.gradient(loss, logits.trainable_weights)
    return {v.path: g.numpy() for v, g in zip(logits.trainable_weights, found, strict=True)}


@pytest.mark.parametrize("two_scales", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-2)])
def test_gradients_from_kept_activations_are_those_of_the_full_path(data, tmp_path, dtype, tolerance, two_scales):
    model = residual(two_scales=two_scales)
    cut = finetune.unfreeze(model, "two")
    kept = boundary.cached(model, cut, *data, config(tmp_path), dtype=dtype)
    full = gradients(model, data[1][:].astype(np.float32))
    short = gradients(boundary.upper(model, cut), kept[:].astype(np.float32))
    assert set(short) == set(full) == {"two_conv/kernel", "logits/kernel", "logits/bias"}
    largest = max(np.abs(g).max() for g in full.values())
    difference = max(np.abs(full[name] - short[name]).max() for name in full)
    assert difference <= tolerance * largest
    spoiled = kept[:].astype(np.float32)
    spoiled[0] += 100.0  # the check can fail: one wrong activation shows
    wrong = gradients(boundary.upper(model, cut), spoiled)
    assert max(np.abs(full[name] - wrong[name]).max() for name in full) > tolerance * largest


@pytest.mark.parametrize("two_scales", [False, True])
def test_training_the_upper_part_is_training_the_whole_with_the_rest_frozen(data, tmp_path, two_scales):
    labels = data[0].labels
    ends = []
    for short in (False, True):
        model = residual(two_scales=two_scales)
        before = {layer.name: layer.get_weights() for layer in model.layers}
        cut = finetune.unfreeze(model, "two")
        if short:
            kept = boundary.cached(model, cut, *data, config(tmp_path), dtype=np.float32)
            part = fitting.Part(kept, labels, kept.draw)
            fitting.fit(boundary.upper(model, cut), part, part, PLAN, phase="finetune")
        else:
            part = fitting.Part(data[1], labels)
            fitting.fit(model, part, part, PLAN, phase="finetune")
        for name in ("stem", "one_conv", "one_norm", "two_norm"):  # nor do the statistics of normalisation move
            for one, other in zip(before[name], model.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)
        assert (before["two_conv"][0] != model.get_layer("two_conv").get_weights()[0]).any()
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_kept_activations_are_found_again_and_follow_the_lower_weights_alone(data, tmp_path, monkeypatch):
    model = residual()
    cut = finetune.unfreeze(model, "two")
    settings = config(tmp_path, views=2)
    one = boundary.cached(model, cut, *data, settings)
    model.get_layer("two_conv").set_weights([np.ones((3, 3, 8, 8))])
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "predict", None)
        again = boundary.cached(model, cut, *data, settings)
    np.testing.assert_array_equal(one[:], again[:])
    assert one[:].dtype == np.float16 and one.shape == (16, 8, 8, 8)
    model.get_layer("one_conv").set_weights([np.ones((3, 3, 8, 8))])
    other = boundary.cached(model, cut, *data, settings)
    assert (other[:] != one[:]).any()


def test_one_corrupted_activation_on_disk_changes_what_is_trained(data, tmp_path):
    ends = []
    for spoiled in (False, True):
        model = residual()
        cut = finetune.unfreeze(model, "two")
        kept = boundary.cached(model, cut, *data, config(tmp_path))
        if spoiled:
            (view,) = kept._views
            stored = np.memmap(view.filename, np.float16, "r+", offset=view.offset, shape=view.shape)
            stored[3, 4, 4] += 30  # one place of one image
            stored.flush()
            kept = boundary.cached(model, cut, *data, config(tmp_path))
        part = fitting.Part(kept, data[0].labels, kept.draw)
        fitting.fit(boundary.upper(model, cut), part, None, PLAN, phase="finetune")
        ends.append(model.get_layer("logits").get_weights()[0])
    assert np.abs(ends[0] - ends[1]).max() > 1e-5


def test_drawing_shows_every_view_and_follows_its_seed(data, tmp_path):
    model = residual()
    cut = finetune.unfreeze(model, "two")
    kept = boundary.cached(model, cut, *data, config(tmp_path, views=2))
    rows = np.full(60, 3)
    drawn = kept.draw(rows, np.random.default_rng(0))
    kinds = np.unique(drawn.reshape(60, -1), axis=0)
    assert len(kinds) == 3
    np.testing.assert_array_equal(drawn, kept.draw(rows, np.random.default_rng(0)))
    np.testing.assert_array_equal(kept.take(np.array([5, 3]))[:], kept[np.array([5, 3])])


def test_more_than_the_limit_is_not_kept_and_memory_serves_without_a_folder(data, tmp_path):
    model = residual()
    cut = finetune.unfreeze(model, "two")
    refused = boundary.cached(model, cut, *data, config(tmp_path, cache_limit_gb=1e-6))
    assert isinstance(refused, str) and "more than --cache-limit-gb" in refused
    held = boundary.cached(model, cut, *data, replace(config(tmp_path), cache="off"))
    on_disk = boundary.cached(model, cut, *data, config(tmp_path))
    np.testing.assert_array_equal(held[:], on_disk[:])
