"""Write a classifier as one `.keras` file with all its outputs and `labels.txt`."""

import zipfile
from pathlib import Path
from typing import Any

from imgclf import environment, runs
from imgclf.prediction.artifact import Artifact

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


def write(path: Path, model: keras.Model, graph: Any, facts: Artifact) -> None:
    """Write the model as it is, and the class names into the zip that a `.keras` file is."""
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", runs.labels_text(facts.labels).encode("utf-8", "surrogateescape"))
