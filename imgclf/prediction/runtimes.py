"""What runs an exported model: one small class per format, whose library is imported when it starts.

A further runtime is a class with the members of `Runtime` and an entry in `RUNTIMES`.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.prediction.classical import ClassicalRuntime
from imgclf.prediction.frameworks import KerasRuntime, SavedModelRuntime
from imgclf.prediction.litert import LiteRTRuntime
from imgclf.prediction.runtime import Runtime, foreign, head

OPENVINO_FILE = "model.xml"
"""In the folder of an OpenVINO model, beside its weights."""


class ONNXRuntime:
    """An `.onnx` file through ONNX Runtime, on a GPU where its package for CUDA is installed and finds one.

    Raises:
        MissingError: if ONNX Runtime is not installed.
        ArtifactError: if it is not an ONNX file, or not one that imgclf exported.
    """

    package: ClassVar[str] = "onnxruntime"
    batch_size = 4

    def __init__(self, path: Path) -> None:
        environment.require("onnxruntime", "imgclf[onnx]")
        self._path = path
        self._calls = 1
        try:
            self._session = self._open(environment.cpu_count())
        except Exception as error:  # its errors have no common class but this one
            raise foreign(path, error) from None
        inputs, outputs = self._session.get_inputs(), {o.name: o.shape for o in self._session.get_outputs()}
        given = head(outputs)
        if len(inputs) != 1 or given is None:
            found = f"its inputs are {', '.join(i.name for i in inputs)}, its outputs {', '.join(outputs)}"
            raise foreign(path, found)
        self._input = inputs[0].name
        self.size_px = int(inputs[0].shape[1])
        self.classes = int(outputs[given][-1])
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

    @classmethod
    def start(cls, path: Path, precision: str) -> "ONNXRuntime":
        """See `Runtime`."""
        return cls(path)

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

    package: ClassVar[str] = "openvino"
    batch_size = 1  # the shape is fixed, for which OpenVINO makes faster code

    def __init__(self, path: Path, precision: str = "float32") -> None:
        environment.require("openvino", "imgclf[openvino]")
        import openvino

        self._core = openvino.Core()
        self._hint = "bf16" if precision == "bf16" else "f32"
        try:
            self._model = self._core.read_model(path / OPENVINO_FILE)
            shape = self._model.inputs[0].partial_shape
            self._model.reshape([1, *(shape[axis].get_length() for axis in (1, 2, 3))])
            outputs = {output.get_any_name(): output.shape for output in self._model.outputs}
        except (RuntimeError, IndexError) as error:
            raise foreign(path, error) from None
        given = head(outputs)
        if len(self._model.inputs) != 1 or given is None:
            raise foreign(path, f"its outputs are {', '.join(outputs)}")
        self.size_px = int(self._model.inputs[0].shape[1])
        self.classes = int(outputs[given][-1])
        self.names = tuple(outputs)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def start(cls, path: Path, precision: str) -> "OpenVINORuntime":
        """See `Runtime`."""
        return cls(path, precision)

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


RUNTIMES: dict[str, type[Runtime]] = {
    "sklearn": ClassicalRuntime,  # which knows its neighbors, too
    "litert": LiteRTRuntime,
    "onnx": ONNXRuntime,
    "openvino": OpenVINORuntime,
    "savedmodel": SavedModelRuntime,
    "keras": KerasRuntime,
}
"""By the `format` in artifact.json, in the order of preference: the fastest to start comes first among networks."""


def start(format: str, path: Path, precision: str) -> Runtime:
    """Open a model of a known format.

    Raises:
        UsageError: if `precision` is bf16 and the format is not OpenVINO's.
        MissingError, ArtifactError: as the format's class says.
    """
    if precision == "bf16" and format != "openvino":
        raise UsageError(f"--precision bf16: expected --engine openvino, found {format}.")
    return RUNTIMES[format].start(path, precision)
