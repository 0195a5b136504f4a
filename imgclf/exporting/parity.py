"""Verify an export: load it as users do, and compare it on the run's images with Keras, or with scikit-learn."""

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from imgclf import environment, prediction, tasks
from imgclf.data import content, images, run_data
from imgclf.data.dataset import SPLITS, Dataset, Sample
from imgclf.errors import ArtifactError, ImageError, RunError
from imgclf.prediction import artifact
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.classical import VECTORS_FORMAT
from imgclf.runs import Run

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

COUNT = 16
BATCH = 4

ON_PIXELS = 1e-4
"""The largest difference between two probabilities that rounding explains, on equal pixels."""

FROM_BYTES = 0.02
"""The same for encoded images. Their pixels are the same where Pillow is the one that `savedmodel` repeats; another
release of it, or of a decoder in it or in TensorFlow, may round otherwise, by one level of 255."""

ON_FEATURES = 1e-3
"""The same for embedding and feature map, relative to the largest value."""

TIE = 0.02
"""Where the two best probabilities are closer than this, another label is no disagreement."""


@dataclass(frozen=True)
class Tolerance:
    """What may differ: a probability; the outputs `embedding` and `feature_map`, relative to their largest value; and
    the label, where the two best probabilities are closer than `tie`."""

    probabilities: float
    features: float
    tie: float


TOLERANCES = {
    "float32": Tolerance(ON_PIXELS, ON_FEATURES, TIE),
    "float16": Tolerance(0.01, 0.01, TIE),
    "int8": Tolerance(0.25, 0.25, 0.5),  # of a whole test part, `quality.measure` asks for more
}
"""By precision."""

KERAS, SKLEARN = "Keras", "scikit-learn"

KEPT = "This export is not kept; a file that was there before is unchanged."


@dataclass(frozen=True)
class Samples:
    """What to compare on: pixels float32 (n, s, s, 3), 0-255, and the same images encoded."""

    pixels: np.ndarray
    encoded: tuple[bytes, ...]
    source: Literal["images", "made-up pixels"]


@dataclass(frozen=True)
class Proof:
    """How far an export is from the original.

    `max_difference` is between two probabilities on equal pixels; `max_difference_from_bytes` the same for encoded
    images, None where the export takes none. `label_agreement` is the share of equal labels, 0 to 1, ties left out.
    `compared` counts the images; `compared_on` says what they were.
    """

    max_difference: float
    max_difference_from_bytes: float | None
    label_agreement: float
    compared: int
    compared_on: str


def collect(run: Run, facts: Artifact) -> Samples:
    """Up to COUNT images of the run that can still be read, of its test part first; made-up ones if there are none."""
    try:
        dataset = run_data.read(run, verify=False)
    except RunError:
        return made_up(facts)
    pixels: list[np.ndarray] = []
    encoded: list[bytes] = []
    for split in reversed(SPLITS):
        for _, data, image in readable_images(dataset.part(split), facts, COUNT - len(encoded)):
            pixels.append(image)
            encoded.append(data)
    if not encoded:
        return made_up(facts)
    return Samples(np.stack(pixels).astype(np.float32), tuple(encoded), "images")


def readable_images(part: Dataset, facts: Artifact, count: int) -> Iterator[tuple[Sample, bytes, np.ndarray]]:
    """Up to `count` samples with their files and pixels, uint8 (s, s, 3), in an order that is always the same."""
    if not part.root.is_dir():
        return
    paths = part.paths
    for place in np.random.default_rng(0).permutation(len(part)):
        if count <= 0:
            return
        try:
            data = content.read(paths[place])
            sample, image = part.samples[place], images.load(data, facts.image_size, facts.decoding)
        except ImageError:
            continue
        if sample.sha256 and hashlib.sha256(data).hexdigest() != sample.sha256:
            log.warning("%s: left out, since it has changed since training.", paths[place])
            continue
        yield sample, data, image
        count -= 1


def made_up(facts: Artifact, count: int = COUNT) -> Samples:
    """Make colored waves over noise, always the same ones."""
    size_px = facts.image_size
    rng = np.random.default_rng(0)
    place = np.linspace(0, 1, size_px)
    pixels = np.empty((count, size_px, size_px, 3), np.uint8)
    for image in pixels:
        x, y, phase = rng.uniform(-20, 20, (3, 3))
        waves = np.sin(place[:, None, None] * y + place[None, :, None] * x + phase)  # (s, s, 3)
        image[:] = 127 + 100 * waves + rng.uniform(-25, 25, waves.shape)
    return Samples(pixels.astype(np.float32), tuple(map(_as_png, pixels)), "made-up pixels")


def _as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def reference(model: "keras.Model", pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of a Keras model by name, a few images at a time."""
    environment.prepare_keras()
    import keras

    parts = [model(pixels[start : start + BATCH], training=False) for start in range(0, len(pixels), BATCH)]
    return {
        name: np.concatenate([keras.ops.convert_to_numpy(part[name]) for part in parts]) for name in sorted(parts[0])
    }


def prove(new: Path, place: Path, samples: Samples, expected: Mapping[str, np.ndarray], of: str = KERAS) -> Proof:
    """Load an exported model as its users do and compare all that it answers with the original.

    Args:
        new: the model, beside its `artifact.json`.
        place: where it will stand, for messages.
        expected: what the original says, as `reference` gives it for Keras.
        of: whose model the original is, for messages.

    Raises:
        ArtifactError: if they disagree.
    """
    facts = artifact.read(new.parent)
    file, task = facts.files[new.name], tasks.find(facts.task)
    allowed = TOLERANCES[file.precision]
    if file.format == "mediapipe":  # which is for MediaPipe alone and has no other output
        from imgclf.exporting import mediapipe

        expected = {task.OUTPUT: expected[task.OUTPUT]}
        found = {task.OUTPUT: mediapipe.predict(new, samples.pixels, task.OUTPUT)}
    elif file.format == VECTORS_FORMAT:
        from imgclf.exporting import classical

        found = {task.OUTPUT: classical.predict(new, expected["embedding"])}
        expected = {task.OUTPUT: expected[task.OUTPUT]}
    else:
        found = prediction.load(new).outputs(samples.pixels)
    for name in expected:
        _check_shape(place, name, expected[name], found)
        if name != task.OUTPUT:
            largest = float(np.abs(expected[name]).max()) or 1.0
            _check(place, f"the output {name}", expected[name], found[name], allowed.features * largest, of)
    known = expected[task.OUTPUT]
    what, unit = "equal pixels" if file.format != VECTORS_FORMAT else "equal features", _unit(known)
    proof = compare(
        place, what, samples, known, found[task.OUTPUT], allowed.probabilities * unit, allowed.tie, facts.task, of
    )
    if file.format != "savedmodel":
        return proof
    from imgclf.exporting import preprocessing, savedmodel  # only here: others may need no TensorFlow

    takes_bytes = not preprocessing.lacking(facts.decoding.steps)
    readable = [row for row, image in enumerate(samples.encoded) if takes_bytes and savedmodel.reads(image)]
    if not readable:
        return proof
    answers = savedmodel.predict_bytes(new, [samples.encoded[row] for row in readable], task.OUTPUT)
    from_bytes = compare(place, "encoded images", samples, known[readable], answers, FROM_BYTES * unit, TIE, facts.task)
    return replace(
        proof,
        max_difference_from_bytes=from_bytes.max_difference,
        label_agreement=min(proof.label_agreement, from_bytes.label_agreement),
    )


def compare(
    place: Path,
    what: str,
    samples: Samples,
    expected: np.ndarray,
    found: np.ndarray,
    tolerance: float,
    tie: float = TIE,
    task: str = tasks.DEFAULT,
    of: str = KERAS,
) -> Proof:
    """Compare outputs (n, classes) and the labels that they give.

    Args:
        place: the compared file, for messages.
        what: what both answered to, for messages.
        tie: labels may differ where the two best expected probabilities are closer than this.
        of: whose model the original is, for messages.

    Raises:
        ArtifactError: if an output differs by more than `tolerance`, or a label differs without a tie.
    """
    difference = _check(place, f"the {tasks.find(task).OUTPUT} for {what}", expected, found, tolerance, of)
    agreement = tasks.find(task).agreement(expected, found, tie)
    if agreement < 1:
        others = round((1 - agreement) * len(expected))
        raise ArtifactError(
            f"{place}: expected {of}'s labels for {what}, found others for {others} of {len(expected)}. {KEPT}"
        )
    return Proof(difference, None, agreement, len(expected), samples.source)


def _unit(outputs: np.ndarray) -> float:
    """Return what the tolerances of probabilities are multiplied by: numbers may be much larger."""
    return max(1.0, float(np.abs(outputs).max()))


def _check_shape(place: Path, name: str, expected: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
    if name not in found or found[name].shape != expected.shape:
        shapes = {key: value.shape for key, value in found.items()}
        raise ArtifactError(f"{place}: expected the output {name} of shape {expected.shape}, found {shapes}. {KEPT}")


def _check(place: Path, what: str, expected: np.ndarray, found: np.ndarray, tolerance: float, of: str = KERAS) -> float:
    difference = float(np.abs(expected - found).max())
    if not difference <= tolerance:  # also where it is not a number
        raise ArtifactError(
            f"{place}: expected {what} within {tolerance:g} of {of}'s, found a difference of {difference:.2g}. {KEPT}"
        )
    return difference
