"""`artifact.json`: the description of the exported models beside it, with their hashes."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imgclf import __version__, documents, runs, storage, tasks
from imgclf.errors import ArtifactError, RunError, UsageError
from imgclf.prediction import decision
from imgclf.prediction.decision import NO_RULES, Decision
from imgclf.settings import RESIZES, Decoding, Resize

SCHEMA = 2
"""The newest schema; the oldest that says all of a model is written, so that older versions can read the file."""

PLAIN = 1
"""The schema of a model without preprocessing, which older versions would leave out."""

NAME = "artifact.json"

MOST_PX = 16_384
"""Larger images than this side are refused: a batch of one takes 3 GB."""


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
    preprocess: str | None = None
    allow_truncated: bool = False
    decision: Decision = NO_RULES
    task: str = tasks.DEFAULT
    imgclf: str = __version__

    @property
    def schema(self) -> int:
        """The oldest schema that says all of this."""
        return PLAIN if self.preprocess is None else SCHEMA

    @property
    def identity(self) -> str:
        """What tells this model from another, in whatever format it runs: a hash of the first file, which training
        stores, and of the labels."""
        first = next((file.sha256 for name, file in self.files.items() if file.format != decision.FORMAT), "")
        return hashlib.sha256("\0".join((first, *self.labels)).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def decoding(self) -> Decoding:
        """How files become pixels, in training and in prediction."""
        return Decoding(self.resize, self.window, self.preprocess, allow_truncated=self.allow_truncated)


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
    values = asdict(facts) | {"schema": facts.schema}
    values["decision"] = {key: value for key, value in values["decision"].items() if value is not None}
    values["reject_below"] = values["decision"].pop("reject_below", None)  # at the top, where older versions read it
    values["task"] = None if facts.task == tasks.DEFAULT else facts.task
    optional = ("task", "window", "preprocess", "allow_truncated", "reject_below", "decision")
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
        values = runs.read_json(path, documents.fields({"schema": documents.number(1, 2**31, whole=True)}))
        if values["schema"] > SCHEMA:
            raise ArtifactError(
                f"{path}: expected schema {SCHEMA} or older, found {values['schema']}, written by imgclf "
                f"{_version(values.get('imgclf'))}. This is imgclf {__version__}: pip install --upgrade imgclf."
            )
        SHAPE(values, "")
        return _parse(values)
    except (ValueError, UsageError) as error:
        raise ArtifactError(f"{path}: damaged description of a model ({error}). Export again or restore it.") from None
    except ArtifactError:
        raise
    except RunError as error:
        raise ArtifactError(str(error)) from None


def _version(value: Any) -> str:
    return ascii(value)[1:-1][:40] if isinstance(value, str) else "?"


def _name_of_file(value: Any, where: str) -> None:
    """Check that a name is a plain path below the folder, on any system."""
    parts = value.split("/")
    if set(value) & set("\\:\0") or not all(part.strip(". ") for part in parts):
        raise ValueError(f"{where} is not a path in its folder")


def _label(value: Any, where: str) -> None:
    documents.text(value, where)
    if not value:
        raise ValueError(f"{where}: expected a class name, found an empty one")


_SHARE = documents.number(0, 1)

_MAPS = ("thresholds", "widths")
"""The rules with a number for each label."""

SHAPE = documents.fields(
    {
        "schema": documents.number(1, SCHEMA, whole=True),
        "imgclf": documents.text,
        "labels": documents.list_of(_label, least=1, distinct=True),
        "image_size": documents.number(1, MOST_PX, whole=True),
        "resize": documents.one_of(*RESIZES),
        "backbone": documents.text,
        "temperature": documents.number(1e-300),
        "outputs": documents.list_of(documents.text, least=1),
        "data_sha256": documents.text,
        "files": documents.map_of(
            documents.fields(
                {
                    "format": documents.text,
                    "sha256": documents.text,
                    "bytes": documents.number(0, 2**63, whole=True),
                },
                {"precision": documents.text, "agreement": documents.map_of(_SHARE)},
            ),
            key=_name_of_file,
        ),
    },
    {
        "task": documents.text,
        "window": documents.maybe(documents.text),
        "preprocess": documents.maybe(documents.text),
        "allow_truncated": documents.flag,
        "reject_below": documents.maybe(_SHARE),
        "decision": documents.fields(
            {},
            {
                **dict.fromkeys(("false_alarms", "set_from", "coverage", "threshold", "reject_below"), _SHARE),
                "outlier_above": documents.number(),
                **dict.fromkeys(_MAPS, documents.map_of(documents.number(0))),
                "positive": documents.maybe(documents.text),
            },
            closed=True,
        ),
    },
)
"""What an `artifact.json` of this schema contains."""


def _parse(values: dict[str, Any]) -> Artifact:
    task = values.get("task", tasks.DEFAULT)
    output = tasks.find(task).OUTPUT
    if output not in values["outputs"]:
        raise ValueError(f"outputs: expected {output} among them, found none")
    window, preprocess, allow_truncated = (values.get(name) for name in ("window", "preprocess", "allow_truncated"))
    decoding = Decoding(values["resize"], window, preprocess, allow_truncated=bool(allow_truncated))
    rules = values.get("decision", {})
    if values.get("reject_below") is not None:
        rules = rules | {"reject_below": values["reject_below"]}
    numbers: dict[str, Any] = {key: float(value) for key, value in rules.items() if key not in ("positive", *_MAPS)}
    maps: dict[str, Any] = {
        key: {name: float(value) for name, value in rules[key].items()} for key in _MAPS if key in rules
    }
    labels = tuple(values["labels"])
    for key, found in maps.items():
        if set(found) != set(labels):
            raise ValueError(f"decision.{key}: expected a number for each label")
    if rules.get("positive") is not None and (rules["positive"] not in labels or len(labels) != 2):
        raise ValueError(f"decision.positive: expected one of two classes, found {rules['positive']!a:.60}")
    return Artifact(
        labels=labels,
        image_size=values["image_size"],
        resize=decoding.resize,
        window=decoding.window,
        preprocess=decoding.preprocess,
        allow_truncated=decoding.allow_truncated,
        backbone=values["backbone"],
        outputs=tuple(values["outputs"]),
        data_sha256=values["data_sha256"],
        files={
            name: File(
                format=entry["format"],
                sha256=entry["sha256"],
                bytes=entry["bytes"],
                precision=entry.get("precision", File.precision),
                agreement={key: float(share) for key, share in entry.get("agreement", {}).items()},
            )
            for name, entry in values["files"].items()
        },
        temperature=float(values["temperature"]),
        decision=Decision(positive=rules.get("positive"), **numbers, **maps),
        task=task,
        imgclf=values["imgclf"],
    )


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
