"""Cached activations: training the upper part of a network alone is the same training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import SIZE_PX, recipe_of, residual

import imgclf
from imgclf.data import cache as caches
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.models import classifier, graph
from imgclf.training import activations, finetune, loop
from imgclf.training.images import Part
from imgclf.training.recipe import Recipe

import keras  # isort: skip  (imgclf chooses its backend first)

PLAN = recipe_of(epochs=2, batch_size=4, lr=1e-3, optimizer="sgd")


@pytest.fixture
def data(image_folder: Callable[..., Path]) -> tuple[Dataset, loading.Pixels]:
    return loading.decode(imgclf.read(image_folder(count=8)), SIZE_PX)


def config(tmp_path: Path, cache: str = "", **options: object) -> Recipe:
    return recipe_of(cache=cache or str(tmp_path / "cache"), batch_size=4, augment="light", **options)


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


@pytest.mark.parametrize("taps", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-2)])
def test_gradients_from_kept_activations_are_those_of_the_full_path(data, tmp_path, dtype, tolerance, taps):
    model = residual(taps=taps)
    cut = finetune.unfreeze(model, "two")
    kept = activations.cached(model, cut, *data, config(tmp_path), dtype=dtype)
    full = gradients(model, data[1][:].astype(np.float32))
    short = gradients(graph.upper(model, cut), kept[:].astype(np.float32))
    assert set(short) == set(full) == {"two_conv/kernel", "logits/kernel", "logits/bias"}
    largest = max(np.abs(g).max() for g in full.values())
    difference = max(np.abs(full[name] - short[name]).max() for name in full)
    assert difference <= tolerance * largest
    spoiled = kept[:].astype(np.float32)
    spoiled[0] += 100.0  # the check can fail: one wrong activation shows
    wrong = gradients(graph.upper(model, cut), spoiled)
    assert max(np.abs(full[name] - wrong[name]).max() for name in full) > tolerance * largest


@pytest.mark.parametrize("taps", [False, True])
def test_training_the_upper_part_is_training_the_whole_with_the_rest_frozen(data, tmp_path, taps):
    labels = data[0].labels
    ends = []
    for short in (False, True):
        model = residual(taps=taps)
        before = {layer.name: layer.get_weights() for layer in model.layers}
        cut = finetune.unfreeze(model, "two")
        if short:
            kept = activations.cached(model, cut, *data, config(tmp_path), dtype=np.float32)
            part = Part(kept, labels, kept.draw)
            loop.fit(graph.upper(model, cut), part, part, PLAN, loop.Options("finetune"))
        else:
            part = Part(data[1], labels)
            loop.fit(model, part, part, PLAN, loop.Options("finetune"))
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
    settings = config(tmp_path, cached_augmentations=2)
    one = activations.cached(model, cut, *data, settings)
    model.get_layer("two_conv").set_weights([np.ones((3, 3, 8, 8))])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "predict", None)
        again = activations.cached(model, cut, *data, settings)
    np.testing.assert_array_equal(one[:], again[:])
    assert one[:].dtype == np.float16 and one.shape == (16, 8, 8, 8)
    model.get_layer("one_conv").set_weights([np.ones((3, 3, 8, 8))])
    other = activations.cached(model, cut, *data, settings)
    assert (other[:] != one[:]).any()


def test_one_corrupted_activation_on_disk_changes_what_is_trained(data, tmp_path):
    ends = []
    for spoiled in (False, True):
        model = residual()
        cut = finetune.unfreeze(model, "two")
        kept = activations.cached(model, cut, *data, config(tmp_path))
        if spoiled:
            (file,) = (tmp_path / "cache").rglob(caches.ARRAY)
            stored = np.load(file, mmap_mode="r+")
            stored[3, 4, 4] += 30  # one place of one image
            stored.flush()
            kept = activations.cached(model, cut, *data, config(tmp_path))
        part = Part(kept, data[0].labels, kept.draw)
        loop.fit(graph.upper(model, cut), part, None, PLAN, loop.Options("finetune"))
        ends.append(model.get_layer("logits").get_weights()[0])
    assert np.abs(ends[0] - ends[1]).max() > 1e-5


def test_drawing_shows_every_view_and_follows_its_seed(data, tmp_path):
    model = residual()
    cut = finetune.unfreeze(model, "two")
    kept = activations.cached(model, cut, *data, config(tmp_path, cached_augmentations=2))
    rows = np.full(60, 3)
    drawn = kept.draw(rows, np.random.default_rng(0))
    kinds = np.unique(drawn.reshape(60, -1), axis=0)
    assert len(kinds) == 3
    np.testing.assert_array_equal(drawn, kept.draw(rows, np.random.default_rng(0)))
    np.testing.assert_array_equal(kept.take(np.array([5, 3]))[:], kept[np.array([5, 3])])


def test_more_than_the_limit_is_not_kept_and_memory_serves_without_a_folder(data, tmp_path):
    model = residual()
    cut = finetune.unfreeze(model, "two")
    refused = activations.cached(model, cut, *data, config(tmp_path, cache_limit_gb=1e-6))
    assert isinstance(refused, str) and "more than --cache-limit-gb" in refused
    held = activations.cached(model, cut, *data, config(tmp_path, cache="off"))
    on_disk = activations.cached(model, cut, *data, config(tmp_path))
    np.testing.assert_array_equal(held[:], on_disk[:])
