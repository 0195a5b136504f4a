"""What the default backbone does on an accelerator under JAX: images per second of probe features, fine-tuning and
prediction in float32 and bfloat16, each beside a bare loop over batches that are ready in memory; and peak memory.

    KERAS_BACKEND=jax python tests/benchmarks/gpu.py [--images N] [--size PX] [--batch-size N]

Both sides of a row run in one process, by turns, and medians of three are printed after a run that compiles. The whole
takes minutes on a GPU; on a CPU, `--images 64 --size 64 --batch-size 16` shows that it works.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imgclf
from imgclf.data import loading
from imgclf.data.dataset import Dataset
from imgclf.settings import TrainConfig
from imgclf.training import features, loop, network, recipe
from imgclf.training.images import Part

import jax  # isort: skip
import keras  # isort: skip  (imgclf chooses its backend first)

CLASSES, TURNS = 10, 3

Side = Callable[[], object]
Images = tuple[Dataset, loading.Pixels]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048, help="Images of each turn.")
    parser.add_argument("--size", type=int, default=224, help="Image size in px.")
    parser.add_argument("--batch-size", type=int, default=256, help="Images per batch.")
    options = parser.parse_args()
    if keras.backend.backend() != "jax":
        raise SystemExit("expected KERAS_BACKEND=jax")
    device = jax.local_devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}, {options.images} images of {options.size} px\n")
    print("| task | precision | imgclf, images/s | bare loop, images/s | ratio | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        images = decode(Path(folder), options.images, options.size)
        for precision in ("float32", "mixed_bfloat16"):
            for task, sides in (("probe features", probe), ("fine-tuning", finetune), ("prediction", predict)):
                own_s, bare_s = by_turns(*sides(images, precision, options.batch_size))
                stats = device.memory_stats() or {}
                peak = f"{stats['peak_bytes_in_use'] / 1e9:.1f}" if "peak_bytes_in_use" in stats else "not told"
                rates = options.images / own_s, options.images / bare_s
                row = f"| {task} | {precision} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f} | {peak} |"
                print(row, flush=True)


def decode(folder: Path, count: int, size: int) -> Images:
    """Noise in files, decoded again."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return loading.decode(imgclf.read(folder, TrainConfig(near_duplicates="off")), size, cache="off")


def by_turns(*sides: Side) -> list[float]:
    """The median seconds of each side, after one call of each that compiles."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(1 + TURNS):
        for side, own in zip(sides, times, strict=True):
            started = time.monotonic()
            side()
            if turn:
                own.append(time.monotonic() - started)
    return [statistics.median(own) for own in times]


def settled(precision: str, batch_size: int, size: int) -> recipe.Recipe:
    config = TrainConfig(
        method="finetune",
        unfreeze_from="1.0",
        image_size=size,
        batch_size=batch_size,
        epochs=1,
        precision=precision,
        augment="none",
        cache="off",
    )
    return recipe.resolve(config)[0]


def build(precision: str, batch_size: int, size: int) -> tuple[keras.Model, recipe.Recipe]:
    """The classifier in a precision, with the bundled weights."""
    resolved = settled(precision, batch_size, size)
    return network.for_steps(network.build(resolved, CLASSES), resolved), resolved


def forward(model: keras.Model, pixels: np.ndarray, batch_size: int) -> Side:
    """Jitted passes over batches that wait on the device; the results are fetched at the end."""
    trainable, others = model.trainable_variables, model.non_trainable_variables
    state = [[jax.numpy.copy(v.value) for v in group] for group in (trainable, others)]  # Keras donates its own
    run = jax.jit(lambda state, batch: model.stateless_call(*state, batch, training=False)[0])
    parts = np.array_split(pixels, max(1, len(pixels) // batch_size))
    batches = [jax.device_put(part.astype(np.float32)) for part in parts]
    return lambda: [np.asarray(found) for found in [run(state, batch) for batch in batches]]


def probe(images: Images, precision: str, batch_size: int) -> tuple[Side, Side]:
    model, resolved = build(precision, batch_size, images[1].shape[1])
    embedding = keras.Model(model.input, model.get_layer("embedding").output)
    return lambda: features.frozen(model, *images, resolved), forward(embedding, images[1][:], batch_size)


def finetune(images: Images, precision: str, batch_size: int) -> tuple[Side, Side]:
    """One epoch with all layers trainable, shuffling, Grain and bookkeeping included, beside `train_on_batch`."""
    model, resolved = build(precision, batch_size, images[1].shape[1])
    twin, _ = build(precision, batch_size, images[1].shape[1])
    part = Part(images[1][:], images[0].labels)
    bare = loop.compiled(twin, part, resolved)
    batches = list(itertools.islice(loop.batches(twin, part, resolved, 0), len(part.labels) // batch_size))

    def steps() -> Any:
        for batch in batches:
            losses = bare.train_on_batch(*batch)
        return float(losses[0])

    return lambda: loop.fit(model, part, None, resolved, loop.Options("finetune")), steps


def predict(images: Images, precision: str, batch_size: int) -> tuple[Side, Side]:
    """`imgclf.load` of a run with Keras as its engine, beside jitted passes; its own side is always float32."""
    folder = Path(tempfile.mkdtemp())
    dataset, pixels = images
    settings = TrainConfig(method="probe", image_size=pixels.shape[1], export="none", cache="off")
    run = imgclf.train(replace(dataset, settings=None), settings, output=folder / "run", with_report=False)
    loaded = imgclf.load(run.path, engine="keras")
    model, _ = build(precision, batch_size, pixels.shape[1])
    arrays = list(pixels[:])
    return lambda: loaded.predict(arrays, batch_size=batch_size), forward(model, pixels[:], batch_size)


if __name__ == "__main__":
    main()
