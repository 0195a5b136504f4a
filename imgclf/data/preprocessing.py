"""Apply the steps of `--preprocess` to an image, the same in training and in prediction."""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from imgclf.settings.preprocessing import Step


def apply(image: Image.Image, steps: Sequence[Step]) -> Image.Image:
    """Apply steps to an RGB image, in their order; RGB again."""
    for step in steps:
        image = _STEPS[step.name](image, step.value).convert("RGB")
    return image


def otsu(gray: np.ndarray) -> int:
    """Find the brightness up to which pixels are dark: dark and bright ones differ most; of equals, the smallest.

    Args:
        gray: uint8, of any shape.

    Source: Otsu 1979, doi:10.1109/TSMC.1979.4310076, eq. 14.
    """
    counts = np.bincount(gray.ravel(), minlength=256).astype(float)
    dark, total = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (total[-1] * dark / dark[-1] - total) ** 2 / (dark * (dark[-1] - dark))
    return int(np.argmax(np.nan_to_num(between[:-1], nan=0.0, posinf=0.0)))


def _threshold(image: Image.Image, level: float) -> Image.Image:
    gray = np.asarray(image.convert("L"))
    return Image.fromarray(np.where(gray > (otsu(gray) if math.isnan(level) else level), 255, 0).astype(np.uint8))


def _edges(image: Image.Image, _: float) -> Image.Image:
    """Return the length of Sobel's gradient, divided by 4, so that a step from black to white is white."""
    from scipy import ndimage

    gray = np.asarray(image.convert("L")).astype(np.float64)
    down, right = (ndimage.sobel(gray, axis, mode="nearest") for axis in (0, 1))
    lengths = np.sqrt(right**2 + down**2)  # correctly rounded on every machine, which np.hypot is not
    return Image.fromarray(np.clip(np.rint(lengths / 4), 0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(quality))
    with Image.open(file, formats=("JPEG",)) as decoded:
        decoded.load()
        return decoded


def _least(image: Image.Image, size: float) -> Image.Image:
    return image.filter(ImageFilter.MinFilter(round(size)))


def _most(image: Image.Image, size: float) -> Image.Image:
    return image.filter(ImageFilter.MaxFilter(round(size)))


_STEPS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, percent: ImageOps.autocontrast(image, cutoff=percent),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "sharpen": lambda image, amount: image.filter(ImageFilter.UnsharpMask(2, round(100 * amount), 0)),
    "denoise": lambda image, size: image.filter(ImageFilter.MedianFilter(round(size))),
    "gray": lambda image, _: image.convert("L"),
    "threshold": _threshold,
    "erode": _least,
    "dilate": _most,
    "open": lambda image, size: _most(_least(image, size), size),
    "close": lambda image, size: _least(_most(image, size), size),
    "edges": _edges,
    "jpeg": _jpeg,
}
