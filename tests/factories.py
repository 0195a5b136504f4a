"""What several test modules build."""

from pathlib import Path

import numpy as np
from PIL import Image

from imgclf.models import classifier
from imgclf.settings import TrainConfig
from imgclf.training import recipe

import keras  # isort: skip  (imgclf chooses its backend first)
from keras import layers  # isort: skip

SIZE_PX = 16


def recipe_of(**settings: object) -> recipe.Recipe:
    """The recipe of some settings: by default for one of the networks here, three epochs of plain gradient descent."""
    plain = {
        "backbone": "small-cnn",
        "image_size": SIZE_PX,
        "epochs": 3,
        "batch_size": 8,
        "lr": 1e-2,
        "augment": "none",
    }
    off = {"warmup_epochs": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0, "ema": 0.0, "dropout": 0.0}
    return recipe.resolve(TrainConfig(**plain | off | settings))[0]  # type: ignore[arg-type]


def block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def residual(*, taps: bool = False) -> keras.Model:
    """A stem and two residual blocks, always from the same start; perhaps the first one joins the last map."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    x = layers.Conv2D(8, 3, 2, padding="same", name="stem")(x)
    one = block(x, "one")
    two = block(one, "two")
    if taps:
        two = layers.Concatenate(name="taps")([layers.Activation("linear", name="one_tap")(one), two])
    return classifier.build(keras.Model(pixels, two), 2)


def gray_image(path: Path, level: float, seed: int) -> None:
    """Write a gray image of 16 x 16 px of a brightness, 0 to 255, with noise that the seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-8, 8, (SIZE_PX, SIZE_PX, 3))
    Image.fromarray(np.clip(level + noise, 0, 255).astype(np.uint8)).save(path)


def tiny_backbone() -> keras.Model:
    """One convolution on pixels of 16 x 16 px, always from the same start."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE_PX, SIZE_PX, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, x, name="tiny")
