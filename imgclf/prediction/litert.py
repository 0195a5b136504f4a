"""LiteRT runs `.tflite` files on the processor."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np

from imgclf import environment
from imgclf.prediction.runtime import SIGNATURE, foreign, head

COPIES_BYTES = 1 << 29
"""Memory that the weights of a LiteRT model may take when it is opened several times."""


class LiteRTRuntime:
    """A `.tflite` file on the processor.

    Raises:
        MissingError: if LiteRT is not installed.
        ArtifactError: if it is not a LiteRT file, or not one that imgclf exported.
    """

    package: ClassVar[str] = "ai_edge_litert"
    # Larger batches are no faster on a processor and need more memory (MobileNetV2 at 224 px on 2 cores: 108 images/s
    # and 79 MiB at 1, 101 and 103 at 4, 90 and 407 at 32), but tiny networks gain from a few at once.
    batch_size = 4

    def __init__(self, path: Path, main: str | None = None) -> None:
        """Args: main, the output that it must have, by default that of a task; `classes` is the length of that one."""
        environment.require("ai_edge_litert")
        self._path = path
        try:
            first = self._open(environment.cpu_count())
        except (ValueError, RuntimeError) as error:
            raise foreign(path, error) from None
        inputs, outputs = first[1].get_input_details(), first[1].get_output_details()
        main = main or head(outputs)
        if len(inputs) != 1 or main not in outputs:
            raise foreign(path, f"its inputs are {', '.join(inputs)}, its outputs {', '.join(outputs)}")
        [(self._input, details)] = inputs.items()
        self.size_px = int(details["shape"][1])
        self.classes = int(outputs[main]["shape"][-1])
        self.names = tuple(outputs)
        self._idle: SimpleQueue[tuple[Any, Any]] = SimpleQueue()  # an interpreter holds the tensors of one run
        self._idle.put(first)
        self._count = 1
        self._lock = threading.Lock()

    def _open(self, threads: int) -> tuple[Any, Any]:
        """Return an interpreter, and what runs it."""
        from ai_edge_litert.interpreter import Interpreter

        with environment.silence_stderr_fd():  # it announces its XNNPACK delegate there
            interpreter = Interpreter(str(self._path), num_threads=threads)
            interpreter.allocate_tensors()
            return interpreter, interpreter.get_signature_runner(SIGNATURE)

    @classmethod
    def start(cls, path: Path, precision: str) -> "LiteRTRuntime":
        """See `Runtime`."""
        return cls(path)

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

    def constants(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Return the model's float32 weights of a shape; axes of length 1, as in a 1 x 1 convolution, are left out."""
        held, long = self._idle.get(), tuple(side for side in shape if side != 1)
        try:
            interpreter, found = held[0], []
            for details in interpreter.get_tensor_details():
                if tuple(side for side in details["shape"] if side != 1) != long or details["dtype"] != np.float32:
                    continue
                with contextlib.suppress(ValueError):  # which computed tensors raise
                    found.append(interpreter.get_tensor(details["index"]).reshape(shape).copy())
            return found
        finally:
            self._idle.put(held)

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Runtime`."""
        runner = self._idle.get()
        try:
            found = runner[1](**{self._input: pixels})
        finally:
            self._idle.put(runner)
        return {name: found[name] for name in names}
