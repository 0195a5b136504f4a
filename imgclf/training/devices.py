"""Choose the devices that Keras computes on."""

import contextlib
import logging
import os
from typing import Literal

from imgclf import environment
from imgclf.errors import UsageError

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

log = logging.getLogger("imgclf")


def names() -> list[str]:
    """Return the devices that Keras can compute on, such as "CPU" and "GPU:0 NVIDIA H200"."""
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

        return not tensorflow.config.get_visible_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        chosen = jax.config.jax_default_device
        return bool((chosen.platform if chosen else jax.default_backend()) == "cpu")
    return os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1")


def choose(device: str) -> None:
    """Compute on a kind of device from now on.

    Under JAX, all devices of that kind share each batch; under TensorFlow one computes.

    Args:
        device: auto, cpu, gpu or tpu.

    Raises:
        UsageError: if there is none of that kind.
    """
    if device != "auto":
        _choose_kind(device)
    if keras.backend.backend() == "jax":
        import jax

        shared = jax.local_devices(backend=None if device == "auto" else device)
        if len(shared) > 1 and keras.distribution.distribution() is None:
            mesh = [f"{one.platform}:{one.id}" for one in shared]
            keras.distribution.set_distribution(keras.distribution.DataParallel(devices=mesh))
            log.info("%d devices share each batch.", len(shared))
    elif len(found := names()) > 2 and not on_cpu():
        log.info("The first of %d GPUs computes; with KERAS_BACKEND=jax, all would.", len(found) - 1)


def sharing() -> int:
    """How many devices share each batch."""
    distribution = keras.distribution.distribution()
    return int(distribution.device_mesh.devices.size) if distribution else 1


def check_batch(size: int) -> None:
    """Whether the devices can share a batch.

    Raises:
        UsageError: if it is no multiple of their number.
    """
    if size % sharing():
        raise UsageError(
            f"--batch-size: expected a multiple of {sharing()}, the number of devices that share it, found {size}."
        )


def _choose_kind(device: str) -> None:
    found = names()
    if not any(name.upper().startswith(device.upper()) for name in found):
        hint = " TPUs need KERAS_BACKEND=jax." if device == "tpu" and keras.backend.backend() != "jax" else ""
        raise UsageError(f"--device {device}: expected one of this kind, found {', '.join(found)}.{hint}")
    if keras.backend.backend() == "tensorflow" and device == "cpu":
        from tensorflow import config

        with contextlib.suppress(RuntimeError):  # the devices are in use already, by a caller of the library
            config.set_visible_devices([], "GPU")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_device", jax.devices(device)[0])


def make_deterministic() -> None:
    """Let the same operations give the same bits every time, at the cost of speed."""
    if keras.backend.backend() == "tensorflow":
        from tensorflow import config

        config.experimental.enable_op_determinism()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory did not hold what was asked of a device."""
    if isinstance(error, MemoryError):
        return True
    text = f"{type(error).__name__} {error}"
    return "ResourceExhausted" in text or "RESOURCE_EXHAUSTED" in text or "OutOfMemory" in text


def jit_compile() -> bool | Literal["auto"]:
    """Choose the value for `compile`: XLA convolves ten times as slowly as oneDNN on a CPU under TensorFlow."""
    return False if keras.backend.backend() == "tensorflow" and on_cpu() else "auto"
