"""What augmentation costs, as a share of a training step of the default backbone at 96 px.

    python tests/benchmarks/augmentation.py [--repeats N] [--operations]

Both sides of every line are of one run: the step of a batch of 32 that has been prepared, all layers moving, and what a
policy adds to it: cropping that batch on the host, out of cached pixels of 128 px, by one thread, and the step with the
augmentation compiled into it against the step without, turn by turn. `--operations` lists the operations one by one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from imgclf import policies
from imgclf.models import classifier, efficientnet_lite0
from imgclf.training import augmentation, devices

import keras  # isort: skip  (imgclf chooses its backend first)

BATCH, SIZE_PX, CACHED_PX, CLASSES = 32, 96, 128, 10
LIMIT = 0.15


def step_of(policy: policies.Policy, pixels: np.ndarray, targets: np.ndarray) -> Callable[[], object]:
    """A function that does one training step on the batch."""
    keras.utils.set_random_seed(0)
    model = classifier.logits(classifier.build(efficientnet_lite0.build(SIZE_PX), CLASSES))
    model = augmentation.training_model(model, augmentation.Augmenter(policy, seed=0))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=devices.jit_compile())
    return lambda: model.train_on_batch(pixels, targets)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--operations", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    cached = rng.integers(0, 256, (BATCH, CACHED_PX, CACHED_PX, 3), dtype=np.uint8)
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]
    pixels = augmentation.Crop(policies.Policy(), SIZE_PX)(cached, rng)
    names = ["light", "standard", "heavy", "rand-augment", "aug-mix"]
    if arguments.operations:
        names = [f"{name}={min(operation.most, 0.3):g}" for name, operation in policies.OPERATIONS.items()][2:]
    bare = step_of(policies.Policy(), pixels, targets)
    bare(), bare()
    print(f"{'policy':<20}{'step ms':>9}{'with it':>9}{'crop ms':>9}{'in all':>9}")
    shares = {}
    for name in names:
        policy = policies.find(name)
        augmented = step_of(policy, pixels, targets)
        augmented(), augmented()
        crop = augmentation.Crop(policy, SIZE_PX)
        rows = [
            (seconds(bare), seconds(augmented), seconds(lambda: crop(cached, rng)))  # noqa: B023  (called at once)
            for _ in range(arguments.repeats)
        ]
        step, with_it, cropping = (1e3 * median(column) for column in zip(*rows, strict=True))
        shares[name] = (with_it - step + cropping) / step
        print(f"{name:<20}{step:>9.1f}{with_it:>9.1f}{cropping:>9.1f}{shares[name]:>9.1%}", flush=True)
    if "standard" in shares:
        fine = shares["standard"] <= LIMIT
        print(f"standard: {shares['standard']:.1%} of a step, wanted at most {LIMIT:.0%}: {'yes' if fine else 'NO'}")
        sys.exit(not fine)


if __name__ == "__main__":
    main()
