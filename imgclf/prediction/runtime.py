"""The seam between an exported model and what runs it: one protocol."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from imgclf.errors import ArtifactError

SIGNATURE = "serving_default"


class Runtime(Protocol):
    """An exported model, ready to predict. May be used by several threads.

    Args:
        package: the Python package that runs it.
        size_px: the side of the model's input.
        classes: the length of the output of its task, such as `probabilities`.
        names: its outputs; one of them is that of its task.
        batch_size: how many images to give it at once.
    """

    package: ClassVar[str]
    size_px: int
    classes: int
    names: tuple[str, ...]
    batch_size: int

    @classmethod
    def start(cls, path: Path, precision: str) -> "Runtime":
        """Open an exported file or folder.

        Args:
            precision: the one to compute in, where the runtime offers a choice; else the model's own.

        Raises:
            MissingError: if the package is not installed.
            ArtifactError: if the file is damaged or foreign.
        """

    def prepare(self, calls: int) -> None:
        """Get ready for `calls` calls at a time, each on its share of the processor; else one call uses all of it."""

    def outputs(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Run the model once.

        Args:
            pixels: float32 (n, size_px, size_px, 3), RGB 0-255; n is at least 1.
            names: the outputs to return.

        Returns:
            name -> float32 (n, ...)
        """


FEATURES = ("embedding", "feature_map")
"""Outputs of every task. What a model gives beside them, and beside its class names, is the output of its task."""


def head(names: Iterable[str]) -> str | None:
    """Return the output of a model's task, such as `probabilities`; None where there is none, or more than one."""
    found = [name for name in names if name not in (*FEATURES, "labels")]
    return found[0] if len(found) == 1 else None


def foreign(path: Path, found: object) -> ArtifactError:
    """Return the error for a file that imgclf did not export."""
    what = " ".join(str(found).split()) or type(found).__name__
    return ArtifactError(
        f"{path}: expected a model that imgclf exported, with one input and the signature {SIGNATURE}, "
        f"found something else ({what:.300}). Export again."
    )
