"""The optimizers of `--optimizer`, against Keras's own and against hand calculations."""

import numpy as np
import pytest
from factories import recipe_of

from imgclf.settings.training import OPTIMIZERS
from imgclf.training import optimizers

import keras  # isort: skip  (imgclf chooses its backend first)

OWN = {
    "adamw": keras.optimizers.AdamW,
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "nadam": keras.optimizers.Nadam,
    "adagrad": keras.optimizers.Adagrad,
}


def stepped(optimizer, steps=2):
    """A weight matrix after steps with the gradients 1 and -2, from 1."""
    weights = keras.Variable(np.ones((1, 2), np.float32))
    for _ in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor(np.array([[1.0, -2.0]], np.float32))], [weights])
    return keras.ops.convert_to_numpy(weights)[0]


def of(name, **settings):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    return optimizers.with_rate(recipe_of(optimizer=name, **settings), 0.1, model)


def test_every_optimizer_is_tested():
    assert {*OWN, "sgd", "nesterov"} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OWN)
def test_an_optimizer_steps_as_keras_does(name):
    np.testing.assert_allclose(stepped(of(name)), stepped(OWN[name](0.1, weight_decay=0.0)), rtol=1e-6)


def test_adamw_decays_weights_as_keras_does():
    np.testing.assert_allclose(
        stepped(of("adamw", weight_decay=0.5)), stepped(keras.optimizers.AdamW(0.1, weight_decay=0.5)), rtol=1e-6
    )


@pytest.mark.parametrize(("name", "moved"), [("sgd", 0.1 * (1 + 1.9)), ("nesterov", 0.1 * (1.9 + 2.71))])
def test_sgd_has_momentum_and_nesterov_looks_ahead(name, moved):
    np.testing.assert_allclose(stepped(of(name)), [1 - moved, 1 + 2 * moved], rtol=1e-5)


def test_adam_does_not_decay_weights_unless_told_to():
    assert recipe_of(optimizer="adam", weight_decay=None).weight_decay == 0
    assert recipe_of(optimizer="adamw", weight_decay=None).weight_decay > 0
    assert recipe_of(optimizer="adam", weight_decay=0.3).weight_decay == 0.3
