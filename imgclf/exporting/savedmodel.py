"""Write a classifier as a TensorFlow SavedModel that takes pixels or encoded images.

`serve_bytes` repeats `imgclf.data.images` with TensorFlow's operations. It gives the same pixels, to the last bit, for
JPEG (gray, CMYK, progressive), PNG (palette, alpha, 16 bits), WebP, BMP and opaque GIF, EXIF orientation included.
Where TensorFlow offers no way it differs: transparent pixels of a GIF are black instead of white; orientation that
stands only in XMP or in a PNG's text is not seen; BMP of 1, 4 or 16 bits, animated WebP without transparency, and
formats such as TIFF, AVIF and HEIC are refused. Of truncated files only JPEG is read where the rules allow it, and the
blocks around the cut may differ. One image that cannot be decoded fails its whole batch.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from imgclf import environment
from imgclf.data import images as decoder
from imgclf.errors import ImageError, MissingError
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.frameworks import plainly_named
from imgclf.settings import PERCENTILE, Decoding, Resize

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # noqa: E402

from imgclf.exporting import preprocessing  # noqa: E402

log = logging.getLogger("imgclf")

SERVING, SERVING_BYTES = "serving_default", "serve_bytes"

OPTIONS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
"""Nobody trains an exported model, and the gradient of swish cannot be saved once weights are constants."""

TIFF_BYTES = 1 << 16
"""EXIF orientation is looked for in this many bytes: the whole of what one JPEG segment can hold."""

ORIENTATION = 0x0112

PRECISION_BITS = 22
"""Of a weight in resizing, in Pillow: 32 less 8 for a pixel and 2 to spare."""


def trace(model: keras.Model, *, constant: bool = False, batch: int | None = None) -> Any:
    """Return the graph of a Keras model.

    Args:
        model: pixels float32 (n, s, s, 3) -> a dict of named outputs.
        constant: whether the weights are constants in it, which a converter need not look for.
        batch: the number of images; None for any.

    Returns:
        A tf.ConcreteFunction with the argument `pixels`.
    """

    values = [(variable, variable.numpy()) for variable in model.variables if constant]

    def call(pixels: Any) -> Any:
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in values]):
            return model(pixels, training=False)

    function = tf.function(call, autograph=False, jit_compile=False)
    with environment.silence_stderr_fd():
        return function.get_concrete_function(tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32, name="pixels"))


def named(graph: Any) -> Any:
    """Return what `trace` made of a model as a tf.function with its weights as constants and its outputs by name.

    Left as variables, the weights would be written and read as a checkpoint, which takes twice as long (MobileNetV2 to
    LiteRT on 2 cores: 4.3 s instead of 2.2 s).
    """
    constant = convert_variables_to_constants_v2(graph, lower_control_flow=False)

    @tf.function(autograph=False, jit_compile=False)
    def function(pixels: Any) -> Any:  # freezing forgets the outputs' names
        return tf.nest.pack_sequence_as(graph.structured_outputs, constant(pixels))

    return function


@contextlib.contextmanager
def frozen(graph: Any) -> Iterator[Path]:
    """Write the same as a SavedModel, which converters read, into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="imgclf-") as folder:
        signatures = {SERVING: named(graph).get_concrete_function(graph.structured_input_signature[0][0])}
        tf.saved_model.save(tf.Module(), folder, signatures, OPTIONS)
        yield Path(folder)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Without TensorFloat-32, in which NVIDIA GPUs round to 10 bits what a comparison needs in 23."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def write(folder: Path, model: keras.Model, graph: Any, facts: Artifact) -> None:
    """Write a SavedModel with two signatures.

    `serving_default` takes `pixels` float32 (n, s, s, 3), 0-255; `serve_bytes` takes `images`, strings (n,): encoded
    JPEG, PNG, GIF, BMP or WebP. Both give the model's outputs and `labels`, strings (n, classes). The second
    one is left out where it could not do the model's preprocessing exactly.

    Args:
        folder: where to write; it must not exist.
        model: the model itself, for its weights.
        graph: what `trace` made of the model.
    """
    lacking = preprocessing.lacking(facts.decoding.steps)
    if lacking:
        log.warning(
            "%s: takes pixels, not encoded images, since TensorFlow cannot do the step %s of --preprocess exactly. "
            "imgclf predict does it, and other programs have to.",
            folder.name,
            lacking[0],
        )
    size_px = model.input_shape[1]
    names = [label.encode("utf-8", "surrogateescape") for label in facts.labels]

    def serve(pixels: Any) -> dict[str, Any]:
        rows = tf.tile(tf.constant(names)[tf.newaxis], (tf.shape(pixels)[0], 1))
        return graph(pixels) | {"labels": rows}

    def serve_bytes(images: Any) -> dict[str, Any]:
        shape = tf.TensorSpec((size_px, size_px, 3), tf.float32)
        return serve(tf.map_fn(lambda one: load(one, size_px, facts.decoding), images, fn_output_signature=shape))

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # what is not tracked is not written
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signatures = {SERVING: _function(serve, tf.TensorSpec((None, size_px, size_px, 3), tf.float32, name="pixels"))}
        if not lacking:
            signatures[SERVING_BYTES] = _function(serve_bytes, tf.TensorSpec((None,), tf.string, name="images"))
        tf.saved_model.save(module, str(folder), signatures, OPTIONS)


def _function(function: Callable[..., Any], argument: Any) -> Any:
    return tf.function(function, autograph=False, jit_compile=False).get_concrete_function(argument)


def predict_bytes(folder: Path, images: Sequence[bytes], output: str = "probabilities") -> np.ndarray:
    """Ask a written SavedModel about encoded images; one of its outputs, float32 (n, classes)."""
    with environment.silence_stderr_fd(), plainly_named(folder) as plain:
        signature = tf.saved_model.load(str(plain)).signatures[SERVING_BYTES]
        return np.asarray(signature(images=tf.constant(list(images)))[output])


def reads(image: bytes) -> bool:
    """Whether `serve_bytes` is meant to see in this file what `imgclf.data.images` sees, by the file's header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoder.inspect(image)  # one cut short is decoded nearly, but not exactly, as Pillow does it
            with Image.open(io.BytesIO(image)) as opened:
                if opened.format == "BMP":
                    return int.from_bytes(image[28:30], "little") in (8, 24, 32)
                if opened.format == "GIF":
                    return "transparency" not in opened.info
                if opened.format == "WEBP":
                    return opened.mode == "RGBA" or not getattr(opened, "is_animated", False)
                return opened.format in ("JPEG", "MPO", "PNG")
        except (ImageError, MissingError, OSError, ValueError):
            return False


def load(contents: Any, size_px: int, rules: Decoding) -> Any:
    """In the graph: one encoded image, a scalar string, as the model's pixels, float32 (size_px, size_px, 3), 0-255."""
    return preprocessing.apply(resize(decode(contents, rules), size_px, rules.resize), rules.steps)


def decode(contents: Any, rules: Decoding = decoder.DEFAULT) -> Any:
    """In the graph: one encoded image, a scalar string, as upright RGB, uint8 (h, w, 3)."""

    def begins(magic: bytes, at: int = 0) -> Any:
        found = tf.strings.substr(contents, tf.minimum(at, tf.strings.length(contents)), len(magic))
        return tf.equal(found, magic)

    image = tf.case(
        [
            (begins(b"\xff\xd8\xff"), lambda: _decode_jpeg(contents, rules)),
            (begins(b"\x89PNG"), lambda: _decode_png(contents, rules)),
            (begins(b"BM"), lambda: _decode_bmp(contents)),
            (begins(b"RIFF") & begins(b"WEBP", 8), lambda: _decode_webp(contents)),
        ],
        # GIF; anything else gets TensorFlow's message about which formats it knows
        default=lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
    )
    image.set_shape((None, None, 3))
    return image


def _decode_jpeg(contents: Any, rules: Decoding) -> Any:
    image = tf.io.decode_jpeg(
        contents,
        channels=3,
        dct_method="INTEGER_ACCURATE",
        try_recover_truncated=rules.allow_truncated,
        acceptable_fraction=0.0 if rules.allow_truncated else 1.0,
    )
    before, tiff = _split(tf.strings.substr(contents, 0, 2 * TIFF_BYTES), b"Exif\0\0")
    is_segment = tf.equal(_tail(before, 4, 2), b"\xff\xe1")  # APP1, then two bytes of length
    return _turn_upright(image, tf.where(is_segment, _orientation(tiff), 1))


def _decode_png(contents: Any, rules: Decoding) -> Any:
    head = _head(contents, 26)
    depth, color = head[24], head[25]
    _, transparency = _split(contents, b"tRNS")
    image = tf.case(
        [
            (
                tf.equal(color, 0) & tf.equal(depth, 16),
                lambda: _from_sixteen_bits(tf.io.decode_png(contents, channels=1, dtype=tf.uint16), rules),
            ),
            (
                (color >= 4) | tf.not_equal(transparency, b""),  # asked without need, alpha is wrong below 8 bits
                lambda: _over_white(tf.io.decode_png(contents, channels=4)),
            ),
        ],
        default=lambda: tf.io.decode_png(contents, channels=3),
    )
    _, tiff = _split(contents, b"eXIf")
    return _turn_upright(image, _orientation(tiff))


def _from_sixteen_bits(gray: Any, rules: Decoding) -> Any:
    if rules.window is None:
        eight = tf.cast(gray, tf.int32) // 257
    else:
        low, high = _window(gray, rules)
        inside = tf.clip_by_value(tf.cast(gray, tf.float64), low, high)
        eight = tf.round((inside - low) * tf.math.divide_no_nan(tf.constant(255, tf.float64), high - low))
    return tf.repeat(tf.cast(eight, tf.uint8), 3, axis=2)  # (h, w, 1) -> (h, w, 3)


def _window(gray: Any, rules: Decoding) -> tuple[Any, Any]:
    """Return what becomes black and what white, float64, in stored units."""
    if rules.window != PERCENTILE:
        assert rules.bounds
        return tf.constant(rules.bounds[0], tf.float64), tf.constant(rules.bounds[1], tf.float64)
    ordered = tf.sort(tf.reshape(tf.cast(gray, tf.float64), [-1]))
    first = (tf.size(ordered) - 1) // 100
    return ordered[first], ordered[tf.size(ordered) - 1 - first]


def _decode_webp(contents: Any) -> Any:
    head = _head(contents, 21)
    animated = tf.equal(head[15], ord("X")) & tf.equal(tf.bitwise.bitwise_and(head[20], 2), 2)
    image = tf.cond(
        animated,  # with 0 channels, TensorFlow 2.21 writes beyond its memory for an animation without alpha
        lambda: tf.io.decode_image(contents, channels=4, expand_animations=False),
        lambda: tf.io.decode_image(contents, channels=0, expand_animations=False),
    )
    image = tf.cond(tf.equal(tf.shape(image)[2], 4), lambda: _over_white(image), lambda: image)
    _, chunk = _split(contents, b"EXIF")  # then four bytes of length
    tiff = tf.strings.substr(chunk, tf.minimum(4, tf.strings.length(chunk)), TIFF_BYTES)
    _, prefixed = _split(tiff, b"Exif\0\0")  # some writers repeat JPEG's prefix
    return _turn_upright(image, _orientation(tf.where(tf.equal(prefixed, b""), tiff, prefixed)))


def _decode_bmp(contents: Any) -> Any:
    image = tf.io.decode_bmp(contents, channels=3)
    head = _head(contents, 30)
    return tf.cond(tf.equal(head[28], 8), lambda: _from_palette(image[:, :, 0], contents, 14 + head[14]), lambda: image)


def _from_palette(indices: Any, contents: Any, palette_at: Any) -> Any:
    """TensorFlow gives the indices into a bitmap's palette as if they were gray."""
    raw = tf.io.decode_raw(tf.strings.substr(contents, palette_at, 4 * 256), tf.uint8)
    colors = tf.reshape(raw[: tf.size(raw) // 4 * 4], (-1, 4))  # blue, green, red, 0
    return tf.gather(colors[:, 2::-1], tf.cast(indices, tf.int32))


def _head(contents: Any, length: int) -> Any:
    """Return the first bytes as int32 (length,), with zeros after a shorter text."""
    raw = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, length), tf.uint8), tf.int32)
    return tf.pad(raw, [[0, length - tf.size(raw)]])


def _over_white(image: Any) -> Any:
    """RGBA uint8 (h, w, 4) laid over white, (h, w, 3); the integer arithmetic of Pillow's alpha_composite."""

    def blend() -> Any:
        wide = tf.cast(image, tf.int32)
        alpha = wide[:, :, 3:]
        sums = (wide[:, :, :3] * alpha + 255 * (255 - alpha)) * 128 + (0x80 << 7)
        return tf.cast(tf.bitwise.right_shift(sums + tf.bitwise.right_shift(sums, 8), 15), tf.uint8)

    return tf.cond(tf.reduce_all(tf.equal(image[:, :, 3], 255)), lambda: image[:, :, :3], blend)


def _split(text: Any, separator: bytes) -> tuple[Any, Any]:
    """Return what stands before and after the first separator; after is empty where there is none."""
    parts = tf.raw_ops.StringSplitV2(input=text[tf.newaxis], sep=separator, maxsplit=1).values
    parts = tf.concat([parts, [b"", b""]], axis=0)
    return parts[0], parts[1]


def _tail(text: Any, back: int, length: int) -> Any:
    size = tf.strings.length(text)
    return tf.strings.substr(text, tf.maximum(size - back, 0), length)


def _orientation(tiff: Any) -> Any:
    """Return the EXIF orientation, int32 1 to 8, in the first directory of a TIFF header; 1 where there is none.

    Source: TIFF 6.0, section 2; EXIF 2.32, 4.6.4.
    """
    raw = tf.cast(tf.io.decode_raw(tf.strings.substr(tiff, 0, TIFF_BYTES), tf.uint8), tf.int32)
    size = tf.size(raw)
    raw = tf.concat([raw, tf.zeros(16, tf.int32)], axis=0)
    magic = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(magic, b"II*\0")
    weights = tf.where(little, [1, 256], [256, 1])

    def short(at: Any) -> Any:
        return tf.reduce_sum(raw[at : at + 2] * weights)

    directory = tf.minimum(short(tf.where(little, 4, 6)), size)
    count = tf.clip_by_value(short(directory), 0, tf.maximum(size - directory - 2, 0) // 12)
    first = directory + 2
    entries = tf.reshape(raw[first : first + 12 * count], (-1, 12))  # tag 2, type 2, count 4, value 4 bytes
    tags = tf.reduce_sum(entries[:, :2] * weights, axis=1)
    values = tf.reduce_sum(entries[:, 8:10] * weights, axis=1)
    found = tf.reduce_max(tf.concat([tf.where(tf.equal(tags, ORIENTATION), values, 0), [0]], axis=0))
    is_tiff = little | tf.equal(magic, b"MM\0*")
    return tf.where(is_tiff & (found >= 1) & (found <= 8), found, 1)


def _turn_upright(image: Any, orientation: Any) -> Any:
    def one_of(*values: int) -> Any:
        return tf.reduce_any(tf.equal(orientation, values))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(one_of(2, 3, 6, 7), lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(one_of(3, 4, 7, 8), lambda: tf.reverse(image, [0]), lambda: image)


def resize(image: Any, size_px: int, mode: Resize) -> Any:
    """In the graph: `imgclf.data.images.resize` of uint8 (h, w, 3), as whole numbers in float32 (size_px, size_px, 3).

    The same to the last bit: tf.image.resize, in floating point and rounded once, gives another value in one of eight.
    """
    shape = tf.shape(image)[:2]  # h, w
    if mode == "crop":
        side = tf.reduce_min(shape)
        return _sample(image, tf.constant((size_px, size_px)), (shape - side) // 2, tf.stack([side, side]))
    if mode == "squash":
        return _sample(image, tf.constant((size_px, size_px)), tf.constant((0, 0)), shape)
    exact = tf.cast(shape, tf.float64) * (size_px / tf.reduce_max(shape))
    target = tf.maximum(1, tf.cast(tf.round(exact), tf.int32))
    fitted = _sample(image, target, tf.constant((0, 0)), shape)
    before = (size_px - target) // 2
    bars = tf.stack([before, size_px - target - before], axis=1)
    padded = tf.pad(fitted, tf.concat([bars, [[0, 0]]], axis=0))
    padded.set_shape((size_px, size_px, 3))
    return padded


def _sample(image: Any, target: Any, corner: Any, box: Any) -> Any:
    """Antialiased bilinear sampling of `box` pixels from `corner` on to `target`, all (y, x) int32.

    Rows and columns take turns, with whole numbers between, and in Pillow's order: by columns first where the height
    shrinks by more than twice as many pixels as the width.
    """

    def by_columns(pixels: Any) -> Any:
        return _resample(pixels, target[0], corner[0], box[0])  # (h, w, 3) -> (th, w, 3)

    def by_rows(pixels: Any) -> Any:
        turned = tf.transpose(pixels, (1, 0, 2))
        return tf.transpose(_resample(turned, target[1], corner[1], box[1]), (1, 0, 2))  # (h, w, 3) -> (h, tw, 3)

    shrinks = tf.shape(image)[:2] - target
    by_columns_first = (shrinks[0] > 0) & (shrinks[0] > 2 * shrinks[1])
    return tf.cond(by_columns_first, lambda: by_rows(by_columns(image)), lambda: by_columns(by_rows(image)))


def _resample(lines: Any, count: Any, corner: Any, length: Any) -> Any:
    """`count` lines of `length` ones from number `corner` on; whole numbers (n, m, 3) -> float32 (count, m, 3).

    The weights of a line are whole numbers that sum to about 2^22, so every sum is exact in 32 bits.

    Source: Pillow 13, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc.
    """
    shape = tf.shape(lines)
    scale = tf.cast(length, tf.float64) / tf.cast(count, tf.float64)
    support = tf.maximum(scale, 1.0)
    center = tf.cast(corner, tf.float64) + (tf.range(tf.cast(count, tf.float64), dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)  # (count,)
    last = tf.minimum(tf.cast(center + support + 0.5, tf.int32), shape[0])
    source = first[:, tf.newaxis] + tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)  # (count, taps)
    away = (tf.cast(source, tf.float64) - center[:, tf.newaxis] + 0.5) * (1.0 / support)
    weights = tf.where(source < last[:, tf.newaxis], tf.maximum(1.0 - tf.abs(away), 0.0), 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    whole = tf.cast(weights * 2**PRECISION_BITS + 0.5, tf.int32)
    places = tf.where(whole > 0)  # (k, 2): line, tap
    matrix = tf.SparseTensor(
        tf.stack([places[:, 0], tf.cast(tf.gather_nd(source, places), tf.int64)], axis=1),
        tf.gather_nd(whole, places),
        tf.cast(tf.stack([count, shape[0]]), tf.int64),
    )
    flat = tf.reshape(tf.cast(lines, tf.int32), (shape[0], -1))
    sums = tf.sparse.sparse_dense_matmul(matrix, flat) + 2 ** (PRECISION_BITS - 1)
    return tf.cast(tf.reshape(tf.bitwise.right_shift(sums, PRECISION_BITS), (count, shape[1], 3)), tf.float32)
