"""Small networks to train from scratch."""

from imgclf import environment

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402


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
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(pixels, x, name="small-cnn")
