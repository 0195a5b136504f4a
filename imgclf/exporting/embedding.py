"""Write a classifier's graph from pixels to embedding as LiteRT, for estimators that are no Keras graph."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf.exporting import artifacts

if TYPE_CHECKING:
    import keras


def write(model: "keras.Model", path: Path) -> None:
    """Write a `.tflite` file whose output is `embedding` (n, d).

    Under a Keras backend other than TensorFlow, a child process does the work.

    Args:
        model: a classifier as `models.classifier.build` makes it.

    Raises:
        MissingError: if TensorFlow is not installed.
    """
    if artifacts.keras_backend() == "tensorflow":
        convert(model, path)
        return
    from imgclf.exporting import worker

    with tempfile.TemporaryDirectory(prefix="imgclf-") as folder:
        source = Path(folder) / "model.keras"
        model.save(source)
        worker.call("embedding", source=str(source), path=str(path.resolve()))


def convert(model: "keras.Model", path: Path) -> None:
    """Do the same under TensorFlow."""
    import keras

    from imgclf.exporting import litert, savedmodel

    part = keras.Model(model.input, {"embedding": model.get_layer("embedding").output}, name=model.name)
    with savedmodel.full_precision():
        path.write_bytes(litert.convert(savedmodel.trace(part)))
