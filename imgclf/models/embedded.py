"""The backbone of this package: small enough to ship, built for the CPU.

A residual network of regular 3x3 and 1x1 convolutions, which oneDNN and XNNPACK run well on a CPU: a stride-2 stem, two
stages of basic blocks (He et al. 2016, arXiv:1512.03385), one of bottlenecks. A block that shrinks its map averages
before the 1x1 shortcut, so that no activation is thrown away ("ResNet-D", He et al. 2019, arXiv:1812.01187).
"""

import hashlib
from pathlib import Path

from imgclf import environment
from imgclf.errors import MissingError
from imgclf.models import backbones
from imgclf.models.whitening import Whitening

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

MEAN = (124.0, 116.0, 104.0)  # of ImageNet photographs, 0-255, RGB
DEVIATION = 58.0


WEIGHTS = Path(__file__).parent / "weights" / "embedded.npz"
"""Pretrained weights, 16 bits; `embedded.md` beside it is their model card."""

SHA256 = "a628b0abcc1e33d7ba2824d8a454bb50f33995e23d6c6e8149c27d7565b1bb78"


WHITENING = WEIGHTS.with_name("embedded-whitening.npz")
"""That of its features of pre-training images, two scales and all (tests/benchmarks/whitening.py)."""

WHITENING_SHA256 = "716668b3d4896645b4a1adcadee355050afb3949fa7a429cff1b7d46fe6a36d3"


def load_weights(model: keras.Model) -> None:
    """Fill the network with the weights of the package.

    Raises:
        MissingError: if the file is not as it was shipped.
    """
    _read(WEIGHTS, SHA256)
    backbones.load_weights(model, WEIGHTS)


def whitening() -> Whitening:
    """What a head with a penalty should see of a classifier's embedding with these weights.

    Raises:
        MissingError: if the file is not as it was shipped.
    """
    return Whitening.from_bytes(_read(WHITENING, WHITENING_SHA256))


def _read(file: Path, sha256: str) -> bytes:
    advice = "Install imgclf anew: pip install --force-reinstall --no-deps imgclf."
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MissingError(f"{file}: the embedded weights cannot be read ({error.strerror}). {advice}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise MissingError(
            f"{file}: the embedded weights are damaged: expected SHA-256 {sha256[:12]}..., found {found[:12]}... "
            f"({len(content):,} bytes). {advice}"
        )
    return content


def build(image_size: int | None = None) -> keras.Model:
    """The network without weights: pixels 0-255 (n, s, s, 3) -> feature map (n, s/16, s/16, 1184).

    Fully convolutional: any s from 32 px works, 64 to 256 px are sensible. The map holds the last map and, below it,
    those of two earlier blocks: what they still know of colour and texture helps a probe on other images than those
    that the network was trained on (tests/benchmarks/features.py). A classifier shows it every image at two sizes.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    x = layers.Rescaling(1 / DEVIATION, [-m / DEVIATION for m in MEAN], name="rescale")(pixels)
    x = _conv(x, 32, 3, 2, "stem_1")  # (n, s, s, 3) -> (n, s/2, s/2, 32)
    x = _conv(x, 80, 3, 2, "stem_2")  # -> (n, s/4, s/4, 80)
    x = _basic(x, 80, 1, "stage_1_a")
    x = _basic(x, 160, 2, "stage_2_a")  # -> (n, s/8, s/8, 160)
    early = _basic(x, 160, 1, "stage_2_b")
    middle = _bottleneck(early, 512, 256, 2, "stage_3_a")  # -> (n, s/16, s/16, 512)
    last = _bottleneck(middle, 512, 256, 1, "stage_3_b")
    small = layers.AveragePooling2D(2, padding="same", name="early_pool")(early)  # -> (n, s/16, s/16, 160)
    return keras.Model(pixels, layers.Concatenate(name="stages")([small, middle, last]), name="embedded")


def _conv(
    x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str, relu: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _shortcut(x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(x)
    return _conv(x, width, 1, 1, f"{name}_shortcut", relu=False) if x.shape[-1] != width else x


def _basic(x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
    y = _conv(x, width, 3, stride, f"{name}_1")
    y = _conv(y, width, 3, 1, f"{name}_2", relu=False)
    x = layers.Add(name=f"{name}_add")([_shortcut(x, width, stride, name), y])
    return layers.ReLU(name=f"{name}_out")(x)


def _bottleneck(x: keras.KerasTensor, width: int, inner: int, stride: int, name: str) -> keras.KerasTensor:
    y = _conv(x, inner, 1, 1, f"{name}_1")
    y = _conv(y, inner, 3, stride, f"{name}_2")
    y = _conv(y, width, 1, 1, f"{name}_3", relu=False)
    x = layers.Add(name=f"{name}_add")([_shortcut(x, width, stride, name), y])
    return layers.ReLU(name=f"{name}_out")(x)
