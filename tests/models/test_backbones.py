"""Backbones: the same numbers as keras.applications, from every kind of file, and clear words about wrong ones."""

import dataclasses
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgclf import runs, storage
from imgclf.errors import MissingError, RunError, UsageError
from imgclf.models import backbones, catalog, classifier, convnets, efficientnet_lite0, hub

import keras  # isort: skip  (after imgclf.models, which prepares it)

SMALL = "mobilenetv3-small"
ONE_OF_EACH_FAMILY = (
    "mobilenet", "mobilenetv2", "mobilenetv3-small", "nasnet-mobile", "efficientnetv2-b0", "efficientnet-b0",
    "resnet50", "resnet50v2", "densenet121", "inceptionv3", "inception-resnetv2", "xception", "vgg16", "convnext-tiny",
)  # fmt: skip
LONG_TO_BUILD = ("inception-resnetv2", "nasnet-mobile")
APPLICATIONS = [facts.name for facts in catalog.MODELS.values() if facts.application]


def pixels(size_px: int = 32, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size_px, size_px, 3)).astype(np.float32)


def randomise(model: keras.Model) -> keras.Model:
    """Weights as after training: no variance of exactly 1, no offset of exactly 0."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Normalization):
            weights = [w * rng.uniform(0.7, 1.3, w.shape) for w in layer.get_weights()]
            layer.set_weights([w + rng.uniform(0, 0.02, w.shape) if w.ndim == 1 else w for w in weights])
    return model


@pytest.fixture(scope="module")
def small() -> keras.Model:
    return randomise(backbones.build(SMALL, weights="none", image_size=32))


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches; the package's own folder of weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    hub.folders()[0].mkdir(parents=True)
    return hub.folders()[0]


def put_on_hub(model: keras.Model, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, top: bool) -> Path:
    """Save a Keras application as the hub has it, into the cache, and let the catalogue know its hash."""
    facts = catalog.find(name)
    file = facts.with_top if top else facts.without_top
    model.save(folder / file.name)
    known = dataclasses.replace(file, hash=hashlib.sha256((folder / file.name).read_bytes()).hexdigest())
    facts = dataclasses.replace(facts, with_top=known) if top else dataclasses.replace(facts, without_top=known)
    monkeypatch.setitem(catalog.MODELS, name, facts)
    return folder / file.name


def as_keras_would(name: str, size: int, folder: Path, monkeypatch: pytest.MonkeyPatch, *, top: bool = False) -> Any:
    """The application with weights="imagenet", where the hub holds random weights: a function from pixels 0-255."""
    application = getattr(keras.applications, catalog.find(name).application)
    shape = (size, size, 3)
    plain = randomise(application(weights=None, include_top=top, input_shape=shape))
    if name.startswith("efficientnet-b"):
        layer = next(layer for layer in plain.layers if isinstance(layer, keras.layers.Normalization))
        layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
        layer.finalize_state()
    path = put_on_hub(plain, name, folder, monkeypatch, top=top)
    module = sys.modules[application.__module__]
    monkeypatch.setattr(sys.modules["keras.src.utils.file_utils"], "get_file", lambda *_, **__: str(path))
    model = application(weights="imagenet", include_top=top, input_shape=shape)
    return lambda x: np.asarray(model(module.preprocess_input(x.copy())))


@pytest.mark.parametrize("name", ["mobilenetv2", "densenet121", "resnet50", "mobilenetv3-small"])
def test_preprocessing_is_that_of_keras(name: str) -> None:
    facts = catalog.find(name)
    start = keras.Input((8, 8, 3))
    found = np.asarray(keras.Model(start, keras.layers.Identity()(backbones.preprocess(start, facts)))(pixels(8)))
    module = sys.modules[getattr(keras.applications, facts.application).__module__]
    np.testing.assert_allclose(found, module.preprocess_input(pixels(8)), atol=2e-5)


@pytest.mark.parametrize(
    "name",
    ["efficientnet-b0", *(pytest.param(n, marks=pytest.mark.slow) for n in ONE_OF_EACH_FAMILY)],
)
@pytest.mark.filterwarnings("ignore:.input_shape. is undefined or non-square")  # MobileNet, where a size is given
def test_features_are_those_of_keras(name: str, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = catalog.find(name)
    size = facts.image_size if name.startswith("nasnet") else facts.min_image_size
    reference = as_keras_would(name, size, caches, monkeypatch)
    model = backbones.build(name, weights="hub", image_size=size, offline=True)
    expected = reference(pixels(size))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(np.asarray(model(pixels(size))), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_with_top_it_gives_the_probabilities_of_keras(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = as_keras_would(SMALL, 224, caches, monkeypatch, top=True)
    model = backbones.build_with_top(SMALL, offline=True)
    found = np.asarray(model(pixels(224)))
    assert model.input_shape == (None, 224, 224, 3)
    assert found.shape == (2, 1000)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, reference(pixels(224)), atol=1e-6)


def test_the_graph_is_flat_and_ends_in_the_feature_map(small: keras.Model) -> None:
    assert small.input.name == "pixels"
    assert small.input.dtype == "float32"
    assert small.output_shape == (None, 1, 1, 576)
    assert small.get_layer("expanded_conv_project").output.shape == (None, 8, 8, 16)


def test_layers_have_the_same_names_in_every_process(small: keras.Model) -> None:
    again = backbones.build(SMALL, weights="none", image_size=64)
    assert [layer.name for layer in again.layers] == [layer.name for layer in small.layers]
    assert again.layers[-1].name == "activation_17"
    names = [operation.name for operation in again.operations]
    assert len(set(names)) == len(names)


def test_an_open_size_takes_images_of_any_size() -> None:
    model = backbones.build(SMALL, weights="none", image_size=None)
    assert np.asarray(model(pixels(32))).shape == (2, 1, 1, 576)
    assert np.asarray(model(pixels(64))).shape == (2, 2, 2, 576)


def test_mixed_precision_leaves_preprocessing_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = backbones.build("vgg16", weights="none", image_size=32)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("preprocess").output.dtype == "float32"
    assert model.output.dtype == "bfloat16"


@pytest.mark.parametrize("file", ["a.weights.h5", "a.keras", "a.h5"])
def test_weights_come_back_from_every_format(file: str, small: keras.Model, tmp_path: Path) -> None:
    save = small.save_weights if file.endswith(".weights.h5") else small.save
    save(tmp_path / file)
    again = backbones.build(SMALL, weights=tmp_path / file, image_size=32)
    np.testing.assert_array_equal(np.asarray(again(pixels())), np.asarray(small(pixels())))


def make_run(model: keras.Model, folder: Path) -> runs.Run:
    run = runs.create(folder)
    run.config.write_text(json.dumps({"config": {}}))
    classifier.build(model, 3, dropout=0.2).save(run.model)
    return run


def test_a_run_gives_its_backbone_and_keeps_its_head(small: keras.Model, tmp_path: Path) -> None:
    run = make_run(small, tmp_path / "run")
    again = backbones.build(SMALL, weights=run.path, image_size=32)
    np.testing.assert_array_equal(np.asarray(again(pixels())), np.asarray(small(pixels())))


@pytest.mark.parametrize("kind", ["a.weights.h5", "a.keras", "a.h5", "run"])
def test_weights_of_another_network_are_refused_by_their_first_layer(kind: str, tmp_path: Path) -> None:
    other = convnets.small_cnn(32)
    path = tmp_path / kind
    if kind == "run":
        make_run(other, path)
    else:
        (other.save_weights if ".weights" in kind else other.save)(path)
    model = backbones.build(SMALL, weights="none", image_size=32)
    before = model.get_weights()
    with pytest.raises(RunError) as caught:
        backbones.load_weights(model, path)
    assert "another network than mobilenetv3-small" in str(caught.value)
    assert "Layer conv: expected (3, 3, 3, 16), found (3, 3, 3, 24)" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_layers_too_many_are_left_out_and_layers_too_few_refused(name: str, tmp_path: Path) -> None:
    deep, shallow = (
        keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4, name=f"d{n}") for n in range(count))], name="net")
        for count in (3, 2)
    )
    deep.save(tmp_path / name)
    backbones.load_weights(shallow, tmp_path / name)
    assert all(np.array_equal(a, b) for a, b in zip(deep.get_weights(), shallow.get_weights(), strict=False))
    shallow.save(tmp_path / name)
    with pytest.raises(RunError, match=r"Layer d2: expected \(4, 4\) and \(4,\), found nothing"):
        backbones.load_weights(deep, tmp_path / name)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras", "a.h5"])
@pytest.mark.parametrize("damage", ["cut in half", "cut to a tenth", "empty", "text"])
def test_a_damaged_file_is_said_to_be_one(name: str, damage: str, tmp_path: Path) -> None:
    model = convnets.small_cnn(32)
    path = tmp_path / name
    (model.save_weights if ".weights" in name else model.save)(path)
    raw = path.read_bytes()
    share = {"cut in half": len(raw) // 2, "cut to a tenth": len(raw) // 10, "empty": 0}
    path.write_bytes(raw[: share[damage]] if damage in share else b"not weights at all")
    with pytest.raises(RunError, match="damaged"):
        backbones.load_weights(convnets.small_cnn(32), path)


def test_a_backbone_file_fills_its_own_network_and_names_the_layer_that_differs_in_another(tmp_path: Path) -> None:
    path = tmp_path / "backbone.npz"
    source = efficientnet_lite0.build(32)
    arrays = {f"{layer.name}/{v.name}": np.asarray(v) for layer in source.layers for v in layer.weights}
    np.savez(path, allow_pickle=False, **arrays)
    model = efficientnet_lite0.build(64)
    backbones.load_weights(model, path)
    assert all(np.array_equal(a, b) for a, b in zip(source.get_weights(), model.get_weights(), strict=True))

    np.savez(path, allow_pickle=False, **arrays | {"block_2_expand_conv/kernel": np.zeros((1, 1, 16, 64))})
    with pytest.raises(RunError, match=r"block_2_expand_conv: expected \(1, 1, 16, 96\), found \(1, 1, 16, 64\)"):
        backbones.load_weights(model, path)
    with pytest.raises(RunError, match=r"another network than small-cnn.*Layer stage_1_1_conv: .* found nothing"):
        backbones.load_weights(convnets.small_cnn(32), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match="damaged"):
        backbones.load_weights(model, path)


def test_a_run_without_a_backbone_is_said_to_be_one(tmp_path: Path) -> None:
    run = runs.create(tmp_path / "run")
    storage.write_json(run.config, {"config": {}})
    with pytest.raises(RunError, match=r"expected a run with a backbone, found no model\.keras"):
        backbones.load_weights(convnets.small_cnn(32), run.path)


def test_a_zip_without_weights_is_said_to_be_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(RunError, match="damaged"):
        backbones.load_weights(convnets.small_cnn(32), tmp_path / "a.keras")


def test_paths_without_weights_are_said(tmp_path: Path) -> None:
    model = convnets.small_cnn(32)
    with pytest.raises(MissingError, match="found nothing there"):
        backbones.load_weights(model, tmp_path / "nothing.h5")
    with pytest.raises(RunError, match="expected a run folder"):
        backbones.load_weights(model, tmp_path)


def test_impossible_requests_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="at least 71, found 64"):
        backbones.build("xception", weights="none", image_size=64)
    with pytest.raises(UsageError, match="nasnet-mobile needs one fixed --image-size"):
        backbones.build("nasnet-mobile", weights="none", image_size=None)
    with pytest.raises(UsageError, match="one of imgclf's own"):
        backbones.build("small-cnn", weights="none", image_size=32)


def test_missing_hub_weights_name_the_file(caches: Path) -> None:
    with pytest.raises(MissingError, match=r"efficientnetv2-b0_notop\.h5") as caught:
        backbones.build("efficientnetv2-b0", weights="hub", image_size=224, offline=True)
    assert str(caches) in str(caught.value)


def test_keras_keeps_its_own_files_under_the_same_root() -> None:
    assert Path(os.environ["KERAS_HOME"]).parts[-2:] == hub.folders()[0].parts[-3:-1] == ("imgclf", "keras")


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ONE_OF_EACH_FAMILY if n not in ("vgg16", *LONG_TO_BUILD)),
    ],
)
def test_plain_keras_loads_what_is_built(name: str, tmp_path: Path) -> None:
    size = max(32, catalog.find(name).min_image_size)
    model = backbones.build(name, weights="none", image_size=size)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    np.testing.assert_allclose(np.asarray(again(pixels(size))), np.asarray(model(pixels(size))), atol=1e-5)


def test_bgr_preprocessing_converts_to_litert() -> None:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    start = keras.Input((8, 8, 3), batch_size=2)
    model = keras.Model(start, backbones.preprocess(start, catalog.find("resnet50")))
    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels(8))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, pixels(8)[..., ::-1] - np.float32(backbones.IMAGENET_MEAN_BGR), atol=1e-4)
