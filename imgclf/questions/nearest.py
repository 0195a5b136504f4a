"""The nearest of many vectors: exactly, or approximately with faiss."""

import math
from typing import Any

import numpy as np

from imgclf import environment

EXTRA = "'imgclf[search]'"
LISTS_VISITED = 12
"""Of the about sqrt(n) lists of an approximate index, those that a search visits."""

RECHECKED = 10
"""Candidates of an approximate search for each result, whose distances are then computed exactly."""

TRAINED_ON = 40
"""Vectors for each list, at most, from which the lists are made."""


def exact(vectors: np.ndarray, query: np.ndarray, count: int, *, unit: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows nearest to a query, and their Euclidean distances, the nearest first; of equals, the first row.

    Args:
        vectors: float32 (n, d); rows of NaN are never found.
        query: float32 (d,).
        unit: whether all vectors have the length 1, which spares half of the time.
    """
    squared = 1.0 if unit else _squared(vectors)
    rough = np.nan_to_num(squared - 2 * (vectors @ query), nan=np.inf)
    margin = min(len(rough), count + 16)  # so that rounding of large numbers leaves out none
    return _ranked(vectors, query, np.argpartition(rough, margin - 1)[:margin], count)


def _squared(vectors: np.ndarray, step: int = 4096) -> np.ndarray:
    parts = (vectors[start : start + step] for start in range(0, len(vectors), step))
    return np.concatenate([np.einsum("nd,nd->n", part, part) for part in parts])


def _ranked(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.sort(rows)
    distances = np.linalg.norm(vectors[rows].astype(np.float64) - query, axis=1)
    kept = np.argsort(distances, kind="stable")[:count]
    kept = kept[np.isfinite(distances[kept])]
    return rows[kept], distances[kept]


def build(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make an approximate index: about sqrt(n) lists by k-means, 8 bits for each number. Rows of NaN are left out.

    Args:
        vectors: float32 (n, d).

    Returns:
        What `approximate` takes, uint8.

    Raises:
        MissingError: if faiss is not installed.
    """
    environment.require("faiss", EXTRA)
    import faiss

    rows = np.flatnonzero(np.isfinite(vectors[:, 0]))
    lists = max(1, math.isqrt(len(rows)))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(vectors.shape[1]), vectors.shape[1], lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2
    )
    index.cp.niter, index.cp.seed, index.cp.min_points_per_centroid = 5, seed, 1
    chosen = np.random.default_rng(seed).permutation(rows)[: TRAINED_ON * lists]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    for start in range(0, len(rows), 10_000):
        part = rows[start : start + 10_000]
        index.add_with_ids(np.ascontiguousarray(vectors[part]), part.astype(np.int64))
    found: np.ndarray = faiss.serialize_index(index)
    return found


def load(index: np.ndarray) -> Any:
    """Read what `build` returned."""
    import faiss

    found = faiss.deserialize_index(np.ascontiguousarray(index))
    faiss.extract_index_ivf(found).nprobe = LISTS_VISITED
    return found


def approximate(index: Any, vectors: np.ndarray, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that an index takes for the nearest, ranked by their exact distances; as `exact` returns them."""
    _, rows = index.search(query[None].astype(np.float32), RECHECKED * count)
    return _ranked(vectors, query, rows[0][rows[0] >= 0], count)
