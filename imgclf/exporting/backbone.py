"""Export the trained backbone alone as `backbone.npz`, in 16 bits.

`backbone.npz` holds one float16 array for each variable of each layer before `feature_map`, named
`<layer>/<variable>`, in the order of the graph; numpy reads it without pickle. `__meta__` is JSON as a uint8 array:
`architecture`, `image_size`, `data_sha256` (of the training images' manifest), `accuracy` (on the run's test part, None
without one), `weights_sha256` (over names and arrays), `proof` (what 16 bits change) and `imgclf` (the version).
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imgclf import __version__, environment, storage, tasks
from imgclf.errors import RunError
from imgclf.exporting import artifacts, parity
from imgclf.models import backbones, classifier
from imgclf.prediction import artifact
from imgclf.runs import Run

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)
import numpy as np  # noqa: E402

NAME = "backbone.npz"
META = "__meta__"


def export_backbone(run: Run, folder: Path | None = None) -> Path:
    """Write `backbone.npz` into a folder, by default the run, once its 16 bits give the labels that 32 bits give.

    Raises:
        RunError: if the run is damaged, its network has no feature map, or its weights do not fit into 16 bits.
        ArtifactError: if 16 bits change a probability by more than parity.FROM_BYTES, or a label.
    """
    facts = artifact.read(run.path)
    model = artifacts.load_model(run, facts)
    if "feature_map" not in model.output:
        raise RunError(
            f"{run.model}: expected a network with global average pooling, found one that ends in tokens or a "
            "vector. --weights RUN takes its backbone."
        )
    variables = {
        name: variable
        for layer in classifier.backbone_layers(model)
        for name, variable in zip(backbones.variable_names(layer), layer.weights, strict=True)
    }
    with np.errstate(over="ignore"):
        arrays = {name: keras.ops.convert_to_numpy(v).astype(np.float16) for name, v in variables.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise RunError(f"{run.model}: expected weights of at most 65504, as 16 bits hold, found larger in {name}.")
    samples = parity.collect(run, facts)
    output = tasks.find(facts.task).OUTPUT
    expected = parity.reference(model, samples.pixels)[output]
    for name, array in arrays.items():
        variables[name].assign(array.astype(np.float32))
    found = parity.reference(model, samples.pixels)[output]
    path = (folder or run.path) / NAME
    proof = parity.compare(path, "16-bit weights", samples, expected, found, parity.FROM_BYTES, task=facts.task)
    meta = {
        "architecture": facts.backbone,
        "image_size": facts.image_size,
        "data_sha256": facts.data_sha256,
        "accuracy": run.scores.get("accuracy") if run.metrics.is_file() else None,
        "weights_sha256": digest(arrays),
        "proof": asdict(proof),
        "imgclf": __version__,
    }
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays, **{META: np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    storage.write_atomic(path, file.getvalue())
    return path


def read_meta(path: Path) -> dict[str, Any]:
    """Return what a `backbone.npz` says of itself."""
    with np.load(path, allow_pickle=False) as arrays:
        meta: dict[str, Any] = json.loads(arrays[META].tobytes())
    return meta


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names and contents, in their order."""
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(name.encode() + b"\0" + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
