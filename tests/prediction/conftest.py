import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imgclf import environment
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact, File

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact of 8 px, as LiteRT and as SavedModel, whose answers can be worked out by hand. Read it only.

    The feature map is pixels / 255, the embedding its mean, and the logits are ten times that.
    """
    folder = tmp_path_factory.mktemp("colours")
    environment.prepare_keras()
    import tensorflow as tf

    def answer(pixels: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        feature_map = pixels / 255
        embedding = tf.reduce_mean(feature_map, (1, 2))
        probabilities = tf.nn.softmax(10 * embedding)
        return {"probabilities": probabilities, "embedding": embedding, "feature_map": feature_map}

    def serve(pixels: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return answer(pixels) | {"labels": tf.tile(tf.constant([COLOURS]), (tf.shape(pixels)[0], 1))}

    module = tf.Module()
    pixels = tf.TensorSpec((None, 8, 8, 3), tf.float32, name="pixels")
    graph = tf.function(answer).get_concrete_function(pixels)
    with environment.silence_stderr_fd(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = tf.lite.TFLiteConverter.from_concrete_functions([graph], module).convert()
        signatures = {"serving_default": tf.function(serve).get_concrete_function(pixels)}
        tf.saved_model.save(module, str(folder / "saved_model"), signatures=signatures)
    (folder / "model.tflite").write_bytes(converted)
    formats = {"model.tflite": "litert", "saved_model": "savedmodel"}
    facts = Artifact(
        labels=COLOURS,
        image_size=8,
        resize="squash",
        backbone="by hand",
        outputs=("probabilities", "embedding", "feature_map"),
        data_sha256="",
        files={name: File(format, *artifact.hash_tree(folder / name)) for name, format in formats.items()},
    )
    artifact.write(folder, facts)
    return folder


@pytest.fixture
def spoiled(colours: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the artefact and changes it.

    `spoiled(labels=...)` replaces fields of the `Artifact`; `spoiled("model.tflite", content)` replaces a file, whose
    hash in artifact.json is right again.
    """

    def make(name: str = "", content: bytes = b"", **fields: object) -> Path:
        folder = Path(shutil.copytree(colours, tmp_path / "spoiled"))
        facts = artifact.read(folder)
        if name:
            (folder / name).write_bytes(content)
            fields["files"] = {**facts.files, name: File(facts.files[name].format, *artifact.hash_tree(folder / name))}
        artifact.write(folder, replace(facts, **fields))  # type: ignore[arg-type]
        return folder

    return make
