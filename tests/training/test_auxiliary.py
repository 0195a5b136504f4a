"""Auxiliary heads: their share of the loss, and where they are gone."""

import numpy as np
import pytest
from conftest import fill

import imgclf
from imgclf.models import classifier, convnets, textbook
from imgclf.settings import TrainConfig
from imgclf.training import auxiliary, loop, recipe
from imgclf.training.images import Part

import keras  # isort: skip  (imgclf chooses its backend first)

SIZE_PX = 65


def test_the_loss_is_the_own_one_and_three_tenths_of_each_other():
    own = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.0)
    targets = np.array([[1, 0], [0, 1]], np.float32)
    logits = np.array([[2, 0, 1, 0, 0, 3], [0, 1, 0, 0, -1, 1]], np.float32)
    found = float(auxiliary.loss(own, 2)(targets, keras.ops.convert_to_tensor(logits)))
    cross = lambda right, wrong: np.log1p(np.exp(wrong - right))  # noqa: E731
    main, first, second = cross(2, 0) + cross(1, 0), cross(1, 0) + cross(0, 0), cross(0, 3) + cross(1, -1)
    assert found == pytest.approx((main + 0.3 * (first + second)) / 2, rel=1e-5)


def test_the_metric_is_of_the_own_head():
    metric = auxiliary.OfOwnHead("accuracy", 2)
    targets = np.array([[1, 0], [0, 1]], np.float32)
    metric.update_state(targets, np.array([[2, 0, 0, 9], [1, 0, 0, 9]], np.float32))
    assert (metric.name, float(metric.result())) == ("accuracy", 0.5)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return classifier.build(textbook.build("googlenet", SIZE_PX, SIZE_PX), 10)


def test_the_heads_of_googlenet_are_those_of_the_paper_and_no_part_of_the_classifier(model):
    names = {layer.name for layer in model.layers}
    logits = auxiliary.attach(classifier.logits(model), textbook.AUXILIARY["googlenet"])
    dense = 2 * ((128 + 1) * 1024 + (1024 + 1) * 10)  # maps of 5 px become one of 1 px
    convolutions = (512 + 1) * 128 + (528 + 1) * 128  # 4a has 512 filters, 4d has 528
    assert logits.count_params() == model.count_params() + dense + convolutions
    assert logits.output_shape == (None, 30)
    assert {layer.name for layer in model.layers} == names
    assert not [name for name in names if "auxiliary" in name]


@pytest.mark.slow
def test_one_step_changes_every_weight_of_all_heads(model):
    config = TrainConfig(
        backbone="googlenet", method="scratch", image_size=SIZE_PX, augment="none", batch_size=10, lr=0.1
    )
    pixels = np.random.default_rng(0).integers(0, 256, (10, SIZE_PX, SIZE_PX, 3), np.uint8)
    logits = loop.compiled(model, Part(pixels, np.arange(10)), recipe.resolve(config)[0], scheduled=False)
    before = [np.array(variable) for variable in logits.trainable_variables]
    loss, accuracy = logits.train_on_batch(pixels.astype(np.float32), np.eye(10, dtype=np.float32))
    assert np.isfinite(loss) and 0 <= accuracy <= 1
    assert sum(v.size for v in before) == logits.count_params()
    assert all((old != np.array(new)).any() for old, new in zip(before, logits.trainable_variables, strict=True))


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    layer = next(layer.name for layer in convnets.small_cnn(16).layers if layer.output.shape[1] == 8)
    monkeypatch.setitem(textbook.AUXILIARY, "small-cnn", (layer,))
    attach, attached = auxiliary.attach, []
    monkeypatch.setattr(auxiliary, "attach", lambda *given: attached.append(given) or attach(*given))
    folder = fill(tmp_path / "images", ("one", "two"), 8, 40, ".png", seed=1)
    config = TrainConfig(
        backbone="small-cnn", method="scratch", image_size=16, augment="none", lr=0.01, epochs=2, batch_size=4,
        near_duplicates="off", export="none", seed=3,
    )  # fmt: skip
    whole = imgclf.train(imgclf.read(folder, config), config, output=tmp_path / "whole", with_report=False)
    save = loop.State.save

    def stop(self, path):
        save(self, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.State, "save", stop)
        imgclf.train(imgclf.read(folder, config), config, output=tmp_path / "broken", with_report=False)
    resumed = imgclf.resume(tmp_path / "broken", with_report=False)
    assert len(attached) == 3
    first, second = (keras.saving.load_model(run.model).get_weights() for run in (whole, resumed))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(first, second, strict=True))
