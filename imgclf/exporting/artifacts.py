"""Export a run's model: write each format, verify it on real images, then replace the old file."""

import contextlib
import logging
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf import __version__, environment, runs, storage, tasks
from imgclf.errors import ArtifactError, ExportError, ImgclfError, RunError, UsageError
from imgclf.prediction import artifact, decision
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.classical import VECTORS_FORMAT, ClassicalRuntime
from imgclf.prediction.decision import NO_RULES
from imgclf.prediction.runtimes import RUNTIMES
from imgclf.runs import Run
from imgclf.settings import ExportConfig, TrainConfig

if TYPE_CHECKING:
    import keras

    from imgclf.exporting.parity import Samples

log = logging.getLogger("imgclf")

OnProgress = Callable[[str, int, int | None], None]
"""Phase, units done, units in all."""

FEATURES = ("embedding", "feature_map")
"""Outputs beside that of the task, which comes first; the second only of networks that have one."""

BACKBONE = "backbone"

FILES = {
    "litert": "model.tflite",
    "litert-float16": "model-float16.tflite",
    "litert-int8": "model-int8.tflite",
    "savedmodel": "saved_model",
    "onnx": "model.onnx",
    "openvino": "openvino",
    "keras": "classifier.keras",
    "mediapipe": "model-mediapipe.tflite",
    "backbone": "backbone.npz",
}
"""What can be exported, and under which name it stands in the run."""

INT8, MEDIAPIPE = "litert-int8", "mediapipe"

WRITERS = {INT8: "int8", "keras": "kerasfile"}
"""The modules here that write a format, where they have other names."""

ATTENTION = (
    "int8 is for networks of convolutions, and this one has attention, whose numbers 8 bits cannot tell apart. Use "
    "--quantize float16."
)

OF_CLASSICAL = "onnx"
"""The one format that a classical model has besides its own."""

INSTEAD_OF_INT8 = " Use --quantize float16, which halves the file and stays closer to float32."

NUMBERS = "MediaPipe's Image Classifier is for classes, and this model predicts numbers. Use --format litert."

PREPROCESSED = (
    "MediaPipe feeds an image as it is, and this model was trained with --preprocess {}. Use --format litert: imgclf "
    "predict preprocesses, and so can your own code before it calls the model."
)


def everything(run: Run) -> list[str]:
    """All that can be exported of a run here.

    What lacks its packages is left out, and a warning names the extra to install; so are formats that the
    model cannot have, and the backbone of a network that ends in flattened pixels, which has none.
    """
    here = []
    for name in [OF_CLASSICAL] if _estimator(run) else FILES:
        if name == BACKBONE and not _describes(run, "feature_map", default=True):
            continue
        if reason := _why_not(run, name):
            log.warning("%s: left out, since %s", name, reason)
            continue
        if all(environment.has_package(package) for package in environment.EXTRAS.get(name, ())):
            here.append(name)
        else:
            log.warning("%s: left out, since its packages are not installed. pip install 'imgclf[%s]'", name, name)
    return here


def _describes(run: Run, word: str, *, default: bool) -> bool:
    """Whether the description of the network in `model.keras` has a word in quotes; the network is not built."""
    try:
        with zipfile.ZipFile(run.model) as archive:
            return f'"{word}"'.encode() in archive.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return default  # the export itself says what is wrong with the file


def _why_not(run: Run, format: str) -> str:
    """Return the reason for which a run cannot have a format; empty where it can."""
    if _estimator(run):
        from imgclf.exporting import classical

        return classical.why_not(_settings(run))
    if format == INT8 and _describes(run, "num_heads", default=False):  # of layers with attention
        return ATTENTION
    if format == MEDIAPIPE:
        facts = artifact.read(run.path)
        if tasks.find(facts.task).OUTPUT != "probabilities":
            return NUMBERS
        if facts.preprocess is not None:
            return PREPROCESSED.format(facts.preprocess)
    return ""


def export(
    run: Run | Path | str,
    config: ExportConfig | None = None,
    *,
    output: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Export a run's model, verify each against the trained model, and describe it in `artifact.json`.

    Args:
        run: the run or its folder.
        config: which formats and precisions.
        output: a new or empty folder for the exports, which then needs no run beside it; by default the run itself.

    Returns:
        A row for each export, as `write` returns them.

    Raises:
        As `write`; and RunError: if another process writes the run, or the output is not new or cannot be written.
    """
    config, found = config or ExportConfig(), runs.find(run)
    with contextlib.ExitStack() as stack:
        stack.enter_context(found.lock())
        formats = everything(found) if config.all else config.formats
        if output is None:
            return write(found, formats, on_progress=on_progress)
        folder = Path(output)
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder}: expected a new or empty folder, found something there. Choose another -o.")
        try:
            with storage.new_folder(folder) as place:
                try:
                    return write(found, formats, target=place, on_progress=on_progress)
                except ExportError as error:
                    if not error.rows:
                        raise
                    refused = error  # the folder keeps the others
            raise refused
        except OSError as error:
            raise RunError(f"{folder}: the export cannot be written ({error.strerror or error}).") from None


def write(
    run: Run, formats: Sequence[str], *, target: Path | None = None, on_progress: OnProgress | None = None
) -> list[dict[str, Any]]:
    """Write exported models into a run folder, verify each against what training stored, and describe them.

    A model that fails its verification is not kept: the one that was there before stays. The other formats are written
    all the same. Under a Keras backend other than TensorFlow, a child process does the work. The caller holds the run's
    lock.

    Args:
        formats: some of `FILES`.
        target: an empty folder to write into, in place of the run.

    Returns:
        A row for each: `format`, `file` (its name in the run), `precision`, `bytes`, `seconds`, the fields of
        `parity.Proof`, and `quality`: for reduced precisions the fields of `quality.Quality`, else None.

    Raises:
        UsageError: if a format is unknown, or the run's model cannot have it.
        RunError: if the run is damaged or cannot be written.
        ExportError: if an exported model disagrees with Keras or cannot be made, after the others were written.
        MissingError: if TensorFlow or the package of a format is not installed.
    """
    estimator = _estimator(run)
    unknown = [name for name in formats if name not in FILES]
    if unknown or not formats:
        raise UsageError(f"--format: expected some of {', '.join(FILES)}, found {', '.join(unknown) or 'none'}.")
    wanted = [name for name in FILES if name in formats and name != BACKBONE]
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    if estimator:
        if others := [name for name in formats if name != OF_CLASSICAL]:
            raise UsageError(
                f"{run.path}: expected --format {OF_CLASSICAL}, the only one that a classical model has besides "
                f"{estimator}, found {', '.join(others)}."
            )
        if reason := _why_not(run, OF_CLASSICAL):
            raise ExportError(f"{run.path / FILES[OF_CLASSICAL]}: not exported, since {reason}", [])
        return _told(run, _export_classical(run, estimator, target, on_progress))
    environment.require_extras(wanted)
    for name in (INT8, MEDIAPIPE):
        if name in wanted and (reason := _why_not(run, name)):
            wanted.remove(name)
            refused.append(f"{run.path / FILES[name]}: not exported, since {reason}")
    try:
        if wanted and keras_backend() == "tensorflow":
            rows = _export(run, wanted, target, on_progress)
        elif wanted:
            from imgclf.exporting import worker

            place = str(target.resolve()) if target else None
            rows = worker.call("export", path=str(run.path.resolve()), formats=wanted, target=place)
    except ExportError as error:
        rows = error.rows
        refused.append(str(error))
    if BACKBONE in formats:
        rows.append(_export_backbone(run, target or run.path))
    _told(run, rows)
    if refused:
        raise ExportError("\n".join(refused), rows)
    return rows


def _told(run: Run, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, and say so if they were compared on no images."""
    if any(row["compared_on"] != "images" for row in rows):
        log.warning("%s: its images cannot be read any more, so the export was compared on made-up pixels", run.path)
    return rows


def _estimator(run: Run) -> str | None:
    """Return the name of the stored classifier of scikit-learn; None where the run's model is a network.

    Raises:
        UsageError: if it is neither.
    """
    files = artifact.read(run.path).files if run.artifact.is_file() else {}
    own = [name for name, file in files.items() if file.format in RUNTIMES]
    if not own or any(files[name].format == "keras" for name in own):
        return None
    for name in own:
        if RUNTIMES[files[name].format] is ClassicalRuntime:
            return name
    raise UsageError(
        f"{run.path}: expected a network to export, found a model of another kind. It has no other form than "
        f"{own[0]} in the run, which imgclf predict reads without TensorFlow."
    )


def _settings(run: Run) -> TrainConfig:
    return TrainConfig.from_dict(run.read_config()["config"])


def _export_classical(
    run: Run, estimator: str, target: Path | None, on_progress: OnProgress | None
) -> list[dict[str, Any]]:
    """Write the ONNX of a classical model, and compare it with the stored one."""
    from imgclf.exporting import classical, parity

    classical.require()
    facts = artifact.read(run.path)
    artifact.verify(run.path, facts, estimator)
    folder = run.path / estimator
    if on_progress:
        on_progress(f"exporting {OF_CLASSICAL},", 1, 1)
    samples = parity.collect(run, facts)
    runtime = ClassicalRuntime.start(folder, "float32")
    expected = runtime.outputs(samples.pixels, runtime.names)
    facts = replace(facts, imgclf=__version__)
    if target:
        facts = _with_outliers(run, facts, target)
    settings = _settings(run)
    kind = OF_CLASSICAL if classical.starts_at_pixels(settings.features) else VECTORS_FORMAT
    try:
        row, _ = _export_one(
            run,
            target,
            OF_CLASSICAL,
            f"--model {settings.model}",
            lambda path: classical.write(path, folder, facts),
            facts,
            samples,
            expected,
            file_format=kind,
        )
    except ArtifactError as error:
        raise ExportError(str(error), []) from None
    return [row]


def keras_backend() -> str:
    """Return the backend that Keras has in this process, or would have if it were imported."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def load_model(run: Run, facts: Artifact) -> "keras.Model":
    """Return the run's classifier with all outputs that exports have.

    Returns:
        A model from `pixels` (n, s, s, 3) to a dict of `probabilities` or `values` (n, classes), `embedding` (n, d)
        and, with global average pooling, `feature_map` (n, h, w, d).

    Raises:
        RunError: if `model.keras` is damaged, or is no classifier of the classes in `artifact.json`.
    """
    artifact.verify(run.path, facts, run.model.name)
    environment.prepare_keras()
    import keras

    from imgclf.models import flattening

    try:
        model = flattening.load(run.model)
        names = {layer.name for layer in model.layers}
        wanted = (tasks.find(facts.task).OUTPUT, *FEATURES)
        outputs = {name: model.get_layer(name).output for name in wanted if name in names or name != "feature_map"}
        classifier = keras.Model(model.input, outputs, name=model.name)
    except Exception as error:  # a foreign file makes Keras raise nearly anything
        raise RunError(f"{run.model}: expected a classifier of imgclf, found something else ({error}).") from None
    classes = model.output_shape[-1]
    if classes != len(facts.labels):
        raise RunError(f"{run.model}: expected {len(facts.labels)} classes as in {artifact.NAME}, found {classes}.")
    return classifier


def _export(
    run: Run, formats: Sequence[str], target: Path | None, on_progress: OnProgress | None
) -> list[dict[str, Any]]:
    if on_progress:
        on_progress("exporting: loading the model", 0, None)
    facts = artifact.read(run.path)
    model = load_model(run, facts)
    from imgclf.exporting import parity, savedmodel

    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    with savedmodel.full_precision():
        samples = parity.collect(run, facts)
        expected = parity.reference(model, samples.pixels)
        given = (tasks.find(facts.task).OUTPUT, *FEATURES)
        facts = replace(facts, imgclf=__version__, outputs=tuple(name for name in given if name in expected))
        if target:
            facts = _with_outliers(run, facts, target)
        graph = savedmodel.trace(model)
        for number, format in enumerate(formats, start=1):
            if on_progress:
                on_progress(f"exporting {format},", number, len(formats))
            try:
                write = partial(_write_format, run, format, model, graph, facts)
                row, facts = _export_one(run, target, format, model.name, write, facts, samples, expected, graph=graph)
            except ArtifactError as error:
                refused.append(f"{error}{INSTEAD_OF_INT8 if format == INT8 else ''}")
            else:
                rows.append(row)
    if refused:
        raise ExportError("\n".join(refused), rows)
    return rows


def _write_format(run: Run, format: str, model: "keras.Model", graph: Any, facts: Artifact, path: Path) -> None:
    """Write one format of a network."""
    from imgclf.exporting import quality

    kind, _, precision = format.partition("-")
    options: dict[str, Any] = {"precision": precision} if precision else {}
    if precision == "int8":
        options = {"calibration": quality.calibration(run, facts)}
    writer = import_module(f"imgclf.exporting.{WRITERS.get(format, kind)}")
    writer.write(path, model, graph, facts, **options)


def _export_one(
    run: Run,
    target: Path | None,
    format: str,
    what: str,
    write: Callable[[Path], None],
    facts: Artifact,
    samples: "Samples",
    expected: Mapping[str, Any],
    *,
    graph: Any = None,
    file_format: str | None = None,
) -> tuple[dict[str, Any], Artifact]:
    """Write and verify one format. Returns its row, and the artifact's description with it.

    Args:
        what: is exported, for messages.
        graph: of a network, to measure reduced precision with.
        file_format: what the description calls the format, where that is not its name here.
    """
    from imgclf.exporting import parity

    started = time.monotonic()
    with _stage(run, target) as stage:
        new = stage / FILES[format]
        kind, _, precision = format.partition("-")
        kind = file_format or kind
        try:
            write(new)
        except (ImgclfError, OSError, KeyboardInterrupt):
            raise
        except Exception as error:  # each converter has errors of its own
            raise ArtifactError(
                f"{run.path / new.name}: {what} cannot be exported as {format} "
                f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})."
            ) from error
        file = File(kind, *artifact.hash_tree(new), precision or File.precision)
        described = replace(facts, files={new.name: file}, decision=NO_RULES)  # compared without rules
        artifact.write(stage, described)
        proof = parity.prove(
            new, run.path / new.name, samples, expected, parity.KERAS if graph is not None else parity.SKLEARN
        )
        found = None
        if precision:
            from imgclf.exporting import quality

            found = quality.measure(run, described, new, graph)
            file = replace(file, agreement={precision: found.label_agreement} if found else {})
        elif kind == "openvino":
            from imgclf.exporting import quality

            found_in_bf16 = quality.agreements(new, ("bf16",), samples, expected[facts.outputs[0]], facts.task)
            file = replace(file, agreement=found_in_bf16)
        facts = replace(facts, files={**facts.files, new.name: file})
        artifact.write(stage, facts)  # in place of the one without rules
        if target:
            for path in (new, stage / artifact.NAME):
                os.replace(path, target / path.name)
        else:
            storage.install(stage, run.path)
    row = _row(format, new.name, file.bytes, time.monotonic() - started, asdict(proof))
    return {**row, "precision": file.precision, "quality": asdict(found) if found else None}, facts


def _with_outliers(run: Run, facts: Artifact, target: Path) -> Artifact:
    """Return the description of exports in another folder, with the only file of the run that they need."""
    needed = {name: file for name, file in facts.files.items() if name == decision.FILE}
    for name in needed:
        storage.write_atomic(target / name, (run.path / name).read_bytes())
    return replace(facts, files=needed)


def _export_backbone(run: Run, folder: Path) -> dict[str, Any]:
    from imgclf.exporting import backbone

    started = time.monotonic()
    path = backbone.export_backbone(run, folder)
    proof = backbone.read_meta(path)["proof"]
    row = _row(BACKBONE, path.name, path.stat().st_size, time.monotonic() - started, proof)
    return {**row, "precision": "float16", "quality": None}


def _row(format: str, name: str, size: int, seconds: float, proof: dict[str, Any]) -> dict[str, Any]:
    return {"format": format, "file": name, "bytes": size, "seconds": round(seconds, 2), **proof}


@contextlib.contextmanager
def _stage(run: Run, target: Path | None) -> Iterator[Path]:
    """Make an empty folder on the file system of the run, or of the target, for the time of the block."""
    try:
        with storage.stage(target.parent if target else run.path) as folder:
            yield folder
    except OSError as error:
        raise RunError(f"{run.path}: the export cannot be written ({error.strerror or error}).") from None
