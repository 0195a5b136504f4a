"""Whether the score of twice the data lies in the interval that `imgclf curves` extrapolates from a half: on 20 halves
of real data sets, each of which hides the other half.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/curves.py
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from processes import unzip, verdict

import imgclf
from imgclf.data import splitting
from imgclf.questions import curves, embedding
from imgclf.questions.embedding import Embedded

SETS = {"sign-digits": (600, 10), "ants-bees": (None, 5), "blood-cells": (500, 5)}
"""By the data set: the images used, at random, and the halves."""

ASKED = 16


def part(images: Embedded, rows: np.ndarray) -> Embedded:
    """Some of the images."""
    samples = tuple(images.dataset.samples[row] for row in rows)
    return replace(images, dataset=replace(images.dataset, samples=samples), vectors=images.vectors[rows])


def drawn(images: Embedded, count: int, seed: int) -> Embedded:
    """Images in the shares of the classes of all."""
    return part(images, np.sort(curves.nested(images.labels, np.arange(len(images.labels)), seed)[:count]))


def measured(images: Embedded, seed: int) -> curves.Curves:
    dealt = splitting.folds(images.dataset, 5, seed)
    held = [np.isin(np.arange(len(images.dataset)), tested) for _, tested in dealt]
    return curves.of_embedded(images, held, sizes=8)


def main() -> None:
    inside = total = 0
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for name, (count, halves) in SETS.items():
            config = imgclf.SuspectsConfig(limit=1000 if name == "blood-cells" else None)
            data = imgclf.read(unzip(name, Path(folder)), config)
            every = embedding.find(data, config, command="curves")
            for seed in range(halves):
                whole = drawn(every, min(count or len(every.labels), len(every.labels)), seed)
                found = measured(drawn(whole, len(whole.labels) // 2, seed + 100), seed)
                truth = measured(whole, seed + 200).sizes[-1].validation
                low, high = found.interval
                inside, total = inside + (low <= truth <= high), total + 1
                print(
                    f"{name}: half {found.sizes[-1].validation:.3f}, twice as many {found.double:.3f} "
                    f"({low:.3f} to {high:.3f}), measured {truth:.3f}",
                    flush=True,
                )
    print(f"{time.process_time() - started:.0f} s of processor time, embeddings included")
    sys.exit(not verdict(f"inside the interval, of {total}", inside, ASKED, "", at_least=True))


if __name__ == "__main__":
    main()
