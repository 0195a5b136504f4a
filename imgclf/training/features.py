"""What a frozen backbone sees: computed once per image, never once per epoch."""

import keras
import numpy as np

from imgclf.training import devices
from imgclf.training.fitting import OnProgress

_CHUNK = 512


def extractor(model: keras.Model) -> keras.Model:
    """A classifier up to its embedding. Make one and keep it: each new one is traced anew, which takes seconds."""
    short = keras.Model(model.input, model.get_layer("embedding").output)
    short.compile(jit_compile=devices.jit_compile())
    return short


def compute(
    extractor: keras.Model, pixels: np.ndarray, *, batch_size: int = 32, on_progress: OnProgress | None = None
) -> np.ndarray:
    """The embeddings of images.

    Args:
        extractor: as the function of that name makes it.
        pixels: uint8 (n, s, s, 3).

    Returns:
        float32 (n, d).
    """
    parts = []
    step = batch_size * max(1, _CHUNK // batch_size)
    for start in range(0, len(pixels), step):
        chunk = pixels[start : start + step]
        gap = -len(chunk) % batch_size  # filled up, since a smaller last batch would be traced as well
        full = np.concatenate([chunk, np.zeros((gap, *chunk.shape[1:]), chunk.dtype)]) if gap else chunk
        parts.append(extractor.predict(full, batch_size=batch_size, verbose=0)[: len(chunk)])
        if on_progress:
            on_progress("features", start + len(chunk), len(pixels))
    return np.concatenate(parts).astype(np.float32)
