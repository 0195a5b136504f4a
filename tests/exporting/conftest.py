"""A run made without training: a small network whose answers span 0.1 to 0.9 on its own images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf import environment, runs, storage
from imgclf.data import dataset as datasets
from imgclf.data import images
from imgclf.data.dataset import TEST, TRAIN, Dataset, Sample
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact, File
from imgclf.runs import Run

LABELS = ("ants", "bées", "[moth]")
SIZE_PX = 32


def photograph(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    """Coloured waves of all lengths with a little noise: an RGB image that resizing and JPEG have to work on."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-25, 25, (3, 3))]
    pixels = 127 + 100 * np.stack(waves, axis=-1) + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def network(pixels: np.ndarray, classes: int, *, flat: bool = False) -> Any:
    """A classifier with the layer names of `models.classifier`, random weights, and answers fitted to these pixels.

    Args:
        pixels: float32 (n, s, s, 3), 0-255.
        flat: end in flattened pixels instead of global average pooling, so without a feature map.
    """
    environment.prepare_keras()
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(pixels.shape[1:], name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(x)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="conv_1")(x)
    x = layers.BatchNormalization(name="norm_1")(x)
    x = layers.Activation("swish", name="swish_1")(x)
    x = layers.Conv2D(12, 3, 2, padding="same", name="conv_2")(x)
    if flat:
        x = layers.Flatten(name="embedding")(x)
    else:
        x = layers.Activation("linear", name="feature_map")(x)
        x = layers.GlobalAveragePooling2D(name="embedding")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    x = layers.Dense(classes, name="logits")(x)
    x = layers.Softmax(name="probabilities")(x)
    model = keras.Model(inputs, x, name="small")
    embedding = keras.Model(inputs, model.get_layer("embedding").output)(pixels).numpy()
    kernel = np.random.default_rng(0).normal(size=(embedding.shape[1], classes))
    kernel *= 2.5 / ((embedding - embedding.mean(0)) @ kernel).std()
    model.get_layer("logits").set_weights([kernel, -embedding.mean(0) @ kernel])
    return model


def write_run(folder: Path, data: Path, *, flat: bool = False) -> Run:
    """A run folder over the images in `data`: every second one is in the test part."""
    run = runs.create(folder)
    files = sorted(path for path in data.rglob("*.*") if path.is_file())
    samples = tuple(
        Sample(path.relative_to(data).as_posix(), path.parent.name, (TEST, TRAIN)[place % 2])
        for place, path in enumerate(files)
    )
    dataset = Dataset(data, samples, LABELS)
    datasets.write_manifest(dataset, run.manifest)
    storage.write_json(run.config, {"data": str(data), "config": {"image_size": SIZE_PX, "resize": "squash"}})
    run.write_labels(list(LABELS))
    pixels = np.stack([images.load(path, SIZE_PX) for path in files]).astype(np.float32)
    network(pixels, len(LABELS), flat=flat).save(run.model)
    file = File("keras", *artifact.hash_tree(run.model))
    facts = Artifact(LABELS, SIZE_PX, "squash", "small", ("probabilities",), dataset.digest(), {run.model.name: file})
    artifact.write(run.path, facts)
    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with 24 images: JPEG, one of them turned by EXIF, PNG and WebP."""
    folder = tmp_path_factory.mktemp("photographs")
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(24):
        place = folder / LABELS[number % len(LABELS)] / f"{number:02}"
        place.parent.mkdir(exist_ok=True)
        suffix, options = ((".jpg", {"exif": turned}), (".jpg", {}), (".png", {}), (".webp", {}))[number % 4]
        photograph(number, 60 + 3 * number, 90).save(place.with_suffix(suffix), **options)
    return folder


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Run:
    """A run over the photographs that was never exported. Read it, never write it."""
    return write_run(tmp_path_factory.mktemp("pristine") / "run", photographs)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, pristine: Run) -> tuple[Run, list[dict[str, Any]]]:
    """The same run with both formats, and the export's report. Read it, never write it."""
    from imgclf.exporting import artifacts

    run = Run(shutil.copytree(pristine.path, tmp_path_factory.mktemp("exported") / "run"))
    return run, artifacts.write(run, ["litert", "savedmodel"])


@pytest.fixture
def run(tmp_path: Path, pristine: Run) -> Run:
    """A run of one's own, not yet exported."""
    return Run(shutil.copytree(pristine.path, tmp_path / "run"))


@pytest.fixture
def flat_run(tmp_path: Path, photographs: Path) -> Run:
    """A run whose classifier ends in flattened pixels, not yet exported."""
    return write_run(tmp_path / "run", photographs, flat=True)
