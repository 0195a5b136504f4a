"""Gradient descent: it learns, it stops safely, it resumes exactly where it was interrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import recipe_of

from imgclf.errors import RunError
from imgclf.models import classifier
from imgclf.policies import POLICIES
from imgclf.tasks import multiclass
from imgclf.training import callbacks, finetune, loop
from imgclf.training.callbacks import State
from imgclf.training.images import Part
from imgclf.training.loop import Options
from imgclf.training.optimizers import Blocks
from imgclf.training.progress import Row
from imgclf.training.recipe import Recipe

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip

PLAN = recipe_of()


def part(count: int, size_px: int = 16, seed: int = 0) -> Part:
    rng = np.random.default_rng(seed)
    return Part(rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8), np.arange(count) % 2)


def model(size_px: int | None = 16, dropout: float = 0.0) -> keras.Model:
    """Three convolutions with batch normalisation, always from the same start."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    for number in (1, 2, 3):
        x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x)
        x = layers.ReLU()(x)
    return classifier.build(keras.Model(pixels, x), 2, dropout=dropout)


def test_eight_images_are_overfitted_to_zero_loss() -> None:
    rows = loop.fit(model(), part(8), None, replace(PLAN, epochs=40, lr=0.03), Options("scratch"))
    assert rows[-1]["loss"] < 0.01
    assert rows[-1]["accuracy"] == 1.0


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    plan = replace(PLAN, epochs=6, warmup_epochs=2)
    rates = [row["lr"] for row in loop.fit(model(), part(32), None, plan, Options("scratch"))]
    assert rates[0] == pytest.approx(plan.lr / 2)
    assert rates[1] == pytest.approx(plan.lr)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_sizes_grow_in_equal_shares_up_to_below_the_size_that_is_validated() -> None:
    plan = replace(PLAN, sizes=(16, 24, 32), epochs=7)
    assert [plan.size(epoch) for epoch in range(7)] == [16, 16, 16, 24, 24, 32, 32]
    rows = loop.fit(model(None), part(16, 48), part(8, 48, seed=1), replace(plan, epochs=3), Options("scratch"))
    assert [row["image_size"] for row in rows] == [16, 24, 32]


def interrupted(checkpoint: Path, recipe: Recipe, epochs: int) -> None:
    """A training of a model with dropout that is interrupted after some epochs."""

    def stop(rows: list[Row]) -> None:
        if len(rows) == epochs:
            raise KeyboardInterrupt

    options = Options("scratch", checkpoint=checkpoint, on_epoch=stop)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(model(None, dropout=0.5), part(24, 24), None, recipe, options)


RESUMED = replace(PLAN, image_size=24, sizes=(16, 24), epochs=4, ema=0.9, warmup_epochs=1, policy=POLICIES["standard"])


@pytest.mark.parametrize(
    ("epochs", "forgets_seeds"),
    [(3, False), pytest.param(1, False, marks=pytest.mark.slow), pytest.param(1, True, marks=pytest.mark.slow)],
)
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one_unless_the_seed_state_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, forgets_seeds: bool
) -> None:
    checkpoint = tmp_path / "checkpoint"
    whole, resumed = model(None, dropout=0.5), model(None, dropout=0.5)
    loop.fit(whole, part(24, 24), None, RESUMED, Options("scratch"))
    interrupted(checkpoint, RESUMED, epochs)
    if forgets_seeds:
        restore = State.restore

        def forgetful(state: State, path: Path) -> None:
            seeds = [variable for variable in state.logits.variables if "seed" in variable.path]
            before = callbacks.values(seeds)
            restore(state, path)
            callbacks.assign(seeds, before)

        monkeypatch.setattr(State, "restore", forgetful)
    rows = loop.fit(resumed, part(24, 24), None, RESUMED, Options("scratch", checkpoint=checkpoint))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    pairs = zip(whole.get_weights(), resumed.get_weights(), strict=True)
    difference = max(np.abs(one - other).max() for one, other in pairs)
    assert difference > 1e-3 if forgets_seeds else difference < 1e-5


def test_checkpoint_of_other_settings_and_damaged_one_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    loop.fit(model(), part(8), None, replace(PLAN, epochs=1), Options("scratch", checkpoint=checkpoint))
    with pytest.raises(RunError, match="other settings"):
        loop.fit(model(), part(8), None, replace(PLAN, epochs=2), Options("scratch", checkpoint=checkpoint))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-500])
    with pytest.raises(RunError, match="damaged"):
        loop.fit(model(), part(8), None, replace(PLAN, epochs=1), Options("scratch", checkpoint=checkpoint))


def test_a_loss_that_is_no_number_stops_and_keeps_good_weights() -> None:
    network = model()
    with pytest.raises(RunError, match=r"no longer a number.*--lr"):
        loop.fit(network, part(16), None, replace(PLAN, lr=1e30, optimizer="sgd", epochs=5), Options("scratch"))
    for weights in network.get_weights():
        assert np.isfinite(weights).all()


def test_frozen_batch_normalisation_keeps_its_statistics_and_lower_layers_stay() -> None:
    network = model()
    finetune.unfreeze(network)
    before = {layer.name: layer.get_weights() for layer in network.layers}
    loop.fit(network, part(16), None, PLAN, Options("finetune"))
    moved = {
        layer.name
        for layer in network.layers
        if any((a != b).any() for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert moved == {"conv_3", "logits"}  # an eighth of the arithmetic is nearest to a third; not its normalisation


def test_fine_tuning_at_learning_rate_zero_changes_nothing() -> None:
    network = model()
    finetune.unfreeze(network)
    before = network.get_weights()
    loop.fit(network, part(16), part(8, seed=1), replace(PLAN, lr=0.0), Options("finetune"))
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weight_average_is_what_is_kept() -> None:
    """With momentum 0.999 the kept weights hardly leave the first step's; without, they go on."""
    start = model().get_layer("logits").get_weights()[0]
    distance = {}
    for momentum in (0.0, 0.999):
        network = model()
        loop.fit(network, part(16), None, replace(PLAN, epochs=10, ema=momentum), Options("scratch"))
        distance[momentum] = np.abs(network.get_layer("logits").get_weights()[0] - start).mean()
    assert distance[0.999] < 0.5 * distance[0.0]


def plain() -> keras.Model:
    """One convolution and a head, without normalisation and dropout, always from the same start."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(4, 3, 2, name="conv")(layers.Rescaling(1 / 127.5, -1)(pixels))
    return classifier.build(keras.Model(pixels, layers.ReLU()(x)), 2)


def moves(plan: Recipe, train: Part, blocks: Blocks = ()) -> dict[str, np.ndarray]:
    """How far each kernel of `plain` goes in a training."""
    network = plain()
    before = {name: network.get_layer(name).get_weights()[0] for name in ("conv", "logits")}
    loop.fit(network, train, None, plan, Options("scratch", blocks=blocks))
    return {name: network.get_layer(name).get_weights()[0] - kernel for name, kernel in before.items()}


STEP = replace(PLAN, optimizer="nesterov", lr=0.01, epochs=1)


def test_two_batches_whose_gradients_are_averaged_are_one_batch_twice_as_large() -> None:
    whole = moves(replace(STEP, epochs=3), part(16))
    halves = moves(replace(STEP, epochs=3, batch_size=4, accumulate=2), part(16))
    for name, kernel in whole.items():
        assert np.abs(kernel).max() > 1e-4
        np.testing.assert_allclose(kernel, halves[name], rtol=1e-3, atol=1e-6)


def test_clipped_gradients_go_no_further_than_allowed() -> None:
    free, clipped = moves(STEP, part(8)), moves(replace(STEP, clip_norm=1e-3), part(8))
    length = np.sqrt(sum((kernel**2).sum() for kernel in clipped.values()))
    assert length <= 1.9 * STEP.lr * 1e-3 * 1.001  # Nesterov's first step is 1 + 0.9 of the gradient
    assert np.sqrt(sum((kernel**2).sum() for kernel in free.values())) > 10 * length


def test_lower_blocks_move_by_a_smaller_learning_rate() -> None:
    even = moves(STEP, part(8))
    decayed = moves(replace(STEP, layer_decay=0.25), part(8), (("conv",),))
    np.testing.assert_allclose(decayed["logits"], even["logits"], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(decayed["conv"], 0.25 * even["conv"], rtol=1e-3, atol=1e-8)


def test_the_weight_average_works_with_learning_rates_by_layer() -> None:
    plan = replace(STEP, epochs=15, ema=0.999)
    raw, averaged = moves(replace(plan, ema=0.0), part(8)), moves(plan, part(8))
    mixed = moves(replace(plan, layer_decay=0.5), part(8), (("conv",),))
    for found in (averaged, mixed):
        assert np.abs(found["conv"]).max() < 0.2 * np.abs(raw["conv"]).max()


def test_weights_of_classes_move_recall_to_the_small_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 36 + [1] * 4)
    np.testing.assert_allclose(multiclass.class_weights(labels, 2), [40 / 72, 40 / 8], rtol=1e-6)
    np.testing.assert_allclose(
        multiclass.class_weights(labels * 2, 3), [40 / 72, 1, 40 / 8], rtol=1e-6
    )  # 1 has no images
    pixels = rng.integers(100, 156, (40, 16, 16, 3), dtype=np.uint8)
    pixels[labels == 1] += 12  # a little brighter, and rare: to say 0 always is nearly right
    share = {}
    for balance in ("none", "weights", "sampling"):
        network = plain()
        plan = replace(STEP, epochs=15, balance=balance, lr=0.02)
        loop.fit(network, Part(pixels, labels), None, plan, Options("scratch"))
        share[balance] = loop.predict(network, pixels, 8)[labels == 1, 1].mean()
    assert share["none"] < 0.35
    assert share["weights"] > share["none"] + 0.1 and share["sampling"] > share["none"] + 0.1


def test_the_loss_weighs_classes_by_the_inverse_of_their_frequency() -> None:
    labels, targets, logits = np.array([0] * 36 + [1] * 4), np.eye(2, dtype="f"), np.array([[0, 0], [0, 2]], "f")
    even, weighted = (multiclass.loss(labels, 2, label_smoothing=0.0, balanced=each) for each in (False, True))
    losses = np.log([2, 1 + np.exp(-2)])
    assert float(even(targets, logits)) == pytest.approx(losses.mean())
    np.testing.assert_allclose(weighted(targets, logits), losses * [40 / 72, 40 / 8], rtol=1e-5)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_mixed_images_go_with_balance_and_learning_rates_by_layer(balance: str) -> None:
    plan = replace(STEP, epochs=4, mixup=0.4, cutmix=0.5, balance=balance, clip_norm=100.0)
    even = moves(plan, part(16))
    decayed = moves(replace(plan, layer_decay=1e-3), part(16), (("conv",),))
    for name in ("conv", "logits"):
        assert np.isfinite(even[name]).all() and np.abs(even[name]).max() > 1e-5
    assert np.abs(decayed["conv"]).max() < 0.01 * np.abs(even["conv"]).max()
    assert np.abs(decayed["logits"]).max() > 0.5 * np.abs(even["logits"]).max()


def test_without_better_validation_training_stops_and_the_best_weights_stay() -> None:
    validation = part(8, seed=1)
    plan = replace(PLAN, epochs=40, patience=2, lr=0.05)
    network = model()
    rows = loop.fit(network, part(16), validation, plan, Options("scratch"))
    assert len(rows) < 40
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in rows]
    assert scores.index(max(scores)) == len(rows) - 3
    logits = classifier.logits(network)
    logits.compile()
    loss, accuracy = multiclass.score(loop.predict(logits, validation.pixels, 8), validation.labels)
    assert (accuracy, -loss) == pytest.approx(max(scores), abs=1e-5)


def test_an_early_epoch_counts_only_if_it_is_better_by_more_than_chance() -> None:
    rows = [{"val_accuracy": accuracy, "val_loss": 0.4} for accuracy in (0.7, 0.88, 0.83)]
    assert loop.kept(rows, 42, multiclass) is rows[2]  # the standard error of 0.88 is 0.05 with 42 images
    assert loop.kept(rows, 420, multiclass) is rows[1]  # and 0.016 with ten times as many
    assert loop.kept(rows[:2], 42, multiclass) is rows[1]


def test_at_the_deadline_the_epoch_is_left_and_the_best_weights_stay() -> None:
    network = model()
    before = network.get_weights()
    assert loop.fit(network, part(32), part(8), PLAN, Options("scratch", deadline=0.0)) == []
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_loss_and_accuracy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.8, 0.2], [0.1, 0.9]]))
    loss, accuracy = multiclass.score(logits, np.array([0, 0, 0]))
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.8) + np.log(0.1)) / 3)
    assert accuracy == pytest.approx(2 / 3)
