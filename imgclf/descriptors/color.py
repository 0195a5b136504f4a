"""Feature vectors of color and brightness, with NumPy alone."""

from itertools import product

import numpy as np
from PIL import Image

CHANNELS = ("red", "green", "blue")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Source: ITU-R BT.601, as Pillow converts to gray."""


def intensity(pixels: np.ndarray) -> np.ndarray:
    """float32 (s, s), 0 to 255: the brightness of an image uint8 (s, s, 3)."""
    gray: np.ndarray = pixels.astype(np.float32) @ LUMA
    return gray


def grid(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """float32 (rows * columns * 3,), 0 to 255: the mean color of each cell, row by row."""
    lines = np.array_split(pixels.astype(np.float32), rows)
    cells = [cell.mean(axis=(0, 1)) for line in lines for cell in np.array_split(line, columns, axis=1)]
    return np.concatenate(cells)


def grid_names(rows: int, columns: int) -> list[str]:
    """Return the columns of `grid`."""
    return [f"{name}_row{row}_column{column}" for row, column, name in product(range(rows), range(columns), CHANNELS)]


def histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """float32 (bins,), shares that sum to 1: how values from 0 to 255 are distributed over equally wide bins."""
    places = np.minimum((values.ravel() * (bins / 256)).astype(np.int64), bins - 1)
    return (np.bincount(places, minlength=bins) / max(places.size, 1)).astype(np.float32)


def intensity_histogram(pixels: np.ndarray, bins: int) -> np.ndarray:
    """float32 (bins,), shares of the pixels."""
    return histogram(intensity(pixels), bins)


def color_histogram(pixels: np.ndarray, bins: int) -> np.ndarray:
    """float32 (3 * bins,), shares of the pixels, for each channel."""
    return np.concatenate([histogram(pixels[..., channel], bins) for channel in range(3)])


def spatial_histogram(pixels: np.ndarray, bins: int) -> np.ndarray:
    """float32 (2 * bins,), shares: where the brightness is, left to right (sum 1), then top to bottom (sum 1)."""
    gray = intensity(pixels)
    total = max(float(gray.sum()), 1e-9)
    sums = [part.sum() for axis in (1, 0) for part in np.array_split(gray, bins, axis=axis)]
    return np.array(sums, np.float32) / total


def small(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """float32 (size_px * size_px * 3,), 0 to 255: the image made smaller, each pixel a mean."""
    image = Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BOX)
    return np.asarray(image, np.float32).ravel()


def small_names(size_px: int) -> list[str]:
    """Return the columns of `small`."""
    return [f"{name}_y{y}_x{x}" for y, x, name in product(range(size_px), range(size_px), CHANNELS)]
