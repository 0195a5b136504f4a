"""How fast later epochs are: batches from the mapped cache, by threads as imgclf does it and by processes; and training
on them beside Keras's own `fit` on arrays that are in memory already.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/loading.py [--data DIR] [--limit N] [--size 64] [--epochs N]
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from processes import unzip, verdict

from imgclf import environment
from imgclf.data import loading, reading
from imgclf.settings import DataConfig, TrainConfig

RATE, SHARE = 10_000, 0.95
BATCH = 32


def rate(batches: Iterable[object], count: int) -> float:
    """Images per second over `count` batches, after a few."""
    ahead = iter(batches)
    for _ in range(20):
        next(ahead)
    begin = time.perf_counter()
    for _ in range(count):
        next(ahead)
    return count * BATCH / (time.perf_counter() - begin)


def open_map(path: Path) -> None:
    """In a worker process: map the cache's file."""
    global mapped
    mapped = np.load(path, mmap_mode="r")


def gather(step: int) -> np.ndarray:
    """In a worker process: one batch, which then has to travel."""
    return mapped[np.random.default_rng(step).integers(0, len(mapped), BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of class folders; by default tiny-imagenet")
    parser.add_argument("--limit", type=int, default=20_000, help="images at most")
    parser.add_argument("--size", type=int, default=64, help="in px")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = options.data or unzip("tiny-imagenet", Path(temporary))
        dataset = reading.read(source, DataConfig(limit=options.limit), split=False)
        dataset, pixels = loading.decode(dataset, options.size, cache=f"{temporary}/cache")
        labels, classes = dataset.labels, len(dataset.class_names)
        batches = loading.training_batches(pixels, labels, classes=classes, batch_size=BATCH, seed=0)
        threads = [rate(batches, 1000) for _ in range(3)]
        (file,) = Path(temporary).glob("cache/*/array.npy")
        start, cores = multiprocessing.get_context("spawn"), environment.cpu_count()
        with ProcessPoolExecutor(cores, start, open_map, (file,)) as pool:
            processes = [rate(pool.map(gather, range(1100)), 1000) for _ in range(3)]
        print(f"{len(pixels)} images of {options.size} px, batches of {BATCH}, {cores} cores")
        for name, found in (("threads, mapped cache, shuffled", threads), ("processes, the same", processes)):
            print(f"{name:40} median {statistics.median(found):7.0f} images/s   best {max(found):7.0f} images/s")
        met = verdict("later epochs", statistics.median(threads), RATE, " images/s", at_least=True)
        share = training(pixels, labels, classes, options.epochs)
        sys.exit(not (verdict("share of the speed in memory", share, SHARE, "", at_least=True) and met))


def training(pixels: loading.Pixels, labels: np.ndarray, classes: int, epochs: int) -> float:
    """From the second epoch on, twice in turns: the small CNN on the mapped cache, and by `fit` alone on arrays."""
    environment.prepare_keras()
    import keras

    from imgclf.models import classifier
    from imgclf.training import network, recipe

    plain, _ = recipe.resolve(TrainConfig(backbone="small-cnn", image_size=pixels.shape[1]))
    model = classifier.logits(network.build(plain, classes))
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    steps = loading.steps_per_epoch(len(pixels), BATCH)
    count = steps * BATCH
    arrays = pixels[:count], np.eye(classes, dtype=np.float32)[labels[:count]]
    batches = loading.training_batches(pixels, labels, classes=classes, batch_size=BATCH, seed=0)
    sides: dict[str, dict[str, Any]] = {
        "training, mapped cache": {"x": batches, "steps_per_epoch": steps, "shuffle": False},
        "training, Keras's fit on arrays": {"x": arrays[0], "y": arrays[1], "batch_size": BATCH},
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name, source in [*sides.items(), *sides.items()]:
        marks: list[float] = []
        mark = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_, m=marks: m.append(time.perf_counter()))
        model.fit(**source, epochs=epochs + 1, verbose=0, callbacks=[mark])
        seconds[name] += np.diff(marks).tolist()
    ours, theirs = (statistics.median(found) for found in seconds.values())
    for name, median in zip(sides, (ours, theirs), strict=True):
        print(f"{name:40} median {count / median:7.0f} images/s")
    return theirs / ours


if __name__ == "__main__":
    main()
