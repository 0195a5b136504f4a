"""Convolve one image with one kernel, and show the arithmetic: a layer of a network by hand."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import storage
from imgclf.data import images
from imgclf.errors import DatasetError, ImageError, UsageError
from imgclf.settings.explanation import LARGEST_NUMBER, ConvolveConfig

TABLES = (".csv", ".tsv", ".txt")
"""Extensions of files of numbers."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Convolution:
    """An image, a kernel, and what the one makes of the other.

    Args:
        name: the image's file name; "" for an array.
        image: float64 (h, w), the values that were convolved.
        kernel: float64 (kh, kw), turned by 180 degrees where the settings flip it.
        feature_map: float64 (rows, columns), after the activation.
        pooled: float64, the feature map after pooling; None without.
        before: zeros above and to the left of the image.
        after: zeros below and to the right.
        place: row and column of the feature map whose arithmetic is written out.
        settings: how it was convolved.
        drawing: the PNG file with all of them; None where none was asked for.
    """

    name: str
    image: Array
    kernel: Array
    feature_map: Array
    pooled: Array | None
    before: tuple[int, int]
    after: tuple[int, int]
    place: tuple[int, int]
    settings: ConvolveConfig
    drawing: Path | None = None

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the image under the top left of the kernel; negative where that lies on the padding."""
        (row, column), stride = self.place, self.settings.stride
        return row * stride - self.before[0], column * stride - self.before[1]

    @property
    def window(self) -> Array:
        """float64 (kh, kw), what is under the kernel; 0 where that lies on the padding."""
        (row, column), (high, wide) = self.corner, self.kernel.shape
        padded = np.pad(self.image, list(zip(self.before, self.after, strict=True)))
        row, column = row + self.before[0], column + self.before[1]
        return padded[row : row + high, column : column + wide]

    @property
    def summary(self) -> str:
        """What was done in words and numbers: channel, sizes, and one place in full."""
        config, (row, column), (top, left) = self.settings, self.place, self.corner
        lines = []
        if not self.name.lower().endswith(TABLES):
            names = zip(config.weights, ("red", "green", "blue"), strict=True)
            lines.append("image = " + " + ".join(f"{text(weight)} {name}" for weight, name in names if weight))
        lines += [f"feature map: {size(self.feature_map)}", self.sizes]
        if self.pooled is not None:
            lines.append(f"after {config.pooling} pooling: {size(self.pooled)}")
        lines += [
            f"row {row}, column {column} of the feature map, from row {top}, column {left} of the image on:",
            self.arithmetic,
        ]
        return "\n".join(lines)

    @property
    def sizes(self) -> str:
        """Where the size of the feature map comes from, in one line for each axis."""
        lines = []
        for axis, name in enumerate(("rows", "columns")):
            length, kernel, stride = self.image.shape[axis], self.kernel.shape[axis], self.settings.stride
            padding = self.before[axis] + self.after[axis]
            exact = (length + padding - kernel) % stride == 0
            lines.append(
                f"{name}: ({length} + {padding} - {kernel}) / {stride} + 1 = {self.feature_map.shape[axis]}"
                + ("" if exact else ", rounded down")
            )
        return "\n".join(lines)

    @property
    def arithmetic(self) -> str:
        """The sum of products at `place`, one line for each row of the kernel."""
        products = [
            " + ".join(f"{text(pixel)} x {_signed(weight)}" for pixel, weight in zip(*pair, strict=True))
            for pair in zip(self.window, self.kernel, strict=True)
        ]
        total = float((self.window * self.kernel).sum())
        lines = [("  " if number == 0 else "+ ") + line for number, line in enumerate(products)] + [f"= {text(total)}"]
        if self.settings.relu and total < 0:
            lines.append("ReLU: 0")
        return "\n".join(lines)

    def to_dict(self, *, values: bool = False) -> dict[str, Any]:
        """Return all of it as JSON.

        Args:
            values: whether to include the numbers of the image and of the feature map.
        """

        def about(array: Array) -> dict[str, Any]:
            found = {"rows": array.shape[0], "columns": array.shape[1], "min": array.min(), "max": array.max()}
            return {**found, "values": array.tolist()} if values else found

        return {
            "path": self.name,
            "image": about(self.image),
            "channel_weights": dict(zip(("red", "green", "blue"), self.settings.weights, strict=True)),
            "kernel": self.kernel.tolist(),
            "stride": self.settings.stride,
            "padding": {"before": list(self.before), "after": list(self.after)},
            "feature_map": about(self.feature_map),
            "pooled": None if self.pooled is None else about(self.pooled),
            "place": list(self.place),
            "value": float(self.feature_map[self.place]),
            "arithmetic": self.arithmetic,
            "drawing": None if self.drawing is None else str(self.drawing),
        }


def text(value: float) -> str:
    """Return a number with at most four digits after the point, without trailing zeros."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if round(value, 4) else "0"


def _signed(value: float) -> str:
    return f"({text(value)})" if value < 0 else text(value)


def convolve(
    image: Path | str | Array, config: ConvolveConfig | None = None, *, output: Path | str | None = None
) -> Convolution:
    """Convolve an image with a kernel, as a convolutional layer does: without turning the kernel.

    Args:
        image: an image file, a file of numbers (CSV; one row is a 1-D signal), or an array (h, w) or (h, w, 3).
        config: kernel, stride, padding, activation, pooling, and the channel.
        output: a new PNG file with image, kernel and feature map; None draws none.

    Raises:
        UsageError: if the kernel is larger than the image, a place is outside the feature map, a setting has no
            effect, or `output` exists or is no PNG file.
        DatasetError: if the file cannot be read, or its rows differ in length.
    """
    config, output = config or ConvolveConfig(), None if output is None else Path(output)
    if output is not None:
        storage.refuse_suffix(output, ".png")
        storage.refuse_existing(output)
    if config.pooling == "none" and config.pool_size != ConvolveConfig.pool_size:
        raise UsageError("--pool-size: no effect without --pooling max or --pooling average.")
    name = "" if isinstance(image, np.ndarray) else Path(image).name
    values = pixels(image)
    if values.ndim == 2 and config.channel != "gray":
        raise UsageError(f"--channel: {name or 'an array (h, w)'} contains numbers without channels. Remove --channel.")
    values = in_one_channel(values, config.weights)
    kernel = np.array(config.matrix)
    if config.flip:
        kernel = kernel[::-1, ::-1]
    if kernel.shape[0] > values.shape[0] or kernel.shape[1] > values.shape[1]:
        row = " A 1-D signal needs a kernel of one row, such as 1,0,-1." if len(values) == 1 else ""
        raise UsageError(
            f"--kernel: expected at most {size(values)}, the size of the image, found {size(kernel)}.{row}"
        )
    before, after = padding(values.shape, kernel.shape, config.stride, config.padding)
    feature_map = correlate(np.pad(values, list(zip(before, after, strict=True))), kernel, config.stride)
    if config.relu:
        feature_map = np.maximum(feature_map, 0)
    pooled = None if config.pooling == "none" else pool(feature_map, config.pool_size, config.pooling)
    place = config.place or _strongest(feature_map, values.shape, kernel.shape, before, config.stride)
    if place[0] >= feature_map.shape[0] or place[1] >= feature_map.shape[1]:
        raise UsageError(f"--at: expected a place in the feature map of {size(feature_map)}, found {config.at!r}.")
    found = Convolution(name, values, kernel, feature_map, pooled, before, after, place, config, output)
    if output is not None:
        from imgclf.explanation import convolution_drawing

        convolution_drawing.write(found, output)
    return found


def size(array: Array) -> str:
    """Its rows and columns in words."""
    rows, columns = array.shape
    return f"{rows} row{'s' * (rows != 1)} x {columns} column{'s' * (columns != 1)}"


def pixels(image: Path | str | Array) -> Array:
    """Return the numbers of an image: float64 (h, w) of a file of numbers, (h, w, 3) of an image file, RGB 0-255.

    Raises:
        DatasetError: if the file cannot be read.
        UsageError: if an array has another shape.
    """
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] != 3):
            raise UsageError(f"expected an array (h, w) or (h, w, 3), found the shape {image.shape}.")
        if not (np.abs(image) <= LARGEST_NUMBER).all():
            raise UsageError("expected finite numbers up to 1e12, found others in the array.")
        return image.astype(np.float64)
    path = Path(image)
    if path.suffix.lower() in TABLES:
        return _numbers(path)
    try:
        return np.asarray(images.decode(path)).astype(np.float64)
    except ImageError as error:
        raise DatasetError(f"{path}: {error}. Expected an image, or a .csv file of numbers.") from None


def _numbers(path: Path) -> Array:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise DatasetError(f"{path}: the numbers cannot be read ({reason}).") from None
    separator = next((mark for mark in (";", "\t", ",") if mark in content), " ")
    rows: list[list[float]] = []
    for number, line in enumerate(csv.reader(content.splitlines(), delimiter=separator, skipinitialspace=True), 1):
        items = [item.strip() for item in line if separator != " " or item]
        if not any(items):
            continue
        rows.append(row := [])
        try:
            for item in items:
                row.append(float(item.replace(",", ".") if separator == ";" else item))
        except ValueError:
            raise DatasetError(f"{path}, line {number}: expected numbers, found {item!r}.") from None
        if len(rows[-1]) != len(rows[0]):
            raise DatasetError(
                f"{path}, line {number}: expected {len(rows[0])} numbers as in the first row, found {len(rows[-1])}."
            )
    if not rows:
        raise DatasetError(f"{path}: expected rows of finite numbers, found none.")
    if not (np.abs(rows) <= LARGEST_NUMBER).all():
        raise DatasetError(f"{path}: expected rows of finite numbers up to 1e12, found others.")
    return np.array(rows)


def in_one_channel(values: Array, weights: tuple[float, ...]) -> Array:
    """Sum the channels (h, w, 3) with their weights; (h, w) stays as it is."""
    return values if values.ndim == 2 else values @ np.array(weights)


def padding(
    image: tuple[int, ...], kernel: tuple[int, ...], stride: int, mode: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the zeros before and after each axis.

    Args:
        mode: `valid` pads nothing, `same` gives ceil(size / stride) places as TensorFlow and Keras do, with the odd
            zero at the end, `full` lets every part of the kernel meet every pixel, and a number pads all sides.
    """
    totals = []
    for length, side in zip(image, kernel, strict=True):
        if mode == "same":
            totals.append(max((-(-length // stride) - 1) * stride + side - length, 0))
        elif mode == "full":
            totals.append(2 * (side - 1))
        else:
            # a signal of one row has nothing above and below it
            totals.append(2 * int(mode) if mode.isdecimal() and not (length == side == 1) else 0)
    first, second = totals
    return (first // 2, second // 2), (first - first // 2, second - second // 2)


def correlate(values: Array, kernel: Array, stride: int) -> Array:
    """Slide a kernel over values (h, w): the sum of products at each place where it fits."""
    windows = np.lib.stride_tricks.sliding_window_view(values, kernel.shape)[::stride, ::stride]
    return np.einsum("ijkl,kl->ij", windows, kernel)


def pool(values: Array, side: int, how: str) -> Array:
    """Return the maximum or the average of windows that do not overlap; what fills no window at the end is left out.

    Raises:
        UsageError: if not even one window fits.
    """
    sides = [1 if len(values) == 1 else side, side]  # a signal is pooled along its row
    rows, columns = values.shape[0] // sides[0], values.shape[1] // sides[1]
    if not rows or not columns:
        raise UsageError(f"--pool-size: expected at most the feature map's {size(values)}, found {side}.")
    cut = values[: rows * sides[0], : columns * sides[1]].reshape(rows, sides[0], columns, sides[1])
    return cut.max(axis=(1, 3)) if how == "max" else cut.mean(axis=(1, 3))


def _strongest(
    feature_map: Array, image: tuple[int, ...], kernel: tuple[int, ...], before: tuple[int, int], stride: int
) -> tuple[int, int]:
    """Find the first place of the largest response, where possible among windows that lie on the image alone."""
    inside = np.ones(feature_map.shape, bool)
    for axis in (0, 1):
        start = np.arange(feature_map.shape[axis]) * stride - before[axis]
        whole = (start >= 0) & (start + kernel[axis] <= image[axis])
        inside &= whole[:, None] if axis == 0 else whole[None, :]
    strength = np.where(inside if inside.any() else True, np.abs(feature_map), -1.0)
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return int(row), int(column)
