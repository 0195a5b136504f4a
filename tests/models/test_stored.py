"""Backbones of the user's own, out of `.keras` files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import imgclf
from imgclf.errors import RunError, UsageError
from imgclf.models import classifier, stored
from imgclf.settings import TrainConfig

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers, ops  # isort: skip

SIZE_PX = 16


def _pixels(count: int = 2, size_px: int = SIZE_PX) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size_px, size_px, 3)).astype(np.float32)


def _nested() -> keras.Model:
    """A model in a model, with layers that bear a classifier's names, and operations between."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((SIZE_PX, SIZE_PX, 3)), layers.Conv2D(4, 3, name="logits"), layers.BatchNormalization()],
        name="stem",
    )
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3))
    x = inner(layers.Rescaling(1 / 255, name="embedding")(pixels))
    return keras.Model(pixels, ops.relu(x) * 2, name="nested")


def test_a_model_within_a_model_becomes_one_flat_graph_with_free_names() -> None:
    model = _nested()
    flat = stored.at_size(model, SIZE_PX)
    assert [layer.name for layer in flat.layers] == [
        *("pixels", "backbone_embedding", "stem_logits", "stem_batch_normalization")
    ]
    np.testing.assert_array_equal(flat(_pixels()), model(_pixels()))


def test_a_model_of_any_size_takes_the_size_that_is_asked_for(tmp_path: Path) -> None:
    pixels = keras.Input((None, None, 3))
    keras.Model(pixels, layers.Conv2D(4, 3, 2)(pixels)).save(tmp_path / "own.keras")
    model = stored.own(tmp_path / "own.keras")
    assert stored.at_size(model, 24).output_shape == (None, 11, 11, 4)


def test_mixed_precision_rounds_neither_pixels_nor_probabilities() -> None:
    model = classifier.build(stored.at_size(_nested(), SIZE_PX), 3)
    twin = stored.at_precision(model, "mixed_bfloat16")
    kinds = {layer.name: layer.compute_dtype for layer in twin.layers}
    assert kinds["stem_logits"] == "bfloat16"
    assert {kinds[name] for name in ("backbone_embedding", "embedding", "logits", "probabilities")} == {"float32"}
    np.testing.assert_allclose(twin(_pixels()), model(_pixels()), atol=0.02)


def _saved(
    path: Path, make: Callable[[keras.KerasTensor], object], shape: tuple[int | None, ...] = (16, 16, 3)
) -> Path:
    pixels = keras.Input(shape)
    keras.Model(pixels, make(pixels)).save(path)
    return path


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda x: layers.Lambda(lambda y: y / 255)(x), (16, 16, 3), "has a Lambda layer, which is code in a file"),
        (
            lambda x: layers.Conv2D(4, 3)(x),
            (16, 16, 1),
            r"expected 3 channels, .* found an input of \(None, 16, 16, 1\)",
        ),
        (lambda x: layers.Conv2D(4, 3)(x), (16, 24, 3), "expected one input of square images"),
        (lambda x: layers.Flatten()(x), (16,), r"expected one input of square images .* found \(None, 16\)"),
        (lambda x: [layers.Conv2D(4, 3)(x), layers.Flatten()(x)], (16, 16, 3), "expected one output, a map"),
        (lambda x: ops.mean(x, axis=(1, 2, 3)), (16, 16, 3), r"expected one output, .* found \(None,\)"),
        (
            lambda x: layers.Dense(5, activation="softmax")(layers.Flatten()(x)),
            (16, 16, 3),
            "ends in the probabilities of 5 classes.*without its head",
        ),
    ],
)
def test_a_model_that_is_no_backbone_is_refused_with_the_reason(
    make: Callable[..., object], shape: tuple[int | None, ...], message: str, tmp_path: Path
) -> None:
    path = _saved(tmp_path / "own.keras", make, shape)
    with pytest.raises(UsageError, match=message):
        stored.own(path)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.keras"
    path.write_bytes(b"no model")
    with pytest.raises(RunError, match=r"own.keras: expected a model in Keras's .keras format"):
        stored.own(path)


@pytest.mark.slow
def test_a_run_on_an_own_backbone_contains_it(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    """The model lives in this process alone, the run is moved, and everything works on."""
    config = TrainConfig(method="finetune", epochs=1, batch_size=8, export="litert", augment="none")
    data = imgclf.read(image_folder(count=10, size_px=SIZE_PX))
    run = imgclf.train(data, config, backbone=_nested(), output=tmp_path / "run", with_report=False)
    assert not run.backbone.exists()
    assert not Path(run.read_config()["config"]["backbone"]).exists()
    moved = run.path.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="the trained one has seen the images of all folds"):
        imgclf.kfold(imgclf.Run(moved))
    before = imgclf.load(moved).outputs(_pixels())["embedding"]
    model = keras.saving.load_model(moved / "model.keras", compile=False)
    embedding = keras.Model(model.input, model.get_layer("embedding").output)
    np.testing.assert_allclose(before, embedding(_pixels()), atol=1e-4)
    resumed = imgclf.resume(moved, epochs=2, with_report=False)
    assert len(resumed.history_file.read_text(encoding="utf-8").splitlines()) == 4  # header, probe, two epochs
    assert imgclf.export(moved, imgclf.ExportConfig(format="savedmodel"))[0]["label_agreement"] == 1.0
    again = TrainConfig(weights=str(moved), method="probe", export="none")
    second = imgclf.train(data, again, output=tmp_path / "second", with_report=False)
    assert second.read_config()["config"]["backbone"] == str(moved.resolve())
    theirs = keras.saving.load_model(second.model, compile=False).get_layer("stem_logits").get_weights()
    ours = keras.saving.load_model(resumed.model, compile=False).get_layer("stem_logits").get_weights()
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interrupted_run_on_an_own_backbone_resumes_without_its_file(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(phase: str, *_: object) -> None:
        if phase.startswith("finetune"):
            raise Stop

    _nested().save(tmp_path / "own.keras")
    config = TrainConfig(
        backbone=str(tmp_path / "own.keras"),
        method="finetune",
        epochs=2,
        batch_size=8,
        export="none",
        augment="none",
        precision="mixed_bfloat16",
    )
    data = imgclf.read(image_folder(count=10, size_px=SIZE_PX))
    with pytest.raises(Stop):
        imgclf.train(data, config, output=tmp_path / "run", with_report=False, on_progress=stop)
    (tmp_path / "own.keras").unlink()
    run = imgclf.resume(tmp_path / "run", with_report=False)
    assert run.model.is_file()
    assert not run.backbone.exists()
