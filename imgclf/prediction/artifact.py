"""`artifact.json`: the description of the exported models beside it, with their hashes."""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imgclf import __version__, runs, storage, tasks
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.prediction import decision
from imgclf.prediction.decision import NO_RULES, Decision
from imgclf.settings import RESIZES, Decoding, Resize

SCHEMA = 1
NAME = "artifact.json"


@dataclass(frozen=True)
class File:
    """One exported model: its format, and hash and size as `hash_tree` gives them.

    `precision` is that of its arithmetic: `float32`, `float16` or `int8`. `agreement` maps a precision in which it can
    run to the share of images, 0 to 1, whose label is that of float32, measured at export.
    """

    format: str
    sha256: str
    bytes: int
    precision: str = "float32"
    agreement: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """The description of all models in `files`, which maps a name in the artifact's folder to its description.

    The models take float32 (n, image_size, image_size, 3), RGB 0-255, decoded from files by the rules of `decoding`.
    `task` says what they predict, and `labels` are in the order of their outputs: classes, or the names of numbers.
    `temperature` is already inside their graphs. `decision` contains the rules from probabilities to a prediction.
    `data_sha256` is the digest of the dataset that they were trained on, "" where imgclf did not train them.
    """

    labels: tuple[str, ...]
    image_size: int
    resize: Resize
    backbone: str
    outputs: tuple[str, ...]
    data_sha256: str
    files: Mapping[str, File]
    temperature: float = 1.0
    window: str | None = None
    allow_truncated: bool = False
    decision: Decision = NO_RULES
    task: str = tasks.DEFAULT
    imgclf: str = __version__
    schema: int = SCHEMA

    @property
    def identity(self) -> str:
        """What tells this model from another, in whatever format it runs: a hash of the first file, which training
        stores, and of the labels."""
        first = next((file.sha256 for name, file in self.files.items() if file.format != decision.FORMAT), "")
        return hashlib.sha256("\0".join((first, *self.labels)).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def decoding(self) -> Decoding:
        """How files become pixels, in training and in prediction."""
        return Decoding(self.resize, self.window, allow_truncated=self.allow_truncated)


def hash_tree(path: Path) -> tuple[str, int]:
    """Return SHA-256 and size in bytes of a file, or of all files in a folder together with their names.

    Raises:
        ArtifactError: if the file or folder is missing or cannot be read.
    """
    try:
        if not path.is_dir():
            return _hash_file(path)
        total = 0
        digest = hashlib.sha256()
        for file in sorted((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.relative_to(path).as_posix()):
            sha256, size = _hash_file(file)
            digest.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0" + sha256.encode() + b"\n")
            total += size
    except OSError as error:
        raise ArtifactError(f"{path}: the model cannot be read ({error.strerror}).") from None
    return digest.hexdigest(), total


def _hash_file(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def write(folder: Path, facts: Artifact) -> None:
    """Write `artifact.json` into a folder, atomically."""
    order = ("schema", "imgclf", "labels", "image_size", "resize", "backbone", "temperature", "outputs", "data_sha256")
    values = asdict(facts)
    values["decision"] = {key: value for key, value in values["decision"].items() if value is not None}
    values["reject_below"] = values["decision"].pop("reject_below", None)  # at the top, where older versions read it
    values["task"] = None if facts.task == tasks.DEFAULT else facts.task
    optional = ("task", "window", "allow_truncated", "reject_below", "decision")
    values["files"] = {name: _described(file) for name, file in facts.files.items()}
    chosen = [key for key in optional if values[key]]  # left out where unset, so that older versions can read the file
    storage.write_json(folder / NAME, {key: values[key] for key in (*order, *chosen, "files")})


def _described(file: File) -> dict[str, Any]:
    values = {"format": file.format, "sha256": file.sha256, "bytes": file.bytes}
    if file.precision != File.precision:
        values["precision"] = file.precision
    if file.agreement:
        values["agreement"] = dict(file.agreement)
    return values


def read(folder: Path) -> Artifact:
    """Read the `artifact.json` of a folder, without opening the files that it describes.

    Raises:
        ArtifactError: if it is missing, damaged, or of a newer schema.
    """
    path = folder / NAME
    try:
        storage.settle(folder)
    except RunError as error:
        raise ArtifactError(str(error)) from None
    if not path.is_file():
        raise ArtifactError(f"{folder}: expected an exported model (with {NAME}), found none. imgclf train writes one.")
    try:
        values = runs.read_json(path)
    except RunError as error:
        raise ArtifactError(str(error)) from None
    try:
        if values["schema"] > SCHEMA:
            raise ArtifactError(
                f"{path}: expected schema {SCHEMA} or older, found {values['schema']}, written by imgclf "
                f"{values.get('imgclf')}. This is imgclf {__version__}: pip install --upgrade imgclf."
            )
        return _parse(values)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UsageError) as error:
        raise ArtifactError(
            f"{path}: damaged description of a model ({type(error).__name__}: {error}). Export again or restore it."
        ) from None


def _parse(values: dict[str, Any]) -> Artifact:
    files = {
        str(name): File(
            format=str(entry["format"]),
            sha256=str(entry["sha256"]),
            bytes=int(entry["bytes"]),
            precision=str(entry.get("precision", File.precision)),
            agreement={str(key): float(share) for key, share in entry.get("agreement", {}).items()},
        )
        for name, entry in values["files"].items()
    }
    for name, file in files.items():
        if not _stays_inside(name):
            raise ValueError(f"the file {name!r} is not a path in its folder")
        if file.bytes < 0 or not all(0 <= share <= 1 for share in file.agreement.values()):
            raise ValueError(f"impossible numbers for the file {name!r}")
    task, labels = str(values.get("task", tasks.DEFAULT)), values["labels"]
    output = tasks.find(task).OUTPUT
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of names")
    if not all(labels) or len(set(labels)) < len(labels):
        raise ValueError("labels has an empty name, or one twice")
    if output not in values["outputs"]:
        raise ValueError(f"outputs lacks the {output}")
    if not 0 < float(values["temperature"]) < math.inf:
        raise ValueError(f"temperature is {values['temperature']!r}")
    if values["resize"] not in RESIZES:
        raise ValueError(f"resize is {values['resize']!r}")
    if int(values["image_size"]) < 1:
        raise ValueError(f"image_size is {values['image_size']!r}")
    decoding = Decoding(values["resize"], values.get("window"), allow_truncated=values.get("allow_truncated", False))
    return Artifact(
        labels=tuple(labels),
        image_size=int(values["image_size"]),
        resize=decoding.resize,
        window=decoding.window,
        allow_truncated=decoding.allow_truncated,
        backbone=str(values["backbone"]),
        outputs=tuple(str(name) for name in values["outputs"]),
        data_sha256=str(values["data_sha256"]),
        files=files,
        temperature=float(values["temperature"]),
        decision=_parse_decision(values.get("decision", {}), values.get("reject_below"), labels),
        task=task,
        imgclf=str(values["imgclf"]),
        schema=int(values["schema"]),
    )


_MAPS = ("thresholds", "widths")
"""The rules with a number for each label."""


def _stays_inside(name: str) -> bool:
    """Whether a name is a plain path below the folder, on any system."""
    parts = name.split("/")
    return not set(name) & set("\\:\0") and all(part.strip(". ") for part in parts)


def _parse_decision(values: dict[str, Any], reject_below: Any, labels: list[str]) -> Decision:
    if reject_below is not None:
        if not 0 <= float(reject_below) <= 1:
            raise ValueError(f"reject_below is {reject_below!r}")
        values = values | {"reject_below": reject_below}
    maps = {key: {str(name): float(value) for name, value in values[key].items()} for key in _MAPS if key in values}
    numbers = {key: float(value) for key, value in values.items() if key not in ("positive", *_MAPS)}
    for key, number in numbers.items():
        if not (math.isfinite(number) if key == "outlier_above" else 0 <= number <= 1):
            raise ValueError(f"{key} is {number!r}")
    for key, found in maps.items():
        if set(found) != set(labels) or not all(0 <= number < math.inf for number in found.values()):
            raise ValueError(f"{key} is {found!r}")
    known: dict[str, Any] = {"positive": values.get("positive"), **numbers, **maps}
    rules = Decision(**known)
    if rules.positive is not None and (rules.positive not in labels or len(labels) != 2):
        raise ValueError(f"positive is {rules.positive!r}")
    return rules


def verify(folder: Path, facts: Artifact, name: str) -> None:
    """Check that a file has the hash that `artifact.json` states.

    Raises:
        ArtifactError: if it is not described, missing, or has another hash.
    """
    path = folder / name
    if name not in facts.files:
        raise ArtifactError(f"{path}: expected a model that {folder / NAME} describes, found {_listed(facts)} there.")
    if not path.exists():
        raise ArtifactError(f"{path}: expected the model that {NAME} describes, found no such file. Export again.")
    sha256, _ = hash_tree(path)
    if sha256 != facts.files[name].sha256:
        raise ArtifactError(
            f"{path}: expected SHA-256 {facts.files[name].sha256[:12]}... as in {NAME}, found {sha256[:12]}...: "
            "changed or damaged. Export again or restore it."
        )


def _listed(facts: Artifact) -> str:
    return ", ".join(facts.files) or "no model"
