"""How much of the speed of `train_on_batch`, with all batches made beforehand in memory, an epoch of imgclf's training
keeps: shuffling, Grain, callbacks and bookkeeping included. And whether memory grows over 50 epochs.

    python tests/benchmarks/steps.py [--size PX] [--images N] [--epochs N]

The default backbone, all layers free, batches of 32, no augmentation, one process: epochs of one side and the other by
turns, medians are compared. Memory is that of a small CNN's process after each epoch.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from imgclf import policies
from imgclf.models import classifier, convnets, efficientnet_lite0
from imgclf.settings import TrainConfig
from imgclf.training import loop, recipe
from imgclf.training.images import Part

import keras  # isort: skip  (imgclf chooses its backend first)

LEAST = 0.95
GROWTH_MIB = 20.0
"""Over the last 40 of 50 epochs: what the allocator may still move."""

PLAN, _ = recipe.resolve(
    TrainConfig(
        backbone="small-cnn",
        image_size=96,
        epochs=1,
        batch_size=32,
        lr=1e-4,
        warmup_epochs=0,
        weight_decay=0.01,
        augment="none",
    )
)


class _OtherSide(keras.callbacks.Callback):
    """After every epoch of `fit`, the same number of steps by `train_on_batch`."""

    def __init__(self, batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        self.batches, self.seconds = batches, list[float]()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        started = time.perf_counter()
        for pixels, targets in self.batches:
            self.model.train_on_batch(pixels, targets)
        self.seconds.append(time.perf_counter() - started)


def part(images: int, size_px: int) -> Part:
    pixels = np.random.default_rng(0).integers(0, 256, (images, size_px, size_px, 3), dtype=np.uint8)
    return Part(pixels, np.arange(images) % 2)


def throughput(images: int, size_px: int, epochs: int) -> bool:
    network = efficientnet_lite0.build(size_px)
    efficientnet_lite0.load_weights(network)
    train = part(images, size_px)
    batches = [
        (train.pixels[start : start + 32], np.eye(2, dtype=np.float32)[train.labels[start : start + 32]])
        for start in range(0, images - 31, 32)
    ]
    other = _OtherSide(batches)
    plan = replace(PLAN, sizes=(size_px,), epochs=1 + epochs)
    rows = loop.fit(classifier.build(network, 2), train, None, plan, loop.Options("fit", callbacks=[other]))
    ours = statistics.median(row["seconds"] for row in rows[1:])  # the first one traces
    theirs = statistics.median(other.seconds[1:])
    count = 32 * len(batches)
    print(f"imgclf's training  {count / ours:7.1f} images/s, median of {epochs} epochs")
    print(f"train_on_batch     {count / theirs:7.1f} images/s, median of {epochs} rounds")
    print(f"{theirs / ours:.3f} of it, asked at least {LEAST}: {'met' if theirs / ours >= LEAST else 'MISSED'}")
    return theirs / ours >= LEAST


def memory() -> bool:
    process, seen = psutil.Process(), list[float]()
    loop.fit(
        classifier.build(convnets.small_cnn(32), 2),
        part(128, 32),
        part(32, 32),
        replace(PLAN, sizes=(32,), epochs=50, policy=policies.POLICIES["standard"], ema=0.9),
        loop.Options("memory", on_epoch=lambda rows: seen.append(process.memory_info().rss / 2**20)),
    )
    growth = seen[-1] - seen[9]
    print(f"memory after 1, 10, 30 and 50 epochs: {', '.join(f'{seen[i]:.0f}' for i in (0, 9, 29, 49))} MiB")
    print(f"growth over the last 40: {growth:.1f} MiB, asked at most {GROWTH_MIB:g}")
    return growth <= GROWTH_MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    met = throughput(options.images, options.size, options.epochs)
    met &= memory()
    sys.exit(not met)


if __name__ == "__main__":
    main()
