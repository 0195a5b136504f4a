"""The floor that a pretrained backbone has to beat: a plain residual network, twelve epochs of Keras's own `fit`.

    python tests/benchmarks/floor.py FOLDER OUTPUT.keras [--epochs N] [--precision mixed_bfloat16]

FOLDER holds train/<class>/ and val/<class>/ with images of 64 px. Widths 32-64-128-256 of two basic blocks each, a stem
that keeps the resolution, SGD with warmup and cosine, flips and shifted crops. `transfer.py --floor OUTPUT.keras`
compares a probe of it with one of the embedded backbone. An interrupted training goes on where its last epoch ended.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

SIZE, SHIFT, BATCH, RATE = 64, 6, 128, 0.1


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every image of a folder per class: uint8 (n, 64, 64, 3) and the place of its class."""
    files = [(file, place) for place, part in enumerate(sorted(folder.iterdir())) for file in sorted(part.iterdir())]
    pixels = np.empty((len(files), SIZE, SIZE, 3), np.uint8)

    def fill(row: int) -> None:
        pixels[row] = np.asarray(Image.open(files[row][0]).convert("RGB").resize((SIZE, SIZE)))

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(files))))
    return pixels, np.array([place for _, place in files])


class Batches(keras.utils.PyDataset):
    """Every image once an epoch, in an order and with flips and shifts that the epoch decides."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, first_epoch: int) -> None:
        super().__init__()
        self.pixels, self.labels, self.epoch = pixels, labels, first_epoch
        self.on_epoch_begin()

    def __len__(self) -> int:
        return len(self.labels) // BATCH

    def on_epoch_begin(self) -> None:
        self.order = np.random.default_rng(self.epoch).permutation(len(self.labels))

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng((self.epoch, step))
        rows = self.order[step * BATCH : (step + 1) * BATCH]
        padded = np.pad(self.pixels[rows], ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
        crops = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        for row, (top, left, flip) in enumerate(draw.integers((2 * SHIFT + 1, 2 * SHIFT + 1, 2), size=(BATCH, 3))):
            crop = padded[row, top : top + SIZE, left : left + SIZE]
            crops[row] = crop[:, ::-1] if flip else crop
        return crops.astype(np.float32), self.labels[rows]


class Fused(layers.BatchNormalization):
    """Batch normalisation that trains by TensorFlow's fused kernel, which Keras's own does not use."""

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return super().call(x, training=training)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return y


def _conv(x: keras.KerasTensor, width: int, stride: int = 1, kernel: int = 3, *, norm: type) -> keras.KerasTensor:
    x = layers.Conv2D(
        width, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(2.5e-4),
    )(x)  # fmt: skip
    return norm(momentum=0.95)(x)


def network(classes: int, norm: type = Fused) -> keras.Model:
    """Pixels 0-255 (n, s, s, 3) -> the map `features` (n, s/16, s/16, 256) -> logits (n, classes)."""
    pixels = keras.Input((None, None, 3))
    conv = partial(_conv, norm=norm)
    x = layers.ReLU()(conv(layers.Rescaling(1 / 58, -2)(pixels), 32))
    for width in (32, 64, 128, 256):
        for stride in (2, 1):
            y = layers.ReLU()(conv(x, width, stride))
            short = conv(x, width, stride, kernel=1) if stride == 2 else x
            x = layers.ReLU()(layers.Add()([conv(y, width), short]))
    x = layers.Activation("linear", dtype="float32", name="features")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--precision", default="float32", help="mixed_bfloat16 where the processor knows it")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_dtype_policy(options.precision)
    pixels, labels = read(options.folder / "train")
    steps = len(labels) // BATCH
    total, warmup = options.epochs * steps, steps // 2
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=RATE, warmup_steps=warmup, alpha=0.0
    )
    model = network(int(labels.max()) + 1)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    part = options.output.with_suffix(".part")
    backup = keras.callbacks.BackupAndRestore(part, delete_checkpoint=False)
    done = part / "epochs.txt"  # BackupAndRestore knows the epoch, but not before the data are made
    first = len(done.read_text().split()) if done.exists() else 0
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: done.write_text(" ".join(map(str, range(epoch + 1))))
    )
    print(f"{model.count_params():,} parameters, {len(labels):,} images, from epoch {first + 1}", flush=True)
    model.fit(Batches(pixels, labels, first), epochs=options.epochs, callbacks=[backup, note], verbose=2)
    keras.mixed_precision.set_dtype_policy("float32")
    single = network(int(labels.max()) + 1, layers.BatchNormalization)
    single.set_weights(model.get_weights())
    single.save(options.output)
    loss, accuracy = model.evaluate(*read(options.folder / "val"), verbose=0)
    print(f"held-out images: loss {loss:.3f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
