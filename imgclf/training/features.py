"""What a frozen backbone sees: computed once per image, never once per epoch."""

import keras
import numpy as np

from imgclf.data import loading
from imgclf.training import devices, fitting
from imgclf.training.fitting import OnProgress


def compute(
    model: keras.Model,
    pixels: np.ndarray | loading.Pixels,
    *,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> np.ndarray:
    """The embeddings of images. Give it all of them at once: each call traces the network anew, which takes seconds.

    Args:
        model: a classifier as `models.classifier.build` makes it.
        pixels: uint8 (n, s, s, 3).

    Returns:
        float32 (n, d).
    """
    extractor = keras.Model(model.input, model.get_layer("embedding").output)
    extractor.compile(jit_compile=devices.jit_compile())

    def report(done: int) -> None:
        if on_progress:
            on_progress("features", done, len(pixels))

    return fitting.predict(extractor, pixels, batch_size, report)
