"""Write a classifier as one `.keras` file with all its outputs and `labels.txt`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from imgclf import environment, runs

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


def write(model: keras.Model, path: Path, labels: Sequence[str]) -> None:
    """Write the model as it is, and the class names into the zip that a `.keras` file is."""
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", runs.labels_text(labels).encode("utf-8", "surrogateescape"))
