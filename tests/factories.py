"""What several test modules build."""

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
