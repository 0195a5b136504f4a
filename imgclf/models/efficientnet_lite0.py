"""EfficientNet-Lite0 with ImageNet-1k weights: the default backbone, which comes with imgclf.

EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6 for swish, as Google
released it for CPUs, mobile devices and int8 arithmetic:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

import hashlib
from pathlib import Path

from imgclf import environment
from imgclf.errors import MissingError
from imgclf.models import backbones

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
from keras import layers  # noqa: E402

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet-lite0.npz"
"""Backbone and ImageNet head as float16; `efficientnet-lite0.md` beside it is the model card."""

SHA256 = "bc9fded78269532c4c395a48a29bff9099594921fcf970233304bb8894b30677"

LABELS = WEIGHTS.with_name("imagenet-labels.txt")
"""ImageNet's 1,000 classes in the order of the outputs, one per line: WordNet number, tab, name. Where two classes have
one name (crane, maillot), the number is part of it."""

IMAGE_SIZE = 224
CLASSES = 1000
TAPS = (8, 11, 15, 16)
"""Blocks whose outputs join the last map in the features: a probe on all of them errs less (the model card)."""

_STAGES = (
    # kernel, stride, expansion, width, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def build(image_size: int | None = None, *, taps: bool = True) -> keras.Model:
    """Return the network without weights: pixels 0-255 (n, s, s, 3) -> feature map (n, s/32, s/32, 1984 or 1280).

    Args:
        image_size: s in px; None leaves it open. Fully convolutional; trained at 224 px.
        taps: whether the map also holds the outputs of the blocks in TAPS, averaged down to its resolution, so that a
            linear head on the averages of the map stays one on each of them.
    """
    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    # always in float32: under mixed precision, 16 bits would round the pixels
    x = layers.Rescaling(1 / 128, -127 / 128, dtype="float32", name="rescale")(pixels)
    x = _conv(x, 32, 3, 2, "stem")  # (n, s, s, 3) -> (n, s/2, s/2, 32)
    outputs: dict[int, keras.KerasTensor] = {}
    for kernel, stride, expansion, width, count in _STAGES:
        for step in range(count):
            number = len(outputs) + 1
            x = _block(x, kernel, stride if step == 0 else 1, expansion, width, f"block_{number}")
            outputs[number] = x
    last = _conv(x, 1280, 1, 1, "top")  # -> (n, s/32, s/32, 1280)
    if taps:
        # blocks up to the sixth stage have twice the resolution of the last map
        halved = {n: layers.AveragePooling2D(2, padding="same", name=f"block_{n}_pool")(outputs[n]) for n in (8, 11)}
        last = layers.Concatenate(name="taps")([*({**outputs, **halved}[n] for n in TAPS), last])
    return keras.Model(pixels, last, name="efficientnet-lite0")


def build_with_top(image_size: int | None = None, *, weights: bool = True) -> keras.Model:
    """Return the whole network: pixels 0-255 (n, s, s, 3) -> ImageNet probabilities (n, 1000).

    Args:
        image_size: s in px; None is 224.
        weights: whether to fill it with its weights.

    Raises:
        MissingError: if a file is not as it was shipped.
    """
    backbone = build(image_size or IMAGE_SIZE, taps=False)
    x = layers.GlobalAveragePooling2D(name="average_pool")(backbone.output)  # (n, 7, 7, 1280) -> (n, 1280)
    x = layers.Dense(CLASSES, activation="softmax", name="logits")(x)
    model = keras.Model(backbone.input, x, name=backbone.name)
    if weights:
        load_weights(model)
    return model


def load_weights(model: keras.Model) -> None:
    """Fill the network, or a classifier of ImageNet's classes on it, with the weights of the package.

    Raises:
        MissingError: if the file is not as it was shipped.
    """
    advice = "Reinstall imgclf: pip install --force-reinstall --no-deps imgclf."
    try:
        content = WEIGHTS.read_bytes()
    except OSError as error:
        raise MissingError(f"{WEIGHTS}: the bundled weights cannot be read ({error.strerror}). {advice}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise MissingError(
            f"{WEIGHTS}: the bundled weights are damaged: expected SHA-256 {SHA256[:12]}..., found {found[:12]}... "
            f"({len(content):,} bytes). {advice}"
        )
    backbones.load_weights(model, WEIGHTS)


def imagenet_labels() -> list[str]:
    """ImageNet's 1,000 class names in the order of the outputs."""
    return [line.split("\t")[1] for line in LABELS.read_text(encoding="utf-8").splitlines()]


def _conv(
    x: keras.KerasTensor, width: int, kernel: int, stride: int, name: str, relu: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name, relu)


def _norm(x: keras.KerasTensor, name: str, relu: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _block(x: keras.KerasTensor, kernel: int, stride: int, expansion: int, width: int, name: str) -> keras.KerasTensor:
    """Return an inverted residual: widen, convolve each channel, narrow (Sandler et al. 2018, arXiv:1801.04381)."""
    y = _conv(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand") if expansion > 1 else x
    y = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(y)
    y = _norm(y, f"{name}_depthwise")
    y = _conv(y, width, 1, 1, f"{name}_project", relu=False)
    if stride == 1 and x.shape[-1] == width:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y
