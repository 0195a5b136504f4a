"""What a frozen backbone sees: computed once per image, never once per epoch."""

import keras
import numpy as np

from imgclf.training import devices
from imgclf.training.fitting import OnProgress

_CHUNK = 512


def compute(
    model: keras.Model, pixels: np.ndarray, *, batch_size: int = 32, on_progress: OnProgress | None = None
) -> np.ndarray:
    """The embeddings of images.

    Args:
        model: a classifier as `models.classifier.build` makes it.
        pixels: uint8 (n, s, s, 3).

    Returns:
        float32 (n, d).
    """
    extractor = keras.Model(model.input, model.get_layer("embedding").output)
    extractor.compile(jit_compile=devices.jit_compile())
    parts = []
    for start in range(0, len(pixels), _CHUNK):
        parts.append(extractor.predict(pixels[start : start + _CHUNK], batch_size=batch_size, verbose=0))
        if on_progress:
            on_progress("features", min(start + _CHUNK, len(pixels)), len(pixels))
    return np.concatenate(parts).astype(np.float32)
