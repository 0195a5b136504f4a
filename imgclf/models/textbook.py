"""Networks of textbooks, built as their papers describe them, to train from scratch.

Each ends in the vector before its last layer, which is the classifier's head.
"""

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

from imgclf.errors import UsageError  # noqa: E402


def mlp(image_size: int) -> keras.Model:
    """Return a multilayer perceptron on all pixels: pixels 0-255 (n, s, s, 3) -> (n, 128).

    With the number of parameters of its first layer, 3 s^2 weights for each unit, it shows what convolutions save.
    """
    pixels, x = _pixels(image_size)
    x = layers.Flatten(name="flatten")(x)
    for width in (256, 128):
        x = layers.Dense(width, activation="relu", name=f"dense_{width}")(x)
    return keras.Model(pixels, x, name="mlp")


def lenet5(image_size: int) -> keras.Model:
    """LeNet-5 on the mean of the channels: pixels 0-255 (n, s, s, 3) -> (n, 84).

    In its modern form: average pooling without weights, full connections between the maps, softmax for radial basis
    functions. At 32 px and with 10 classes it has 61,706 parameters.

    Source: LeCun et al. 1998, doi:10.1109/5.726791, section II B.
    """
    pixels, x = _pixels(image_size)
    x = layers.Permute((3, 1, 2), name="channels_first")(x)  # -> (n, 3, s, s), pooled over its first axis
    x = layers.AveragePooling2D((3, 1), name="gray")(x)
    x = layers.Reshape((image_size, image_size, 1), name="c0")(x)
    for name, width in (("1", 6), ("2", 16)):
        x = layers.Conv2D(width, 5, activation="tanh", name=f"c{name}")(x)
        x = layers.AveragePooling2D(2, name=f"s{name}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name, width in (("f5", 120), ("f6", 84)):
        x = layers.Dense(width, activation="tanh", name=name)(x)
    return keras.Model(pixels, x, name="lenet5")


def alexnet(image_size: int) -> keras.Model:
    """AlexNet in its two groups: pixels 0-255 (n, s, s, 3) -> (n, 4096).

    The groups are two towers that see each other's maps in the third convolution alone. Local response normalization,
    which has no weights, is left out. At 227 px and with 1,000 classes it has 60,965,224 parameters.

    Source: Krizhevsky et al. 2012, doi:10.1145/3065386.
    """
    pixels, x = _pixels(image_size)
    towers = [layers.Conv2D(48, 11, 4, activation="relu", name=f"conv1_{tower}")(x) for tower in "ab"]
    towers = [layers.MaxPooling2D(3, 2, name=f"pool1_{t}")(y) for t, y in zip("ab", towers, strict=True)]
    towers = _towers(towers, 128, 5, "conv2")
    towers = [layers.MaxPooling2D(3, 2, name=f"pool2_{t}")(y) for t, y in zip("ab", towers, strict=True)]
    both = layers.Concatenate(name="both")(towers)
    towers = [layers.Conv2D(192, 3, padding="same", activation="relu", name=f"conv3_{t}")(both) for t in "ab"]
    towers = _towers(_towers(towers, 192, 3, "conv4"), 128, 3, "conv5")
    towers = [layers.MaxPooling2D(3, 2, name=f"pool5_{t}")(y) for t, y in zip("ab", towers, strict=True)]
    x = layers.Flatten(name="flatten")(layers.Concatenate(name="joined")(towers))
    for place, name in enumerate(("fc6", "fc7")):
        x = layers.Dropout(0.5, seed=place, name=f"{name}_dropout")(x)
        x = layers.Dense(4096, activation="relu", name=name)(x)
    return keras.Model(pixels, x, name="alexnet")


def googlenet(image_size: int) -> keras.Model:
    """GoogLeNet: pixels 0-255 (n, s, s, 3) -> map (n, s / 32, s / 32, 1024).

    Local response normalization, which has no weights, is left out. At 224 px and with 1,000 classes it has 6,998,552
    parameters, without the heads at AUXILIARY.

    Source: Szegedy et al. 2014, arXiv:1409.4842, table 1.
    """
    pixels, x = _pixels(image_size)
    x = _convolution(x, 64, 7, "conv1", strides=2)
    x = layers.MaxPooling2D(3, 2, "same", name="pool1")(x)
    x = _convolution(x, 64, 1, "conv2_reduce")
    x = _convolution(x, 192, 3, "conv2")
    x = layers.MaxPooling2D(3, 2, "same", name="pool2")(x)
    for name, widths in INCEPTIONS.items():
        if name in ("4a", "5a"):
            x = layers.MaxPooling2D(3, 2, "same", name=f"pool{int(name[0]) - 1}")(x)
        x = _inception(x, widths, f"inception_{name}")
    return keras.Model(pixels, x, name="googlenet")


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Modules of GoogLeNet: filters of 1x1; of 1x1 and 3x3 behind it; of 1x1 and 5x5 behind it; and behind the pooling."""


NETWORKS = {"mlp": mlp, "lenet5": lenet5, "alexnet": alexnet, "googlenet": googlenet}
"""By the name in the catalog."""

AUXILIARY = {"googlenet": ("inception_4a", "inception_4d")}
"""The layers at which a network has auxiliary heads while it is trained from random weights."""


def build(name: str, image_size: int | None, smallest_px: int) -> keras.Model:
    """Build one of NETWORKS.

    Raises:
        UsageError: if it is asked for an open size, or one at which a map would be empty.
    """
    if image_size is None or image_size < smallest_px:
        found = "several sizes" if image_size is None else f"{image_size} px, at which a map would have no pixel left"
        raise UsageError(f"--image-size: {name} takes one size of at least {smallest_px} px, found {found}.")
    return NETWORKS[name](image_size)


def _pixels(image_size: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    return pixels, layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)


def _towers(inputs: list[keras.KerasTensor], width: int, kernel: int, name: str) -> list[keras.KerasTensor]:
    return [
        layers.Conv2D(width, kernel, padding="same", activation="relu", name=f"{name}_{tower}")(x)
        for tower, x in zip("ab", inputs, strict=True)
    ]


def _convolution(x: keras.KerasTensor, width: int, kernel: int, name: str, *, strides: int = 1) -> keras.KerasTensor:
    return layers.Conv2D(width, kernel, strides, "same", activation="relu", kernel_initializer="he_normal", name=name)(
        x
    )


def _inception(x: keras.KerasTensor, widths: tuple[int, ...], name: str) -> keras.KerasTensor:
    """Convolutions of three sizes and a pooling side by side: (n, h, w, d) -> (n, h, w, sum of their filters)."""
    one, reduce3, three, reduce5, five, pooled = widths
    pool = layers.MaxPooling2D(3, 1, "same", name=f"{name}_pool")(x)
    paths = [
        _convolution(x, one, 1, f"{name}_1x1"),
        _convolution(_convolution(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _convolution(_convolution(x, reduce5, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _convolution(pool, pooled, 1, f"{name}_pool_project"),
    ]
    return layers.Concatenate(name=name)(paths)
