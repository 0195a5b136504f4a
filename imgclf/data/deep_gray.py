"""Gray of more than 8 bits, and how it becomes 8."""

import numpy as np
from PIL import Image

from imgclf.data.tiffs import PLAIN, Stored
from imgclf.settings import PERCENTILE, Decoding

MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of gray of more than 8 bits."""

_SIXTEEN_BITS = 65535
STRIP_PIXELS = 1 << 20


def to_eight_bits(image: Image.Image, rules: Decoding, stored: Stored = PLAIN) -> Image.Image:
    """Convert gray of 16 or 32 bits to 8 (mode L); values outside the window are clipped, NaN is black.

    The window is that of the rules, in stored units. Without one, whole numbers of up to 16 bits have the range of
    their bits, and floats, and whole numbers beyond 16 bits, the range of the image's own values. Where zero is white,
    the result is inverted.
    """
    low, high = _window(image, rules, stored)
    result = Image.new("L", image.size)
    for top in range(0, image.height, step := max(1, STRIP_PIXELS // max(image.width, 1))):
        bottom = min(top + step, image.height)
        strip = _numbers(image.crop((0, top, image.width, bottom)), stored)
        result.paste(Image.fromarray(_scaled(strip, low, high, rules, stored)), (0, top))
    return result


def largest(image: Image.Image, stored: Stored) -> float:
    """Return the largest stored value of whole numbers; NaN for floats."""
    if image.mode == "F":
        return float("nan")
    low, high = extrema(image)
    return high + 2.0**32 if stored.unsigned and high < 0 else 2.0**32 - 1 if stored.unsigned and low < 0 else high


def without_number(image: Image.Image) -> float:
    """Return the share of the pixels of an image of floats that are NaN, 0 to 1."""
    if image.mode != "F":
        return 0.0
    step = max(1, STRIP_PIXELS // max(image.width, 1))
    strips = (image.crop((0, top, image.width, min(top + step, image.height))) for top in range(0, image.height, step))
    return sum(int(np.isnan(np.asarray(strip)).sum()) for strip in strips) / (image.width * image.height)


def signed(image: Image.Image, stored: Stored) -> Image.Image:
    """Return an image whose numbers beyond 2**31 are floats, since Pillow has no numbers of 32 bits without sign."""
    if not stored.unsigned or extrema(image)[0] >= 0:
        return image
    return Image.fromarray(_numbers(image, stored).astype(np.float32))


def _scaled(gray: np.ndarray, low: float, high: float, rules: Decoding, stored: Stored) -> np.ndarray:
    if rules.window is None and gray.dtype.kind != "f" and (low, high) == (0, stored.top):
        gray = gray.clip(0, stored.top)
        gray = stored.top - gray if stored.inverted else gray
        if stored.top == _SIXTEEN_BITS:
            return (gray // 257).astype(np.uint8)
        return (gray.astype(np.uint32) * 255 // stored.top).astype(np.uint8)
    if low == high:
        return np.zeros(gray.shape, np.uint8)
    values = gray.astype(np.float64)
    if stored.inverted:
        values, low, high = -values, -high, -low
    inside = np.nan_to_num(values, nan=low, posinf=high, neginf=low).clip(low, high)
    return np.rint((inside - low) * (255.0 / (high - low))).astype(np.uint8)


def _window(image: Image.Image, rules: Decoding, stored: Stored) -> tuple[float, float]:
    """Return the stored values that become the two ends of gray."""
    if rules.bounds:
        return rules.bounds
    if rules.window == PERCENTILE:
        values = _numbers(image, stored).ravel()
        return _ends(values[np.isfinite(values)] if values.dtype.kind == "f" else values, 100)
    if image.mode != "F":
        low, high = extrema(image)
        beyond = high > _SIXTEEN_BITS or (stored.unsigned and low < 0)
        if not beyond:
            return 0, stored.top
    lows, highs = [], []
    for top in range(0, image.height, step := max(1, STRIP_PIXELS // max(image.width, 1))):
        strip = _numbers(image.crop((0, top, image.width, min(top + step, image.height))), stored)
        finite = strip[np.isfinite(strip)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    return (min(lows), max(highs)) if lows else (0.0, 0.0)


def extrema(image: Image.Image) -> tuple[float, float]:
    """Return the smallest and the largest number as Pillow has it, with a sign."""
    if image.mode in ("I;16B", "I;16L", "I;16N"):  # for which Pillow has none
        numbers = np.asarray(image)
        return float(numbers.min()), float(numbers.max())
    low, high = image.getextrema()
    return float(low), float(high)  # type: ignore[arg-type]  # of one band


def _numbers(image: Image.Image, stored: Stored) -> np.ndarray:
    """Return the stored numbers (h, w), with their sign or without."""
    gray = np.asarray(image)
    return gray.view(np.uint32) if stored.unsigned and gray.dtype == np.int32 else gray


def _ends(values: np.ndarray, share: int) -> tuple[float, float]:
    """Find the smallest and the largest value, after leaving out one in `share` at both ends."""
    if not values.size:
        return 0.0, 0.0
    first = (values.size - 1) // share
    last = values.size - 1 - first
    ordered = np.partition(values, (first, last))
    return float(ordered[first]), float(ordered[last])
