"""What runs an exported model: one small class for each format, its library imported when it is chosen.

Each has `size_px` and `classes` (of the model's input and answer), `names` (of its outputs), `batch_size` (how many
images to give it at once), `prepare` and `outputs`.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from imgclf import environment
from imgclf.errors import ArtifactError, UsageError

SIGNATURE = "serving_default"
OPENVINO_FILE = "model.xml"
"""In the folder of an OpenVINO model, beside its weights."""

COPIES_BYTES = 1 << 29
"""So much may the weights of a LiteRT model take that is opened several times."""


class Runtime(Protocol):
    """An exported model, ready to answer. May be used by several threads."""

    size_px: int
    classes: int
    names: tuple[str, ...]
    batch_size: int

    def prepare(self, calls: int) -> None:
        """Get ready for so many calls at a time, each on its share of the processor; else one call has all of it."""

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
        self._path = path
        try:
            first = self._open(environment.cpu_count())
        except (ValueError, RuntimeError) as error:
            raise _foreign(path, error) from None
        inputs, outputs = first[1].get_input_details(), first[1].get_output_details()
        if len(inputs) != 1 or "probabilities" not in outputs:
            raise _foreign(path, f"its inputs are {', '.join(inputs)}, its outputs {', '.join(outputs)}")
        [(self._input, details)] = inputs.items()
        self.size_px = int(details["shape"][1])
        self.classes = int(outputs["probabilities"]["shape"][-1])
        self.names = tuple(outputs)
        self._idle: SimpleQueue[tuple[Any, Any]] = SimpleQueue()  # an interpreter holds the tensors of one run
        self._idle.put(first)
        self._count = 1
        self._lock = threading.Lock()

    def _open(self, threads: int) -> tuple[Any, Any]:
        """An interpreter, and what runs it."""
        from ai_edge_litert.interpreter import Interpreter

        with environment.silence_stderr_fd():  # it announces its XNNPACK delegate there
            interpreter = Interpreter(str(self._path), num_threads=threads)
            interpreter.allocate_tensors()
            return interpreter, interpreter.get_signature_runner(SIGNATURE)

    def prepare(self, calls: int) -> None:
        """See `Runtime`. Each call at a time needs a copy of the weights: of a large model there are fewer."""
        calls = min(calls, max(2, COPIES_BYTES // self._path.stat().st_size))
        with self._lock:
            if calls <= self._count:
                return
            new = [self._open(max(1, environment.cpu_count() // calls)) for _ in range(calls)]
            for _ in range(self._count):
                self._idle.get()
            for runner in new:
                self._idle.put(runner)
            self._count = calls

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        runner = self._idle.get()
        try:
            answer = runner[1](**{self._input: pixels})
        finally:
            self._idle.put(runner)
        return {name: answer[name] for name in names}


class ONNXRuntime:
    """An `.onnx` file through ONNX Runtime, on a GPU where its package for CUDA is installed and finds one.

    Raises:
        MissingError: if ONNX Runtime is not installed.
        ArtifactError: if it is not an ONNX file, or not one that imgclf exported.
    """

    batch_size = 4

    def __init__(self, path: Path) -> None:
        environment.require("onnxruntime", "imgclf[onnx]")
        self._path = path
        self._calls = 1
        try:
            self._session = self._open(environment.cpu_count())
        except Exception as error:  # its errors have no common class but this one
            raise _foreign(path, error) from None
        inputs, outputs = self._session.get_inputs(), {o.name: o.shape for o in self._session.get_outputs()}
        if len(inputs) != 1 or "probabilities" not in outputs:
            found = f"its inputs are {', '.join(i.name for i in inputs)}, its outputs {', '.join(outputs)}"
            raise _foreign(path, found)
        self._input = inputs[0].name
        self.size_px = int(inputs[0].shape[1])
        self.classes = int(outputs["probabilities"][-1])
        self.names = tuple(outputs)
        if "CUDAExecutionProvider" in self._session.get_providers():
            self.batch_size = 32

    def _open(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others decode meanwhile
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        with environment.silence_stderr_fd():
            return onnxruntime.InferenceSession(str(self._path), options, providers=providers)

    def prepare(self, calls: int) -> None:
        """See `Runtime`."""
        if calls > self._calls:
            self._session = self._open(max(1, environment.cpu_count() // calls))
            self._calls = calls

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        return dict(zip(names, self._session.run(list(names), {self._input: pixels}), strict=True))


class OpenVINORuntime:
    """A folder with an OpenVINO model, on the processor, in float32 or, where that is asked for, in bfloat16.

    Raises:
        MissingError: if OpenVINO is not installed.
        ArtifactError: if it is not such a folder, or not one that imgclf exported.
    """

    batch_size = 1  # the shape is fixed, for which OpenVINO makes faster code

    def __init__(self, path: Path, precision: str = "float32") -> None:
        environment.require("openvino", "imgclf[openvino]")
        import openvino

        self._core = openvino.Core()
        self._hint = {"float32": "f32", "bf16": "bf16"}[precision]
        try:
            self._model = self._core.read_model(path / OPENVINO_FILE)
            shape = self._model.inputs[0].partial_shape
            self._model.reshape([1, *(shape[axis].get_length() for axis in (1, 2, 3))])
            outputs = {output.get_any_name(): output.shape for output in self._model.outputs}
        except (RuntimeError, IndexError) as error:
            raise _foreign(path, error) from None
        if len(self._model.inputs) != 1 or "probabilities" not in outputs:
            raise _foreign(path, f"its outputs are {', '.join(outputs)}")
        self.size_px = int(self._model.inputs[0].shape[1])
        self.classes = int(outputs["probabilities"][-1])
        self.names = tuple(outputs)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self._count = 0
        self._lock = threading.Lock()

    def prepare(self, calls: int) -> None:
        """See `Runtime`."""
        with self._lock:
            if calls <= self._count:
                return
            settings = {
                "INFERENCE_PRECISION_HINT": self._hint,
                "INFERENCE_NUM_THREADS": environment.cpu_count(),
                "NUM_STREAMS": calls,
            }
            compiled = self._core.compile_model(self._model, "CPU", settings)
            for _ in range(self._count):
                self._idle.get()
            for _ in range(calls):
                self._idle.put(compiled.create_infer_request())
            self._count = calls

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        self.prepare(1)
        request = self._idle.get()
        try:
            rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
            for image in pixels:
                request.infer([image[np.newaxis]])
                for name in names:
                    rows[name].append(request.get_tensor(name).data[0].copy())
        finally:
            self._idle.put(request)
        return {name: np.stack(values) for name, values in rows.items()}


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

    def prepare(self, calls: int) -> None:
        """See `Runtime`. TensorFlow shares the processor among its calls by itself."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        answer = self._run(**{self._input: self._tensorflow.constant(pixels)})
        return {name: answer[name].numpy() for name in names}


class KerasRuntime:
    """A `.keras` file through Keras: a run's own `model.keras`, which has `probabilities` alone, or an exported one.

    A file that carries code is refused: Keras would run it.

    Raises:
        MissingError: if Keras or its backend is not installed.
        ArtifactError: if it cannot be loaded.
    """

    batch_size = 32

    def __init__(self, path: Path) -> None:
        environment.prepare_keras()
        import keras

        try:
            with environment.silence_stderr_fd():
                self._model = keras.saving.load_model(path, compile=False, safe_mode=True)
            self.names = tuple(self._model.output) if isinstance(self._model.output, dict) else ("probabilities",)
            output = self._model.output["probabilities"] if self._named else self._model.output
            self.size_px, self.classes = int(self._model.input_shape[1]), int(output.shape[-1])
        except Exception as error:  # Keras raises nearly anything on a file of another version
            what = " ".join(str(error).split()) or type(error).__name__
            if "arbitrary code" in what:
                raise ArtifactError(f"{path}: it carries code of its own, which could do anything; refused.") from None
            raise ArtifactError(f"{path}: the model cannot be loaded ({what:.300}).") from None

    @property
    def _named(self) -> bool:
        return isinstance(self._model.output, dict)

    def prepare(self, calls: int) -> None:
        """See `Runtime`. The backend shares the processor among its calls by itself."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        answer = self._model.predict_on_batch(pixels)
        return {name: np.asarray(answer[name] if self._named else answer) for name in names}


RUNTIMES: Mapping[str, type[Runtime]] = {
    "litert": LiteRTRuntime,
    "onnx": ONNXRuntime,
    "openvino": OpenVINORuntime,
    "savedmodel": SavedModelRuntime,
    "keras": KerasRuntime,
}
"""By the `format` that artifact.json gives, the quickest to start first."""

PACKAGES = {
    "litert": "ai_edge_litert",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "savedmodel": "tensorflow",
    "keras": "keras",
}


def start(format: str, path: Path, precision: str) -> Runtime:
    """Open a model of a known format.

    Raises:
        UsageError: if `precision` is bf16 and the format is not OpenVINO's.
        MissingError, ArtifactError: as the format's class says.
    """
    if precision == "bf16":
        if format != "openvino":
            raise UsageError(f"--precision bf16: expected --engine openvino, found {format}.")
        return OpenVINORuntime(path, precision)
    runtime: Any = RUNTIMES[format]
    opened: Runtime = runtime(path)
    return opened


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
