"""Small networks to train from scratch."""

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

from imgclf.errors import UsageError  # noqa: E402
from imgclf.settings.small_cnn import SMALL_CNN, SmallCnn  # noqa: E402

_MOMENTUM = 0.9
"""Momentum of the statistics of batch normalization: Keras's 0.99 takes more steps than a small data set has."""


def small_cnn(image_size: int | None = None) -> keras.Model:
    """Four stages of two 3x3 convolutions, each halving the map: pixels 0-255 (n, s, s, 3) -> (n, s/16, s/16, 192).

    Batch normalization after each convolution (Ioffe and Szegedy 2015, arXiv:1502.03167).
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    for stage, width in enumerate((24, 48, 96, 192), start=1):
        for step, stride in ((1, 2), (2, 1)):
            name = f"stage_{stage}_{step}"
            x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
            x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(pixels, x, name=SMALL_CNN)


def stack(settings: SmallCnn, image_size: int | None) -> keras.Model:
    """One block of convolution, normalization, activation and pooling for each number of filters, then dense layers.

    Returns:
        pixels 0-255 (n, s, s, 3) -> (n, h, w, d), or (n, d) where the last map is flattened or dense layers follow it.

    Raises:
        UsageError: if a map becomes smaller than the next kernel, or the map of an open size is to be flattened.
    """
    if image_size is not None:
        shapes(settings, image_size)
    elif settings.flatten:
        raise UsageError("--flatten: expected one --image-size, found several sizes. Use --global-pooling.")
    normalizes = settings.batch_norm_layers != "off"
    activation, padding = settings.activation or "relu", settings.padding or "same"
    pool = layers.AveragePooling2D if settings.pooling == "average" else layers.MaxPooling2D
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    for place, width in enumerate(settings.widths, start=1):
        kernel, stride = settings.kernel_size or 3, settings.stride or 1
        conv = layers.Conv2D(width, kernel, stride, padding=padding, use_bias=not normalizes, name=f"conv_{place}")
        x = conv(x)
        if normalizes:
            x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"norm_{place}")(x)
        x = layers.Activation(activation, name=f"activation_{place}")(x)
        x = pool(settings.pool_size or 2, name=f"pool_{place}")(x)
    if settings.flatten:
        x = layers.Flatten(name="flatten")(x)
    elif settings.hidden:
        x = layers.GlobalAveragePooling2D(name="average")(x)
    for place, units in enumerate(settings.hidden, start=1):
        x = layers.Dense(units, activation=activation, name=f"dense_{place}")(x)
    return keras.Model(pixels, x, name=SMALL_CNN)


def shapes(settings: SmallCnn, image_size: int) -> list[tuple[int, int]]:
    """Side and channels of every map: the image's, then those after each convolution and each pooling.

    Raises:
        UsageError: if one becomes smaller than the next kernel, with all shapes up to it.
    """
    kernel, stride, pool = settings.kernel_size or 3, settings.stride or 1, settings.pool_size or 2
    found = [(image_size, 3)]
    for place, width in enumerate(settings.widths, start=1):
        side = found[-1][0]
        if settings.padding == "valid":
            _check_side(found, kernel, f"kernel of convolution {place}", "--padding same, a smaller --kernel-size")
            side = (side - kernel) // stride + 1
        else:
            side = -(-side // stride)
        found.append((side, width))
        _check_side(found, pool, f"pooling of block {place}", "a smaller --pool-size or --stride")
        found.append((side // pool, width))
    return found


def _check_side(found: list[tuple[int, int]], smallest: int, what: str, advice: str) -> None:
    if found[-1][0] < smallest:
        chain = " -> ".join(f"{side}x{side}x{channels}" for side, channels in found)
        raise UsageError(
            f"{SMALL_CNN}: the {what} is {smallest}x{smallest}, larger than its map: {chain}. Use {advice}, fewer "
            f"--filters, or an --image-size above {found[0][0]}."
        )
