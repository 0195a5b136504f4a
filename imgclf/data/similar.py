"""Near-duplicates: the same picture again, encoded anew, at another size, or a little cropped.

Candidates come from a perceptual hash of 63 numbers, the low frequencies of a grey thumbnail, by an inverted file: each
image is filed under the nearest of some thousand centres, and looks only into the few drawers next to it. Crops move
the hash, so each image asks several times, as it is and as if it were cropped. What is found is compared finely, the
one thumbnail shifted and stretched onto the other.

Sources: Sivic and Zisserman 2003, "Video Google" (the inverted file); Lucas and Kanade 1981, "An iterative image
registration technique" (the fine comparison).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgclf.data.statistics import THUMB_PX

MIN_SPREAD = 6.0
"""Standard deviation of a thumbnail's grey below which it is too empty to be told from others."""

_FREQUENCIES = 8
_CROPS = (0.0, 0.025, 0.05)
_PROBES = 6
_NEAREST = 12
_MIN_COSINE = 0.80
_BATCH = 4096
_STEPS = 4
_MARGIN = 2
_MAX_SHIFT = 0.08  # of the side
_MAX_STRETCH = 0.14


@dataclass(frozen=True)
class Pairs:
    """Rows that show the same picture: int64 (m,) each, `first` below `second`; and how alike, float32 (m,), to 1."""

    first: np.ndarray
    second: np.ndarray
    likeness: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def find(thumbs: np.ndarray, min_likeness: float, *, seed: int = 0) -> Pairs:
    """The pairs of near-duplicates among grey thumbnails. Work grows with n ** 1.5, not with the number of pairs.

    Of many copies of one picture each finds its nearest dozen, so not every pair is there, but all hang together.

    Args:
        thumbs: uint8 (n, 32, 32).
        min_likeness: the correlation of two thumbnails, laid onto each other, from which on they show the same.
        seed: of the centres.
    """
    rows = np.flatnonzero(thumbs.reshape(len(thumbs), -1).std(axis=1) >= MIN_SPREAD)
    first, second = candidates(thumbs[rows], seed)
    likeness = np.concatenate(
        [np.zeros(0, np.float32)]
        + [
            compare(thumbs[rows[first[i : i + _BATCH]]], thumbs[rows[second[i : i + _BATCH]]])
            for i in range(0, len(first), _BATCH)
        ]
    )
    keep = likeness >= min_likeness
    return Pairs(rows[first[keep]], rows[second[keep]], likeness[keep])


def candidates(thumbs: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows, the lower first, of which each is among the nearest of the other as it is or cropped."""
    if len(thumbs) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    hashes = perceptual_hashes(thumbs, 0.0)
    centres = _centres(hashes, seed)
    drawers = _nearest(hashes, centres, 1)[:, 0]
    order = np.argsort(drawers, kind="stable")
    bounds = np.searchsorted(drawers[order], np.arange(len(centres) + 1))
    found = []
    for crop in _CROPS:
        asking = perceptual_hashes(thumbs, crop) if crop else hashes
        found += list(_look_up(asking, hashes, _nearest(asking, centres, _PROBES), order, bounds))
    codes = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
    return codes // len(thumbs), codes % len(thumbs)


def perceptual_hashes(thumbs: np.ndarray, crop: float) -> np.ndarray:
    """Unit vectors float32 (n, 63): the low frequencies of the thumbnails without a share `crop` of each side."""
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
    """The matrix (s, s) that cuts a share off both ends of a row and stretches the rest, by linear interpolation."""
    places = (np.arange(size) + 0.5) * (1 - 2 * crop) + size * crop - 0.5
    low = np.clip(np.floor(places).astype(int), 0, size - 2)
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), low] = 1 - (places - low)
    matrix[np.arange(size), low + 1] = places - low
    return matrix


def _centres(hashes: np.ndarray, seed: int) -> np.ndarray:
    """About four times the root of n of them: a sample, moved twice to the mean of what is nearest (k-means)."""
    count = max(1, min(len(hashes), round(4 * len(hashes) ** 0.5)))
    rng = np.random.default_rng(seed)
    sample = hashes[rng.choice(len(hashes), min(len(hashes), 20 * count), replace=False)]
    centres: np.ndarray = sample[:count]
    for _ in range(2):
        nearest = _nearest(sample, centres, 1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 1e-6, sums / np.maximum(norms, 1e-6), centres)
    return centres


def _nearest(hashes: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """int (n, count): the nearest centres of each hash, in no order."""
    count = min(count, len(centres))
    parts = []
    for i in range(0, len(hashes), _BATCH):
        cosines = hashes[i : i + _BATCH] @ centres.T
        parts.append(cosines.argmax(axis=1)[:, None] if count == 1 else np.argpartition(-cosines, count - 1)[:, :count])
    return np.concatenate(parts)


def _look_up(
    asking: np.ndarray, hashes: np.ndarray, drawers: np.ndarray, order: np.ndarray, bounds: np.ndarray
) -> Iterator[np.ndarray]:
    """Pairs as lower * n + higher: of each image the nearest in its drawers, drawer by drawer."""
    count = len(hashes)
    askers = np.argsort(drawers.ravel(), kind="stable")
    limits = np.searchsorted(drawers.ravel()[askers], np.arange(len(bounds)))
    for drawer in range(len(bounds) - 1):
        inside = order[bounds[drawer] : bounds[drawer + 1]]
        outside = askers[limits[drawer] : limits[drawer + 1]] // drawers.shape[1]
        if not len(inside) or not len(outside):
            continue
        cosines = asking[outside] @ hashes[inside].T  # (askers, filed)
        cosines[outside[:, None] == inside[None, :]] = -1
        if cosines.shape[1] > _NEAREST:
            best = np.argpartition(-cosines, _NEAREST)[:, :_NEAREST]
            kept = np.take_along_axis(cosines, best, axis=1) >= _MIN_COSINE
            one, other = np.broadcast_to(outside[:, None], best.shape)[kept], inside[best[kept]]
        else:
            rows, columns = np.nonzero(cosines >= _MIN_COSINE)
            one, other = outside[rows], inside[columns]
        yield np.minimum(one, other) * count + np.maximum(one, other)


def compare(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How alike two pictures are once the one is shifted and stretched onto the other, up to 1.

    Gauss-Newton steps find shift and stretch along both axes, brightness and contrast. The likeness is the
    correlation of what is left without the coarse shading, in which many pictures are alike.

    Args:
        one, other: uint8 (m, 32, 32).

    Returns:
        float32 (m,).
    """
    count, size = len(one), one.shape[1]
    inner = slice(_MARGIN, size - _MARGIN)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    goal = _normal(other[:, inner, inner].astype(np.float32))
    source = one.astype(np.float32)
    shift = np.zeros((count, 2), np.float32)  # along y and x, in sides
    stretch = np.zeros((count, 2), np.float32)
    for _ in range(_STEPS):
        moved = _warp(source, shift, stretch)
        down, right = np.gradient(moved, 1 / size, axis=(1, 2))
        values = moved[:, inner, inner]
        down, right = down[:, inner, inner], right[:, inner, inner]
        y, x = grid[inner][None, :, None], grid[inner][None, None, :]
        flat = values.std(axis=(1, 2), keepdims=True) + 1e-3
        values = _normal(values)
        columns = [down / flat, right / flat, down * y / flat, right * x / flat, values, np.ones_like(values)]
        system = np.stack([c.reshape(count, -1) for c in columns], axis=2)  # (m, p, 6)
        normal = np.einsum("mpi,mpj->mij", system, system, optimize=True) + 1e-2 * np.eye(6, dtype=np.float32)
        right_side = np.einsum("mpi,mp->mi", system, (goal - values).reshape(count, -1), optimize=True)
        step = np.linalg.solve(normal, right_side[..., None])[..., 0]
        shift = np.clip(shift + step[:, :2], -_MAX_SHIFT, _MAX_SHIFT)
        stretch = np.clip(stretch + step[:, 2:4], -_MAX_STRETCH, _MAX_STRETCH)
    moved = _warp(source, shift, stretch)[:, inner, inner]
    a, b = _fine(moved), _fine(other[:, inner, inner].astype(np.float32))
    likeness: np.ndarray = (a * b).mean(axis=(1, 2)).astype(np.float32)
    return likeness


def _normal(values: np.ndarray) -> np.ndarray:
    """Each picture with mean 0 and standard deviation 1."""
    values = values - values.mean(axis=(1, 2), keepdims=True)
    normal: np.ndarray = values / (values.std(axis=(1, 2), keepdims=True) + 1e-3)
    return normal


def _fine(values: np.ndarray) -> np.ndarray:
    """Each picture without its lowest frequencies, normalised."""
    basis = _cosines(values.shape[1], 3)
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    low = np.einsum("ui,nij,vj->nuv", basis, values, basis, optimize=True)
    return _normal(values - np.einsum("ui,nuv,vj->nij", basis, low, basis, optimize=True))


def _warp(values: np.ndarray, shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """(m, s, s) drawn anew with each place multiplied by 1 + stretch, from the middle, and moved by shift; linearly."""
    size = values.shape[1]
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    for axis in (0, 1):
        places = (grid * (1 + stretch[:, axis, None]) + shift[:, axis, None] + 0.5) * size - 0.5  # (m, s)
        low = np.clip(np.floor(places).astype(int), 0, size - 2)
        share = np.clip(places - low, 0, 1).astype(np.float32)
        if axis == 0:
            below = np.take_along_axis(values, low[:, :, None], axis=1)
            above = np.take_along_axis(values, low[:, :, None] + 1, axis=1)
            values = below + (above - below) * share[:, :, None]
        else:
            below = np.take_along_axis(values, low[:, None, :], axis=2)
            above = np.take_along_axis(values, low[:, None, :] + 1, axis=2)
            values = below + (above - below) * share[:, None, :]
    return values


def groups(count: int, pairs: Pairs) -> list[list[int]]:
    """The rows that hang together by pairs; each ascending, in the order of their first rows."""
    above = list(range(count))

    def find_root(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        low, high = sorted((find_root(one), find_root(other)))
        above[high] = low
    members: dict[int, list[int]] = {}
    for row in sorted({*pairs.first.tolist(), *pairs.second.tolist()}):
        members.setdefault(find_root(row), []).append(row)
    return sorted(members.values())
