"""Feature vectors of texture and edges, with scikit-image and SciPy."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np

from imgclf.descriptors.color import CHANNELS, intensity

ORIENTATIONS_DEG = (0, 45, 90, 135)
FREQUENCIES = (0.25, 0.1)
"""Of the Gabor filters, in cycles per pixel."""

SIGMAS_PX = (1.0, 2.0)
"""Of the Laplacian of Gaussian filters."""

HOG_ORIENTATIONS, HOG_BLOCK = 9, 2
LBP_POINTS, LBP_RADIUS_PX = 8, 1


@cache
def gabors() -> dict[str, Any]:
    """Return the complex kernels of the Gabor filters, by name."""
    from skimage.filters import gabor_kernel

    return {
        f"gabor_{degrees}deg_{frequency:g}": gabor_kernel(frequency, np.deg2rad(degrees)).astype(np.complex64)
        for frequency, degrees in product(FREQUENCIES, ORIENTATIONS_DEG)
    }


def largest_px() -> int:
    """Return the side of the largest kernel."""
    return max(int(max(kernel.shape)) for kernel in gabors().values())


@cache
def _transfers(side_px: int) -> np.ndarray:
    """complex64 (filters, side, side): the Fourier transforms of the kernels, each with its center in the corner."""
    from scipy import fft

    planes = np.zeros((len(gabors()), side_px, side_px), np.complex64)
    for plane, kernel in zip(planes, gabors().values(), strict=True):
        plane[: kernel.shape[0], : kernel.shape[1]] = kernel
        plane[:] = np.roll(plane, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), axis=(0, 1))
    transforms: np.ndarray = fft.fft2(planes)
    return transforms


def responses(pixels: np.ndarray) -> np.ndarray:
    """float32 (filters * 6,): mean and deviation of each filter's response, for each channel.

    The response is the magnitude for a Gabor filter, and the value for a Laplacian of Gaussian. Channels are 0 to 1,
    and mirrored beyond the border.

    Source: Jain and Farrokhnia 1991, doi:10.1016/0031-3203(91)90143-S, for the bank.
    """
    from scipy import fft
    from scipy.ndimage import gaussian_laplace

    image = pixels.astype(np.float32) / 255
    margin, size = largest_px() // 2, len(image)
    side = fft.next_fast_len(size + 2 * margin)
    maps: list[list[np.ndarray]] = []
    for channel in range(3):
        plane = image[..., channel]
        padded = np.zeros((side, side), np.float32)
        padded[: size + 2 * margin, : size + 2 * margin] = np.pad(plane, margin, mode="symmetric")
        filtered = fft.ifft2(fft.fft2(padded) * _transfers(side))[:, margin : margin + size, margin : margin + size]
        maps.append([*np.abs(filtered), *(gaussian_laplace(plane, sigma) for sigma in SIGMAS_PX)])
    return np.array([part for row in zip(*maps, strict=True) for m in row for part in (m.mean(), m.std())], np.float32)


def response_names() -> list[str]:
    """Return the columns of `responses`."""
    filters = (*gabors(), *(f"log_{sigma:g}px" for sigma in SIGMAS_PX))
    return [f"{name}_{channel}_{part}" for name, channel, part in product(filters, CHANNELS, ("mean", "std"))]


def lbp(pixels: np.ndarray) -> np.ndarray:
    """float32 (10,), shares of the pixels: uniform local binary patterns of 8 neighbors at 1 px.

    Source: Ojala et al. 2002, doi:10.1109/TPAMI.2002.1017623.
    """
    from skimage.feature import local_binary_pattern

    gray = np.round(intensity(pixels)).astype(np.uint8)
    codes = local_binary_pattern(gray, LBP_POINTS, LBP_RADIUS_PX, "uniform").astype(np.int64)
    shares: np.ndarray = (np.bincount(codes.ravel(), minlength=LBP_POINTS + 2) / codes.size).astype(np.float32)
    return shares


def lbp_names() -> list[str]:
    """Return the columns of `lbp`: uniform patterns by their number of brighter neighbors, and all others."""
    return [*(f"{n}_brighter" for n in range(LBP_POINTS + 1)), "not_uniform"]


def hog(pixels: np.ndarray, cell_px: int) -> np.ndarray:
    """float32 (blocks * 36,), 0 to 1: histograms of 9 gradient directions in cells, normalized in blocks of 2 x 2.

    Source: Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177.
    """
    from skimage.feature import hog

    found = hog(
        pixels,
        orientations=HOG_ORIENTATIONS,
        pixels_per_cell=(cell_px, cell_px),
        cells_per_block=(HOG_BLOCK, HOG_BLOCK),
        channel_axis=-1,
    )
    return np.asarray(found, np.float32)


def hog_names(size_px: int, cell_px: int) -> list[str]:
    """Return the columns of `hog`."""
    blocks, cells = range(size_px // cell_px - HOG_BLOCK + 1), range(HOG_BLOCK)
    step = 180 // HOG_ORIENTATIONS
    return [
        f"block{by}_{bx}_cell{cy}_{cx}_{step * direction}deg"
        for by, bx, cy, cx, direction in product(blocks, blocks, cells, cells, range(HOG_ORIENTATIONS))
    ]
