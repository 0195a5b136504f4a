"""Export a backbone with ImageNet's own classes as LiteRT, once, into the cache."""

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf import environment, storage
from imgclf.errors import ArtifactError, UsageError
from imgclf.exporting import artifacts
from imgclf.exporting.artifacts import OnProgress
from imgclf.models import catalog
from imgclf.prediction.artifact import Artifact, File, hash_tree, read, write

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")

FILE = "model.tflite"


def artifact(name: str, *, offline: bool = False, on_progress: OnProgress | None = None) -> Path:
    """Return the folder with `artifact.json` and `model.tflite` of a network with ImageNet's weights and labels.

    The first call fetches the weights, where they do not come with imgclf, and converts them; later ones import neither
    Keras nor TensorFlow. Where the cache cannot be written, the folder is a temporary one of this process.

    Args:
        name: as `catalog.find` knows it, or `imagenet` for the default backbone.
        offline: never touch the network.

    Raises:
        UsageError: if there is no such network, or it has no weights for ImageNet's classes.
        MissingError: if the weights are not on this machine and cannot be had, or are damaged.
        ArtifactError: if the converted network disagrees with Keras.
    """
    facts = catalog.find(catalog.DEFAULT if name == catalog.IMAGENET else name)
    if facts.parameters_with_top is None:
        raise UsageError(
            f"{facts.name} has no classes of its own: imgclf train DATA --backbone {facts.name} makes them."
        )
    parent = environment.cache_root() / "pretrained"
    if _is_whole(parent / facts.name):
        return parent / facts.name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        log.warning(
            "%s cannot be written (%s), so the model is converted on every call. Set XDG_CACHE_HOME to another folder.",
            parent,
            error.strerror or error,
        )
        parent = Path(tempfile.mkdtemp(prefix="imgclf-pretrained-"))
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
    if artifacts.keras_backend() != "tensorflow":
        from imgclf.exporting import worker

        worker.call("pretrained", name=facts.name, parent=str(parent), offline=offline)
    else:
        make(parent, facts.name, offline=offline, on_progress=on_progress)
    return parent / facts.name


def make(parent: Path, name: str, *, offline: bool, on_progress: OnProgress | None = None) -> None:
    """Convert a network into the folder of its name, which appears once it is whole.

    Raises:
        MissingError, ArtifactError: as `artifact` does.
    """
    folder = parent / name
    with storage.stage(parent) as stage:
        _convert(stage / name, name, offline, on_progress)
        if folder.exists():
            os.replace(folder, stage / "damaged")
        os.replace(stage / name, folder)


def _is_whole(folder: Path) -> bool:
    """Whether all is there that was written; the hash is checked when it is loaded."""
    try:
        return (folder / FILE).stat().st_size == read(folder).files[FILE].bytes
    except (OSError, ArtifactError, KeyError):
        return False


def _convert(folder: Path, name: str, offline: bool, on_progress: OnProgress | None) -> None:
    from imgclf.exporting import litert, parity, savedmodel
    from imgclf.models import backbones, efficientnet_lite0

    labels = efficientnet_lite0.imagenet_labels()
    if name == catalog.DEFAULT:
        model = _with_outputs(efficientnet_lite0.build_with_top())
    else:
        downloading = (lambda done, total: on_progress("downloading MB", done, total)) if on_progress else None
        model = _with_outputs(backbones.build_with_top(name, offline=offline, on_progress=downloading))
    if on_progress:
        on_progress("converting", 0, 1)
    folder.mkdir()
    with savedmodel.full_precision():
        (folder / FILE).write_bytes(litert.convert(savedmodel.trace(model), labels))
        facts = Artifact(
            labels=tuple(labels),
            image_size=model.input_shape[1],
            resize="crop",  # as ImageNet is evaluated: the central square
            backbone=name,
            outputs=tuple(key for key in ("probabilities", *artifacts.FEATURES) if key in model.output),
            data_sha256="",
            files={FILE: File("litert", *hash_tree(folder / FILE))},
        )
        write(folder, facts)
        samples = parity.made_up(facts, 4)
        parity.prove(folder / FILE, folder / FILE, samples, parity.reference(model, samples.pixels))
    if on_progress:
        on_progress("converting", 1, 1)


def _with_outputs(model: "keras.Model") -> "keras.Model":
    """Return the same network with a dict of outputs.

    `embedding` (n, d) is what the last layer with weights sees; `feature_map` (n, h, w, d) is there if that is the
    plain average of a map.
    """
    import keras
    from keras import layers

    passive = (layers.Activation, layers.Softmax, layers.Dropout, layers.Reshape, layers.Flatten)
    before, head = [layer for layer in model.layers if not isinstance(layer, passive)][-2:]
    outputs = {"probabilities": model.output, "embedding": layers.Flatten(name="embedding")(head.input)}
    if isinstance(before, layers.GlobalAveragePooling2D):
        outputs["feature_map"] = before.input
    return keras.Model(model.input, outputs, name=model.name)
