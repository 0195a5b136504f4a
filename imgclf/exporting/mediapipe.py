"""Write a classifier for the Image Classifier of MediaPipe Tasks: LiteRT, float32, with metadata inside.

The file takes one image and has one output. Its metadata say that pixels go in as they are, and that the names of the
classes are in `labels.txt`, in the zip that is appended to the file.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf import environment, tasks
from imgclf.exporting import litert, savedmodel
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.litert import LiteRTRuntime

environment.prepare_keras()

import flatbuffers  # noqa: E402  (after prepare_keras, as all that comes with TensorFlow)
import keras  # noqa: E402
import numpy as np  # noqa: E402
from tensorflow.lite.tools import flatbuffer_utils  # noqa: E402

log = logging.getLogger(__name__)

NAME = "TFLITE_METADATA"
"""Under this name a reader looks for the metadata in the model."""

IDENTIFIER = b"M001"
VERSION = "1.0.0"
"""Version of the metadata's schema: the oldest that has all that is written here."""

NORMALIZATION_OPTIONS, IMAGE_PROPERTIES = 1, 2
"""Members of the unions ProcessUnitOptions and ContentProperties."""

RGB, TENSOR_AXIS_LABELS = 1, 2


def write(path: Path, model: keras.Model, graph: Any, facts: Artifact) -> None:
    """Write the output of the model's task for one image, the batch that MediaPipe and the GPUs of phones expect."""
    if facts.resize != "squash":
        log.warning(
            "%s: MediaPipe stretches an image to a square, and this model was trained with --resize %s. Make images "
            "square by that rule first.",
            path.name,
            facts.resize,
        )
    output = tasks.find(facts.task).OUTPUT
    alone = keras.Model(model.input, {output: model.output[output]}, name=model.name)
    converted = litert.convert(savedmodel.trace(alone, batch=1))
    path.write_bytes(litert.with_labels(_with_metadata(converted, _metadata(model.name, output)), facts.labels))


def predict(path: Path, pixels: np.ndarray, output: str) -> np.ndarray:
    """Ask a written file about pixels (n, s, s, 3), one image at a time; its output, float32 (n, classes)."""
    runtime = LiteRTRuntime(path)
    return np.concatenate([runtime.outputs(image[np.newaxis], [output])[output] for image in pixels])


def _with_metadata(model: bytes, metadata: bytes) -> bytes:
    """Return a LiteRT model with a further buffer, which its own list of metadata names."""
    content = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    schema = flatbuffer_utils.schema_fb
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(metadata, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(content.buffers)
    content.buffers.append(buffer)
    content.metadata = [*(content.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(content))


def _metadata(name: str, output: str) -> bytes:
    """Write the metadata of a model with one image as input and a number for each line of `labels.txt` as output.

    Fields are given by their place in the schema.

    Source: mediapipe/tasks/metadata/metadata_schema.fbs.
    """
    builder = flatbuffers.Builder()
    text = builder.CreateString
    mean, std = (builder.CreateNumpyVector(np.array([value], np.float32)) for value in (0, 1))
    normalization = _table(builder, 2, {0: mean, 1: std})
    unit = _table(builder, 2, {1: normalization}, {0: NORMALIZATION_OPTIONS})
    image = _table(builder, 2, {}, {0: RGB})
    content = _table(builder, 3, {1: image}, {0: IMAGE_PROPERTIES})
    pixels = _table(
        builder,
        7,
        {
            0: text("pixels"),
            1: text("RGB, 0 to 255; the model itself normalizes it."),
            3: content,
            4: _list(builder, [unit]),
        },
    )
    labels = _table(builder, 5, {0: text(litert.LABELS)}, {2: TENSOR_AXIS_LABELS})
    scores = _table(
        builder,
        7,
        {0: text(output), 1: text("One for each class of labels.txt, 0 to 1."), 6: _list(builder, [labels])},
    )
    graph = _table(builder, 10, {2: _list(builder, [pixels]), 3: _list(builder, [scores])})
    whole = _table(builder, 8, {0: text(name), 3: _list(builder, [graph]), 7: text(VERSION)})
    builder.Finish(whole, IDENTIFIER)
    return bytes(builder.Output())


def _table(
    builder: flatbuffers.Builder, size: int, references: Mapping[int, int], numbers: Mapping[int, int] | None = None
) -> int:
    """Write a table and return where it is.

    Args:
        size: its number of fields in the schema.
        references: field -> where the text, list or table is that it holds.
        numbers: field -> a number of one byte.
    """
    builder.StartObject(size)
    for field, place in references.items():
        builder.PrependUOffsetTRelativeSlot(field, place, 0)
    for field, number in (numbers or {}).items():
        builder.PrependUint8Slot(field, number, 0)
    return int(builder.EndObject())


def _list(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)  # offsets of 4 bytes
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
