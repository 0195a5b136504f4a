"""What the device asks for."""

import os
from typing import Literal

import keras


def names() -> list[str]:
    """The devices that Keras can compute on, such as "CPU" and "GPU:0 NVIDIA H200"."""
    if keras.backend.backend() == "tensorflow":
        from tensorflow import config

        gpus = config.list_physical_devices("GPU")
        kinds = [config.experimental.get_device_details(gpu).get("device_name", "") for gpu in gpus]
        return ["CPU", *(f"GPU:{number} {kind}".rstrip() for number, kind in enumerate(kinds))]
    if keras.backend.backend() == "jax":
        import jax

        return [f"{device.platform.upper()}:{device.id} {device.device_kind}" for device in jax.devices()]
    return ["CPU"] if on_cpu() else ["GPU"]


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
