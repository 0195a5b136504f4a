"""How long one search among many embeddings takes, exactly and approximately, and what the approximate one finds.

    python tests/benchmarks/search.py [--images 100000] [--width 1984] [--queries 40]

Vectors are drawn around centers in a space of 64 dimensions, as embeddings of photographs lie: of independent noise in
all dimensions, every vector would be nearly as far as every other. Queries are drawn in the same way. Recall is that
of the first ten, against the exact search.
"""

import argparse
import time

import numpy as np

from imgclf.questions import nearest

FIRST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1984)
    parser.add_argument("--queries", type=int, default=40)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(64, options.width)).astype(np.float32)
    centers = rng.normal(size=(200, 64)).astype(np.float32)

    def draw(count: int) -> np.ndarray:
        points = centers[rng.integers(len(centers), size=count)] + 0.5 * rng.normal(size=(count, 64))
        vectors = points.astype(np.float32) @ plane
        vectors += 0.5 * rng.standard_normal(vectors.shape, np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    vectors, queries = draw(options.images), draw(options.queries)
    found, exact_s = [], []
    for query in queries:
        begun = time.perf_counter()
        found.append(nearest.exact(vectors, query, FIRST, unit=True)[0])
        exact_s.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    stored = nearest.build(vectors)
    built_s = time.perf_counter() - begun
    index = nearest.load(stored)
    hits, approximate_s = [], []
    for query, truth in zip(queries, found, strict=True):
        begun = time.perf_counter()
        rows, _ = nearest.approximate(index, vectors, query, FIRST)
        approximate_s.append(time.perf_counter() - begun)
        hits.append(len(set(rows.tolist()) & set(truth.tolist())) / FIRST)
    print(f"{options.images:,} vectors of {options.width:,}; medians of {options.queries} searches")
    for name, times in (("exact", exact_s), ("approximate", approximate_s)):
        print(f"{name}: {1e3 * np.median(times):.1f} ms, the fastest {1e3 * min(times):.1f} ms")
    print(f"recall of the first {FIRST}: {np.mean(hits):.3f}")
    print(f"index: built in {built_s:.0f} s, {stored.nbytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
