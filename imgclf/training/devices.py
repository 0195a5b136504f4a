"""What the device asks for."""

import os
from typing import Literal

import keras


def on_cpu() -> bool:
    """Whether Keras computes on the processor alone."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return not tensorflow.config.list_physical_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1")


def jit_compile() -> bool | Literal["auto"]:
    """The value for `compile`: XLA's convolutions on a CPU take ten times as long as oneDNN's under TensorFlow."""
    return False if keras.backend.backend() == "tensorflow" and on_cpu() else "auto"
