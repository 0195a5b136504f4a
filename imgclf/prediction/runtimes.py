"""What runs an exported model: one small class for each format, its library imported when it is chosen.

Each has `size_px` and `classes` (of the model's input and answer), `names` (of its outputs), `batch_size` (how many
images to give it at once) and `outputs`.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imgclf import environment
from imgclf.errors import ArtifactError

SIGNATURE = "serving_default"


class Runtime(Protocol):
    """An exported model, ready to answer. May be used by several threads."""

    size_px: int
    classes: int
    names: tuple[str, ...]
    batch_size: int

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Run the model once.

        Args:
            pixels: float32 (n, size_px, size_px, 3), RGB 0-255; n is at least 1.
            names: the outputs that are wanted.

        Returns:
            name -> float32 (n, ...)
        """


class LiteRTRuntime:
    """A `.tflite` file on the processor.

    Raises:
        MissingError: if LiteRT is not installed.
        ArtifactError: if it is not a LiteRT file, or not one that imgclf exported.
    """

    # Larger batches are no faster on a processor and need more memory (MobileNetV2 at 224 px on 2 cores: 108 images/s
    # and 79 MiB at 1, 101 and 103 at 4, 90 and 407 at 32), but tiny networks gain from a few at once.
    batch_size = 4

    def __init__(self, path: Path) -> None:
        environment.require("ai_edge_litert")
        from ai_edge_litert.interpreter import Interpreter

        try:
            with environment.silence_stderr_fd():  # it announces its XNNPACK delegate there
                self._interpreter = Interpreter(str(path), num_threads=environment.cpu_count())
                self._interpreter.allocate_tensors()
                self._run = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise _foreign(path, error) from None
        inputs, outputs = self._run.get_input_details(), self._run.get_output_details()
        if len(inputs) != 1 or "probabilities" not in outputs:
            raise _foreign(path, f"its inputs are {', '.join(inputs)}, its outputs {', '.join(outputs)}")
        [(self._input, details)] = inputs.items()
        self.size_px = int(details["shape"][1])
        self.classes = int(outputs["probabilities"]["shape"][-1])
        self.names = tuple(outputs)
        self._lock = threading.Lock()  # an interpreter holds the tensors of one run

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        with self._lock:
            answer = self._run(**{self._input: pixels})
        return {name: answer[name] for name in names}


class SavedModelRuntime:
    """A TensorFlow SavedModel folder, on whatever devices TensorFlow finds.

    Raises:
        MissingError: if TensorFlow is not installed.
        ArtifactError: if it is not a SavedModel, or not one that imgclf exported.
    """

    batch_size = 32

    def __init__(self, path: Path) -> None:
        self._tensorflow = _import_tensorflow()
        try:
            with environment.silence_stderr_fd(), plainly_named(path) as plain:
                self._model = self._tensorflow.saved_model.load(str(plain))  # the signature does not keep it alive
        except Exception as error:  # TensorFlow raises nearly anything on a damaged folder
            raise _foreign(path, error) from None
        signature = self._model.signatures.get(SIGNATURE)
        if signature is None:
            raise _foreign(path, f"its signatures are {', '.join(self._model.signatures)}")
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        if len(inputs) != 1 or "probabilities" not in outputs:
            raise _foreign(path, f"its inputs are {', '.join(inputs)}, its outputs {', '.join(outputs)}")
        [(self._input, details)] = inputs.items()
        self.size_px = int(details.shape[1])
        self.classes = int(outputs["probabilities"].shape[-1])
        self.names = tuple(name for name in outputs if name != "labels")
        self._run = signature
        with environment.silence_stderr_fd():  # devices announce themselves at the first run
            self.outputs(np.zeros((1, self.size_px, self.size_px, 3), np.float32), ("probabilities",))

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        answer = self._run(**{self._input: self._tensorflow.constant(pixels)})
        return {name: answer[name].numpy() for name in names}


RUNTIMES: dict[str, Callable[[Path], Runtime]] = {"litert": LiteRTRuntime, "savedmodel": SavedModelRuntime}
"""By the `format` that artifact.json gives."""


@contextlib.contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """The folder under a path that TensorFlow, which reads SavedModels by pattern, does not take for another one.

    That is the path itself if it has none of `[]*?\\`, else a link in a temporary folder, or where the system allows
    no links, a copy.
    """
    if not set("[]*?\\") & set(folder.absolute().as_posix()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="imgclf-") as place:
        plain = Path(place) / "saved_model"
        try:
            plain.symlink_to(folder.absolute(), target_is_directory=True)
        except OSError:
            shutil.copytree(folder, plain)
        yield plain


def _foreign(path: Path, found: object) -> ArtifactError:
    what = " ".join(str(found).split()) or type(found).__name__
    return ArtifactError(
        f"{path}: expected a model that imgclf exported, with one input and the signature {SIGNATURE}, "
        f"found something else ({what:.300}). Export again."
    )


def _import_tensorflow() -> Any:
    environment.require("tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    environment.quiet_logging()
    return tensorflow
