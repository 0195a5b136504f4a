"""The backbone that comes with the package."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from imgclf import TrainConfig
from imgclf.data import loading, readers
from imgclf.data.dataset import TRAIN
from imgclf.errors import MissingError, UsageError
from imgclf.models import catalog, embedded, whitening
from imgclf.training import features, probe, resolving


def test_the_shipped_weights_fill_every_layer_and_are_small() -> None:
    model = embedded.build(64)
    before = model.get_weights()
    embedded.load_weights(model)
    assert embedded.WEIGHTS.stat().st_size + embedded.WHITENING.stat().st_size < 12_000_000
    with np.load(embedded.WEIGHTS, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files if "/" in name}
    assert {array.dtype for array in held.values()} == {np.dtype(np.float16)}
    for layer in model.layers:
        for variable in layer.weights:
            np.testing.assert_array_equal(np.asarray(variable), held.pop(f"{layer.name}/{variable.name}"))
    assert not held
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all() and (old != new).any()


def by_hand(pixels: np.ndarray) -> np.ndarray:
    """The averages and the maxima of what three blocks show, one network at one size."""
    backbone = embedded.build(pixels.shape[1])
    embedded.load_weights(backbone)
    ends = [backbone.get_layer(f"stage_{name}_out").output for name in ("2_b", "3_a", "3_b")]
    maps = [np.asarray(found) for found in keras.Model(backbone.input, ends)(pixels)]
    maps[0] = maps[0].reshape(len(pixels), maps[1].shape[1], 2, maps[1].shape[2], 2, -1).mean(axis=(2, 4))
    pooled = [found.mean(axis=(1, 2)) for found in maps] + [found.max(axis=(1, 2)) for found in maps]
    return np.concatenate(pooled, axis=1)


def test_its_embedding_is_what_three_blocks_show_on_average_and_at_most_at_two_sizes() -> None:
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", method="probe", image_size=96))
    model = resolving.build(config, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    large = pixels.repeat(3, axis=1).repeat(3, axis=2)  # 96 px; two thirds of it, by area, is each pixel twice
    small = pixels.repeat(2, axis=1).repeat(2, axis=2)
    embedding = keras.Model(model.input, model.get_layer("embedding").output)(large)
    expected = (by_hand(large) + by_hand(small)) / 2
    np.testing.assert_allclose(np.asarray(embedding), expected, rtol=1e-4, atol=1e-4)


def test_from_scratch_it_sees_one_size_and_averages() -> None:
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", method="scratch", image_size=64))
    model = resolving.build(config, 2)
    feature_map, embedding = (model.get_layer(name).output for name in ("feature_map", "embedding"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    shown, found = keras.Model(model.input, [feature_map, embedding])(pixels)
    np.testing.assert_allclose(np.asarray(found), np.asarray(shown).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_the_model_card_is_about_these_weights() -> None:
    card = embedded.WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    assert embedded.SHA256 in card
    assert embedded.WHITENING_SHA256 in card
    assert f"{catalog.find('embedded').parameters:,}" in card


@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
def test_damaged_weights_are_found_by_their_checksum(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "embedded.npz"
    content = bytearray(embedded.WEIGHTS.read_bytes())
    content[len(content) // 2] ^= 1
    if damage != "gone":
        path.write_bytes(content if damage == "one bit" else content[:1000])
    monkeypatch.setattr(embedded, "WEIGHTS", path)
    model = embedded.build(32)
    before = model.get_weights()
    with pytest.raises(MissingError, match="cannot be read" if damage == "gone" else "damaged: expected SHA-256") as e:
        embedded.load_weights(model)
    assert str(path) in str(e.value)
    assert "pip install" in str(e.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_damaged_whitening_is_found_by_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "embedded-whitening.npz"
    content = bytearray(embedded.WHITENING.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(embedded, "WHITENING", path)
    with pytest.raises(MissingError, match="damaged: expected SHA-256"):
        embedded.whitening()


def test_its_whitening_fits_its_embedding_and_is_for_its_own_weights_alone(tmp_path: Path) -> None:
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", method="probe", offline=True))
    found = resolving.whitening(config)
    assert found is not None
    width = resolving.build(config, 2).get_layer("embedding").output.shape[-1]
    assert found.directions.shape == (width, whitening.RANK)
    between = found.directions.T @ found.directions
    np.testing.assert_allclose(between, np.eye(whitening.RANK), atol=2e-3)
    assert (found.gains < 0).all() and (found.gains > -1).all()
    own = tmp_path / "own.weights.h5"
    resolving.build(config, 2).save_weights(own)
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", weights=str(own), method="probe"))
    assert resolving.whitening(config) is None


def test_auto_means_embedded_where_the_hub_cannot_be_had_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config, notes = resolving.resolve(TrainConfig(offline=True))
    assert (config.backbone, config.weights, config.method) == ("embedded", "embedded", "auto")
    assert len(notes) == 1
    assert re.search(r"embedded.*--offline.*efficientnetv2-b0", notes[0])
    monkeypatch.setattr(resolving.backbones, "hub_available", lambda *_, **__: True)
    config, notes = resolving.resolve(TrainConfig())
    assert (config.backbone, config.weights) == ("efficientnetv2-b0", "hub")


def test_its_weights_are_chosen_by_name_and_fit_no_other_network() -> None:
    config, _ = resolving.resolve(TrainConfig(weights="embedded"))
    assert (config.backbone, config.weights) == ("embedded", "embedded")
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", method="scratch"))
    assert config.weights == "none"
    with pytest.raises(UsageError, match="these are for --backbone embedded, found mobilenetv2"):
        resolving.resolve(TrainConfig(backbone="mobilenetv2", weights="embedded"))


@pytest.mark.real
def test_its_features_tell_ants_from_bees_where_colours_and_random_weights_do_not(real_data: Path) -> None:
    """Trained on train/, scored on val/; the full table is printed by tests/benchmarks/transfer.py."""
    dataset = readers.read(real_data / "ants-bees")
    accuracy = {}
    for weights in ("embedded", "none"):
        config, _ = resolving.resolve(TrainConfig(backbone="embedded", weights=weights, method="probe"))
        assert config.image_size
        readable, pixels = loading.decode(dataset, config.image_size, config.decoding)
        found = features.compute(resolving.build(config, 2), pixels)
        train = np.array([sample.split == TRAIN for sample in readable.samples])
        test = ~train
        kernel, bias = probe.solve(
            found[train], readable.labels[train], classes=2, seed=0, whitening=resolving.whitening(config)
        )
        accuracy[weights] = np.mean((found[test] @ kernel + bias).argmax(axis=1) == readable.labels[test])
    assert accuracy["embedded"] > 0.8
    assert accuracy["embedded"] > accuracy["none"] + 0.1
