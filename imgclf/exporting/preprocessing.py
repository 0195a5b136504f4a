"""Steps of `--preprocess` with TensorFlow's operations, for graphs that take encoded images.

Those here give the pixels of `data.preprocessing` to the last bit. The others are not here: `sharpen`, `jpeg`, and
`autocontrast` with a value, which rest on arithmetic of Pillow and libjpeg that TensorFlow does not have.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from imgclf import environment
from imgclf.settings.preprocessing import Step

environment.prepare_keras()

import tensorflow as tf  # noqa: E402  (after prepare_keras, as all that comes with Keras)

_LEVELS = np.arange(256, dtype=np.uint8)


def lacking(steps: Sequence[Step]) -> list[str]:
    """Return the names of the steps that cannot be done exactly."""
    return [step.name for step in steps if step.name not in _STEPS or (step.name == "autocontrast" and step.value)]


def apply(pixels: Any, steps: Sequence[Step]) -> Any:
    """In the graph: steps on one image, float32 (s, s, 3) of whole numbers 0-255; the same again."""
    if not steps:
        return pixels
    image = tf.cast(pixels, tf.int32)
    for step in steps:
        image = _STEPS[step.name](image, step.value)
    return tf.cast(image, tf.float32)


def _luma(image: Any) -> Any:
    """(h, w, 3) -> (h, w), in the fixed-point arithmetic of Pillow."""
    weighted = tf.reduce_sum(image * tf.constant([19595, 38470, 7471]), axis=-1)
    return tf.bitwise.right_shift(weighted + 0x8000, 16)


def _three(gray: Any) -> Any:
    return tf.repeat(gray[..., tf.newaxis], 3, axis=-1)


def _counts(values: Any) -> Any:
    return tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)


def _by_channel(image: Any, table_of: Callable[[Any], Any]) -> Any:
    """Look each channel up in a table int32 (256,), which its counts give."""
    channels = tf.unstack(image, axis=-1)
    return tf.stack([tf.gather(table_of(_counts(each)), each) for each in channels], axis=-1)


def _stretched(counts: Any) -> Any:
    known = tf.where(counts > 0)[:, 0]
    low, high = tf.cast(known[0], tf.float64), tf.cast(known[-1], tf.float64)
    scale = 255 / tf.maximum(high - low, 1)
    levels = tf.range(256, dtype=tf.float64)
    found = tf.cast(tf.clip_by_value(levels * scale - low * scale, 0, 255), tf.int32)
    return tf.where(high > low, found, tf.range(256))


def _equalized(counts: Any) -> Any:
    last = counts[tf.where(counts > 0)[-1, 0]]
    step = (tf.reduce_sum(counts) - last) // 255
    found = (step // 2 + tf.cumsum(counts, exclusive=True)) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.minimum(found, 255), tf.range(256))


def _brighter(image: Any, factor: float) -> Any:
    table = np.asarray(ImageEnhance.Brightness(Image.fromarray(_LEVELS[None])).enhance(factor))[0]
    return tf.gather(tf.constant(table, tf.int32), image)


def _contrasted(image: Any, factor: float) -> Any:
    means, levels = np.meshgrid(_LEVELS, _LEVELS, indexing="ij")
    table = np.asarray(Image.blend(Image.fromarray(means), Image.fromarray(levels), factor))
    gray = tf.cast(_luma(image), tf.float64)
    mean = tf.cast(tf.reduce_sum(gray) / tf.cast(tf.size(gray), tf.float64) + 0.5, tf.int32)
    return tf.gather(tf.constant(table, tf.int32)[mean], image)


def _expanded(image: Any, by: int) -> Any:
    """(h, w, c) with its border repeated."""
    for axis in (0, 1):
        size = tf.shape(image)[axis]
        image = tf.gather(image, tf.clip_by_value(tf.range(-by, size + by), 0, size - 1), axis=axis)
    return image


def _shifted(image: Any, row: int, column: int, around: int) -> Any:
    """Return the part of an expanded image that lies this far off the middle, in pixels."""
    height, width = tf.shape(image)[0] - 2 * around, tf.shape(image)[1] - 2 * around
    return image[around + row : around + row + height, around + column : around + column + width]


def _median(image: Any, size: float) -> Any:
    side = round(size)
    wide, near = _expanded(image, side // 2), range(-(side // 2), side // 2 + 1)
    every = tf.stack([_shifted(wide, row, column, side // 2) for row in near for column in near], axis=-1)
    return tf.sort(every, axis=-1)[..., side * side // 2]


def _most(image: Any, size: float) -> Any:
    pooled = tf.nn.max_pool2d(tf.cast(image, tf.float32)[tf.newaxis], round(size), 1, "SAME")[0]
    return tf.cast(pooled, tf.int32)


def _least(image: Any, size: float) -> Any:
    return 255 - _most(255 - image, size)


def _threshold(image: Any, level: float) -> Any:
    gray = _luma(image)
    limit = tf.cast(_otsu(gray), tf.float64) if math.isnan(level) else tf.constant(level, tf.float64)
    return _three(tf.where(tf.cast(gray, tf.float64) > limit, 255, 0))


def _otsu(gray: Any) -> Any:
    """See `data.preprocessing.otsu`."""
    counts = tf.cast(_counts(gray), tf.float64)
    dark, total = tf.cumsum(counts), tf.cumsum(counts * tf.range(256, dtype=tf.float64))
    below = dark * (dark[-1] - dark)
    between = tf.math.divide_no_nan(tf.square(total[-1] * dark / dark[-1] - total), below)
    return tf.argmax(between[:-1])


def _edges(image: Any, _: float) -> Any:
    wide = _expanded(_luma(image)[..., tf.newaxis], 1)
    at = partial(_shifted, wide, around=1)
    right = sum(weight * (at(row, 1) - at(row, -1)) for row, weight in ((-1, 1), (0, 2), (1, 1)))
    down = sum(weight * (at(1, column) - at(-1, column)) for column, weight in ((-1, 1), (0, 2), (1, 1)))
    length = tf.sqrt(tf.cast(tf.square(right) + tf.square(down), tf.float64))
    return tf.repeat(tf.cast(tf.minimum(tf.round(length / 4), 255), tf.int32), 3, axis=-1)


_STEPS: dict[str, Callable[[Any, float], Any]] = {
    "autocontrast": lambda image, _: _by_channel(image, _stretched),
    "equalize": lambda image, _: _by_channel(image, _equalized),
    "brightness": _brighter,
    "contrast": _contrasted,
    "denoise": _median,
    "gray": lambda image, _: _three(_luma(image)),
    "threshold": _threshold,
    "erode": _least,
    "dilate": _most,
    "open": lambda image, size: _most(_least(image, size), size),
    "close": lambda image, size: _least(_most(image, size), size),
    "edges": _edges,
}
