"""Find near-duplicates: the same image with another encoding, size or crop.

Candidates come from a perceptual hash of 63 numbers, the low frequencies of a gray thumbnail, by an inverted file: each
image is filed under the nearest of some thousand centers, and looks only into the few drawers next to it. Crops move
the hash, so each image asks several times, as it is and as if it were cropped. What is found is compared finely, the
one thumbnail shifted and stretched onto the other.

Sources: Sivic and Zisserman 2003, "Video Google" (the inverted file); Lucas and Kanade 1981, "An iterative image
registration technique" (the fine comparison).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from imgclf import environment
from imgclf.data.statistics import THUMB_PX

MIN_SPREAD = 6.0
"""Standard deviation of a thumbnail's gray below which it is too empty to be told from others."""

_FREQUENCIES = 8
_CROPS = (0.0, 0.025, 0.05)
_PROBES = 6  # drawers that an image looks into
_NEAREST = 8  # images that it takes from all of them
_MIN_COSINE = 0.80
_BATCH = 512
_COARSE_PX = 16
_COARSE_SLACK = 0.3  # by which a coarse likeness may be too small
_MARGIN = 1 / 16  # of the side: where a shifted image has no pixels
_MAX_SHIFT = 0.08  # of the side
_MAX_STRETCH = 0.14


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows of one image: int64 (m,) each, `first` < `second`; and their likeness, float32 (m,), up to 1."""

    first: np.ndarray
    second: np.ndarray
    likeness: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def find(thumbs: np.ndarray, min_likeness: float, *, seed: int = 0) -> Pairs:
    """Find pairs of near-duplicates among gray thumbnails. Work grows with n ** 1.5, not with the number of pairs.

    Each of many copies of one image finds its nearest dozen: not every pair is listed, but all copies are connected.

    Args:
        thumbs: uint8 (n, 32, 32).
        min_likeness: likeness (`compare`) from which two thumbnails are the same image.
        seed: of the centers.
    """
    rows = np.flatnonzero(thumbs.std(axis=(1, 2)) >= MIN_SPREAD)
    first, second = (rows[found] for found in candidates(thumbs[rows], seed))
    parts = [slice(i, i + _BATCH) for i in range(0, len(first), _BATCH)]
    with ThreadPoolExecutor(environment.cpu_count()) as pool:  # NumPy lets other threads work meanwhile
        compared = pool.map(lambda part: compare(thumbs[first[part]], thumbs[second[part]], min_likeness), parts)
        likeness = np.concatenate([np.zeros(0, np.float32), *compared])
    keep = likeness >= min_likeness
    return Pairs(first[keep], second[keep], likeness[keep])


def candidates(thumbs: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Find pairs of rows, the lower first, of which one is among the nearest of the other, as it is or cropped."""
    if len(thumbs) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    hashes = perceptual_hashes(thumbs, 0.0)
    centers = _centers(hashes, seed)
    drawers = _nearest(hashes, centers, 1)[:, 0]
    order = np.argsort(drawers, kind="stable")
    bounds = np.searchsorted(drawers[order], np.arange(len(centers) + 1))
    codes = [np.zeros(0, np.int64)]
    for crop in _CROPS:
        asking = perceptual_hashes(thumbs, crop) if crop else hashes
        one, other = _look_up(asking, hashes, _nearest(asking, centers, _PROBES), order, bounds)
        codes.append(np.minimum(one, other) * len(thumbs) + np.maximum(one, other))
    pairs = np.unique(np.concatenate(codes))
    return pairs // len(thumbs), pairs % len(thumbs)


def perceptual_hashes(thumbs: np.ndarray, crop: float) -> np.ndarray:
    """Hash thumbnails, cropped by `crop` at each edge, to unit vectors of low frequencies, float32 (n, 63)."""
    basis = _cosines(THUMB_PX, _FREQUENCIES) @ _cropping(THUMB_PX, crop)  # (8, 32)
    values = np.einsum("ui,nij,vj->nuv", basis, thumbs.astype(np.float32), basis, optimize=True)
    values = values.reshape(len(thumbs), -1)[:, 1:]  # without the mean
    unit: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return unit


def _cosines(size: int, count: int) -> np.ndarray:
    places = (np.arange(size) + 0.5) * np.pi / size
    basis = np.cos(np.arange(count)[:, None] * places)
    basis[0] *= np.sqrt(0.5)
    return basis.astype(np.float32)


def _cropping(size: int, crop: float) -> np.ndarray:
    """Make the matrix (s, s) that crops both ends of a row and stretches the rest, by linear interpolation."""
    places = (np.arange(size) + 0.5) * (1 - 2 * crop) + size * crop - 0.5
    low = np.clip(np.floor(places).astype(int), 0, size - 2)
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), low] = 1 - (places - low)
    matrix[np.arange(size), low + 1] = places - low
    return matrix


def _centers(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Choose about 4 * sqrt(n) centers: a sample, after two steps of k-means."""
    count = max(1, min(len(hashes), round(4 * len(hashes) ** 0.5)))
    rng = np.random.default_rng(seed)
    sample = hashes[rng.choice(len(hashes), min(len(hashes), 20 * count), replace=False)]
    centers: np.ndarray = sample[:count]
    for _ in range(2):
        nearest = _nearest(sample, centers, 1)[:, 0]
        sums = np.zeros_like(centers)
        np.add.at(sums, nearest, sample)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(norms > 1e-6, sums / np.maximum(norms, 1e-6), centers)
    return centers


def _nearest(hashes: np.ndarray, centers: np.ndarray, count: int) -> np.ndarray:
    """Find the nearest centers of each hash, int (n, count), in no order."""
    count = min(count, len(centers))
    parts = []
    for i in range(0, len(hashes), 8 * _BATCH):
        cosines = hashes[i : i + 8 * _BATCH] @ centers.T
        parts.append(
            cosines.argmax(axis=1)[:, None] if count == 1 else np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        )
    return np.concatenate(parts)


def _look_up(
    asking: np.ndarray, hashes: np.ndarray, drawers: np.ndarray, order: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest images of each in its drawers, then the best of all: the asking rows, and the found ones."""
    askers = np.argsort(drawers.ravel(), kind="stable")
    limits = np.searchsorted(drawers.ravel()[askers], np.arange(len(bounds)))
    none = np.zeros(0, np.int64)
    found = [(none, none, np.zeros(0, np.float32))]
    for drawer in range(len(bounds) - 1):
        inside = order[bounds[drawer] : bounds[drawer + 1]]
        outside = askers[limits[drawer] : limits[drawer + 1]] // drawers.shape[1]
        cosines = asking[outside] @ hashes[inside].T  # (askers, filed)
        cosines[outside[:, None] == inside] = -1
        if cosines.shape[1] > _NEAREST:
            columns = np.argpartition(-cosines, _NEAREST, axis=1)[:, :_NEAREST]
            cosines, filed = np.take_along_axis(cosines, columns, axis=1), inside[columns]
        else:
            filed = np.broadcast_to(inside, cosines.shape)
        near = cosines >= _MIN_COSINE
        found.append((np.broadcast_to(outside[:, None], filed.shape)[near], filed[near], cosines[near]))
    one, other, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    best = np.lexsort((-cosines, one))
    one, other = one[best], other[best]
    place = np.arange(len(one)) - np.searchsorted(one, one)  # among those of the same asker
    return one[place < _NEAREST], other[place < _NEAREST]


def compare(one: np.ndarray, other: np.ndarray, min_likeness: float = 0.0) -> np.ndarray:
    """Measure the likeness of two images, one aligned with the other; at most 1.

    Gauss-Newton steps find shift and stretch along both axes as well as brightness and contrast, on a coarse image
    first. The likeness is the smaller of two numbers: the correlation without coarse shading, which many images share,
    and the concordance of the whole, which tells simple shapes of different brightness apart.

    Args:
        one, other: uint8 (m, 32, 32).
        min_likeness: pairs that are clearly less alike need not be compared finely; they get -1.

    Returns:
        float32 (m,).
    """
    likeness = np.full(len(one), -1, np.float32)
    moves = _align(_reduced(one), _reduced(other), np.zeros((len(one), 4), np.float32), steps=3)
    coarse = _correlation(_reduced(one), _reduced(other), moves, cut=3)
    close = np.flatnonzero(coarse >= min_likeness - _COARSE_SLACK)
    if len(close):
        source, goal = _smoothed(one[close]), _smoothed(other[close])
        moves = _align(source, goal, moves[close], steps=3)
        likeness[close] = np.minimum(_correlation(source, goal, moves, cut=5), _concordance(source, goal, moves))
    return likeness


def _reduced(thumbs: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2: uint8 (m, 32, 32) -> float32 (m, 16, 16)."""
    block = thumbs.shape[1] // _COARSE_PX
    blocks = thumbs.reshape(len(thumbs), _COARSE_PX, block, _COARSE_PX, block)
    means: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _smoothed(thumbs: np.ndarray) -> np.ndarray:
    """Smooth to float32, each pixel with half of its neighbors, so that interpolation blurs little more."""
    size = thumbs.shape[1]
    blur = np.eye(size, dtype=np.float32) / 2 + (np.eye(size, k=1) + np.eye(size, k=-1)).astype(np.float32) / 4
    blur[0, 0] = blur[-1, -1] = 0.75
    smooth: np.ndarray = blur @ thumbs.astype(np.float32) @ blur
    return smooth


def _align(source: np.ndarray, goal: np.ndarray, moves: np.ndarray, steps: int) -> np.ndarray:
    """Find the moves that align source with goal, float32 (m, 4): shift along y and x, stretch along y and x."""
    count, size = len(source), source.shape[1]
    margin = round(size * _MARGIN)
    inner = slice(margin, size - margin)
    grid = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)[inner]
    wanted = _normal(goal[:, inner, inner])
    for _ in range(steps):
        moved = _warp(source, moves)
        down, right = (g[:, inner, inner] for g in np.gradient(moved, 1 / size, axis=(1, 2)))
        values = moved[:, inner, inner]
        scale = values.std(axis=(1, 2), keepdims=True) + 1e-3
        down, right, values = down / scale, right / scale, _normal(values)
        columns = (down, right, down * grid[:, None], right * grid, values, np.ones_like(values))
        system = np.stack([column.reshape(count, -1) for column in columns], axis=1)  # (m, 6, p)
        squares = system @ system.transpose(0, 2, 1) + 1e-2 * np.eye(6, dtype=np.float32)
        rest = system @ (wanted - values).reshape(count, -1, 1)
        moves = moves + np.linalg.solve(squares, rest)[:, :4, 0]
        limit = np.array([_MAX_SHIFT, _MAX_SHIFT, _MAX_STRETCH, _MAX_STRETCH], np.float32)
        moves = np.clip(moves, -limit, limit)
    return moves


def _correlation(source: np.ndarray, goal: np.ndarray, moves: np.ndarray, cut: int) -> np.ndarray:
    """Correlate goal and moved source, without margin and their `cut` lowest frequencies: float32 (m,)."""
    margin = round(source.shape[1] * _MARGIN)
    inner = slice(margin, source.shape[1] - margin)
    moved, still = _fine(_warp(source, moves)[:, inner, inner], cut), _fine(goal[:, inner, inner], cut)
    means: np.ndarray = (moved * still).mean(axis=(1, 2))
    return means


def _concordance(source: np.ndarray, goal: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return the concordance of goal and moved source, float32 (m,): lower where means or deviations differ.

    Source: Lin 1989, "A concordance correlation coefficient to evaluate reproducibility".
    """
    margin = round(source.shape[1] * _MARGIN)
    inner = slice(margin, source.shape[1] - margin)
    moved, still = _warp(source, moves)[:, inner, inner], goal[:, inner, inner]
    one, other = moved.mean(axis=(1, 2), keepdims=True), still.mean(axis=(1, 2), keepdims=True)
    together = ((moved - one) * (still - other)).mean(axis=(1, 2))
    apart = moved.var(axis=(1, 2)) + still.var(axis=(1, 2)) + (one - other)[:, 0, 0] ** 2
    concordance: np.ndarray = 2 * together / (apart + 1e-3)
    return concordance


def _normal(values: np.ndarray) -> np.ndarray:
    """Standardize each image to mean 0 and standard deviation 1."""
    values = values - values.mean(axis=(1, 2), keepdims=True)
    normal: np.ndarray = values / (values.std(axis=(1, 2), keepdims=True) + 1e-3)
    return normal


def _fine(values: np.ndarray, cut: int) -> np.ndarray:
    """Remove the `cut` lowest frequencies of each image along both axes, and standardize."""
    basis = _cosines(values.shape[1], cut)
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    return _normal(values - basis.T @ (basis @ values @ basis.T) @ basis)


def _warp(values: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Resample (m, s, s), stretched from the middle and shifted, by linear interpolation."""
    size = values.shape[1]
    pixels = np.arange(size, dtype=np.float32)
    grid = (pixels + 0.5) / size - 0.5

    def weights(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
        places = (grid * (1 + stretch[:, None]) + shift[:, None] + 0.5) * size - 0.5
        away = np.abs(np.clip(places, 0, size - 1)[:, :, None] - pixels)
        hats: np.ndarray = np.maximum(1 - away, 0)  # (m, s, s): of each new pixel, the share of each old one
        return hats

    moved: np.ndarray = (
        weights(moves[:, 0], moves[:, 2]) @ values @ weights(moves[:, 1], moves[:, 3]).transpose(0, 2, 1)
    )
    return moved


def groups(count: int, pairs: Pairs) -> list[list[int]]:
    """Find the rows that pairs connect: groups in the order of their first rows, each ascending."""
    if not len(pairs.first):
        return []
    from scipy.sparse import coo_array  # here, since few datasets have near-duplicates
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(count, count))
    numbers = connected_components(links, directed=False)[1]
    members: dict[int, list[int]] = {}
    for row in sorted({*pairs.first.tolist(), *pairs.second.tolist()}):
        members.setdefault(int(numbers[row]), []).append(row)
    return list(members.values())
