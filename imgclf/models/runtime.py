"""A run's own `model.keras` as a runtime, beside those that `imgclf.prediction` has for exported models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imgclf import environment
from imgclf.errors import RunError

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


class KerasRuntime:
    """A saved classifier, ready to answer with `probabilities`. See `imgclf.prediction.runtimes.Runtime`.

    Raises:
        RunError: if it cannot be loaded.
    """

    names: tuple[str, ...] = ("probabilities",)
    batch_size = 32

    def __init__(self, path: Path) -> None:
        try:
            self._model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # Keras raises nearly anything on a file of another version
            raise RunError(f"{path}: the model cannot be loaded ({str(error) or type(error).__name__}).") from None
        self.size_px = int(self._model.input_shape[1])
        self.classes = int(self._model.output_shape[-1])

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """float32 (n, size_px, size_px, 3), RGB 0-255 -> {"probabilities": float32 (n, classes)}."""
        return {"probabilities": np.asarray(self._model.predict_on_batch(pixels))}
