"""Runtimes that need a training framework: a SavedModel through TensorFlow, a `.keras` file through Keras."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from imgclf import environment
from imgclf.errors import ArtifactError
from imgclf.prediction.runtime import FEATURES, SIGNATURE, foreign, head


class SavedModelRuntime:
    """A TensorFlow SavedModel folder, on whatever devices TensorFlow finds.

    Raises:
        MissingError: if TensorFlow is not installed.
        ArtifactError: if it is not a SavedModel, or not one that imgclf exported.
    """

    package: ClassVar[str] = "tensorflow"
    batch_size = 32

    def __init__(self, path: Path) -> None:
        self._tensorflow = _import_tensorflow()
        try:
            with environment.silence_stderr_fd(), plainly_named(path) as plain:
                self._model = self._tensorflow.saved_model.load(str(plain))  # the signature does not keep it alive
        except Exception as error:  # TensorFlow raises nearly anything on a damaged folder
            raise foreign(path, error) from None
        signature = self._model.signatures.get(SIGNATURE)
        if signature is None:
            raise foreign(path, f"its signatures are {', '.join(self._model.signatures)}")
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        given = head(outputs)
        if len(inputs) != 1 or given is None:
            raise foreign(path, f"its inputs are {', '.join(inputs)}, its outputs {', '.join(outputs)}")
        [(self._input, details)] = inputs.items()
        self.size_px = int(details.shape[1])
        self.classes = int(outputs[given].shape[-1])
        self.names = tuple(name for name in outputs if name != "labels")
        self._run = signature
        with environment.silence_stderr_fd():  # devices announce themselves at the first run
            self.outputs(np.zeros((1, self.size_px, self.size_px, 3), np.float32), (given,))

    @classmethod
    def start(cls, path: Path, precision: str) -> "SavedModelRuntime":
        """See `Runtime`."""
        return cls(path)

    def prepare(self, calls: int) -> None:
        """See `Runtime`. TensorFlow shares the processor among its calls by itself."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        found = self._run(**{self._input: self._tensorflow.constant(pixels)})
        return {name: found[name].numpy() for name in names}


class KerasRuntime:
    """A `.keras` file through Keras: a run's own `model.keras`, or an exported one.

    The layers of `model.keras` that exports have as outputs become outputs here, too: every engine gives the same
    predictions. A file that contains code is refused, since Keras would run it.

    Raises:
        MissingError: if Keras or its backend is not installed.
        ArtifactError: if it cannot be loaded.
    """

    package: ClassVar[str] = "keras"
    batch_size = 32

    def __init__(self, path: Path) -> None:
        environment.prepare_keras()
        import keras

        from imgclf.models import flattening  # knows the layers that a file may contain

        try:
            with environment.silence_stderr_fd():
                model = flattening.load(path)
            outputs = model.output
            if not isinstance(outputs, dict):
                layers = {layer.name: layer.output for layer in model.layers}
                own = model.output_names[0]
                outputs = {own: outputs} | {name: layers[name] for name in FEATURES if name in layers}
                model = keras.Model(model.input, outputs)
            self._model, self.names = model, tuple(outputs)
            self.size_px, self.classes = int(model.input_shape[1]), int(outputs[head(outputs) or ""].shape[-1])
        except Exception as error:  # Keras raises nearly anything on a file of another version
            what = " ".join(str(error).split()) or type(error).__name__
            if "arbitrary code" in what:
                raise ArtifactError(f"{path}: refused, since it contains code, which Keras would run.") from None
            raise ArtifactError(f"{path}: the model cannot be loaded ({what:.300}).") from None

    @classmethod
    def start(cls, path: Path, precision: str) -> "KerasRuntime":
        """See `Runtime`."""
        return cls(path)

    def prepare(self, calls: int) -> None:
        """See `Runtime`. The backend shares the processor among its calls by itself."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        found = self._model.predict_on_batch(pixels)
        return {name: np.asarray(found[name]) for name in names}


@contextlib.contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """Give the folder a path that TensorFlow, which reads SavedModels by pattern, does not take for another one.

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


def _import_tensorflow() -> Any:
    environment.require("tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    environment.quiet_logging()
    return tensorflow
