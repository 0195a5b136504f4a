"""A path -> a `Classifier`: which of the exported models runs, through which runtime."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from imgclf import environment
from imgclf.errors import ArtifactError, UsageError
from imgclf.prediction import artifact, decision, runtimes
from imgclf.prediction.artifact import Artifact, File
from imgclf.prediction.classical import VECTORS_FORMAT
from imgclf.prediction.classifier import Classifier
from imgclf.prediction.decision import Outliers
from imgclf.prediction.runtime import Runtime, head
from imgclf.prediction.runtimes import RUNTIMES
from imgclf.settings import PredictConfig

log = logging.getLogger(__name__)

MANY = 1000
"""From this number of images, a runtime that starts more slowly and predicts faster is worth its start."""

TRIAL_S = 0.4
"""How long each runtime is tried for MANY images."""


def load(
    path: Path | str,
    *,
    engine: str = PredictConfig.engine,
    precision: str = PredictConfig.precision,
    count: int | None = None,
    allow_truncated: bool = False,
    reject_below: float | None = None,
) -> Classifier:
    """Open an exported model.

    Args:
        path: a run folder, any folder with an `artifact.json` and the models that it describes, or one of those
            models itself, such as `model.tflite`.
        engine: the runtime; `auto` takes the one that suits `count` images, as `choose` says, and for MANY images
            the faster of LiteRT and ONNX Runtime on this machine; `ray` runs it on all machines of a cluster.
        precision: `float32`; `float16` or `int8`, which must have been exported; `bf16`, OpenVINO's bfloat16; `auto`,
            that of a given file, and for a folder float32, or what it has where nothing is exported in float32.
        allow_truncated: whether to classify what can be decoded of a truncated file. Models that were trained on such
            files always do.
        reject_below: reject images whose predicted class has a lower probability, 0 to 1; None takes the artifact's
            rule.

    Raises:
        UsageError: if the engine or precision is unknown, or the two do not go together.
        ArtifactError: if there is no exported model, or it is damaged, foreign or too new.
        MissingError: if the package of the runtime is not installed.
    """
    if engine not in RUNTIMES:  # one that is plugged in is no setting of the command line
        PredictConfig(engine=engine)
    PredictConfig(precision=precision, reject_below=reject_below)
    folder, name = _locate(Path(path))
    facts = artifact.read(folder)
    if reject_below is not None:
        facts = replace(facts, decision=replace(facts.decision, reject_below=reject_below))
    facts = replace(facts, allow_truncated=allow_truncated or facts.allow_truncated)
    runtime = None
    if name is None:
        wanted = "auto" if engine == "ray" else engine
        name = choose(folder, facts, wanted, precision, MANY if engine == "ray" else count)
        if engine == "auto" and facts.files[name].format == "onnx" and count is not None and count >= MANY:
            name, runtime = _race(folder, facts, (name, choose(folder, facts, "auto", precision, 1)))
    runtime = runtime or _start(folder, facts, name, engine, precision)
    _check(folder / name, facts, runtime)
    outliers = _outliers(folder, facts)
    if engine == "ray":
        from imgclf.prediction import cluster

        again = partial(
            load,
            str((folder / name).absolute()),
            precision=precision,
            allow_truncated=facts.allow_truncated,
            reject_below=facts.decision.reject_below,
        )
        return cluster.ClusterClassifier(facts, runtime, outliers, again)
    return Classifier(facts, runtime, outliers)


def describe(path: Path | str) -> Artifact:
    """Read the description of an exported model, without opening the model.

    Raises:
        ArtifactError: if there is none, or it is damaged or too new.
    """
    return artifact.read(_locate(Path(path))[0])


def _start(folder: Path, facts: Artifact, name: str, engine: str, precision: str) -> Runtime:
    """Start the runtime of one model.

    Raises:
        UsageError, ArtifactError, MissingError: as told at `load`.
    """
    artifact.verify(folder, facts, name)
    file = facts.files[name]
    if file.format == VECTORS_FORMAT:
        raise _starts_at_vectors(folder / name)
    if file.format not in RUNTIMES:
        raise ArtifactError(
            f"{folder / name}: expected a model in one of the formats {', '.join(RUNTIMES)}, found {file.format}. "
            f"imgclf export {folder} makes them."
        )
    if engine not in ("auto", "ray", file.format):
        raise UsageError(f"--engine {engine}: expected a model for it, found {folder / name}, which is {file.format}.")
    if precision not in ("auto", "bf16", file.precision):
        raise UsageError(f"--precision {precision}: expected a model for it, found {folder / name}: {file.precision}.")
    used = file.precision if precision == "auto" else precision
    if used in file.agreement:
        share = file.agreement[used]
        log.info("%s in %s: %.1f%% of labels as in float32, measured at export.", folder / name, used, 100 * share)
    return runtimes.start(file.format, folder / name, precision)


def _check(path: Path, facts: Artifact, runtime: Runtime) -> None:
    if (runtime.size_px, runtime.classes) != (facts.image_size, len(facts.labels)):
        raise ArtifactError(
            f"{path}: expected {len(facts.labels)} classes at {facts.image_size} px as in {artifact.NAME}, "
            f"found {runtime.classes} at {runtime.size_px} px. Export again."
        )


def _outliers(folder: Path, facts: Artifact) -> Outliers | None:
    """Return what the out-of-distribution rule compares with; None where the model has no such rule or file."""
    if facts.decision.outlier_above is None or decision.FILE not in facts.files:
        return None
    artifact.verify(folder, facts, decision.FILE)
    return Outliers.read(folder / decision.FILE)


def _locate(path: Path) -> tuple[Path, str | None]:
    """Return the folder with the artifact.json, and the name of the model; None where the folder itself is given."""
    if not path.exists():
        raise ArtifactError(f"{path}: expected a run folder or an exported model, found nothing there.")
    if path.name == artifact.NAME:
        return path.parent, None
    parent = path.absolute().parent
    if (path / artifact.NAME).is_file():
        return path, None
    if (parent / artifact.NAME).is_file():
        return parent, path.name
    if path.is_dir():
        return path, None
    raise ArtifactError(
        f"{path}: expected a model with {artifact.NAME} beside it, found none. It contains the labels and the image "
        "size; imgclf export writes both. Models of other programs, pickles above all, are never loaded."
    )


def choose(folder: Path, facts: Artifact, engine: str, precision: str, count: int | None) -> str:
    """Return the name of the model in a folder that suits an engine and a precision best.

    The engine `auto` takes LiteRT, which starts fastest, and for MANY images and more ONNX Runtime, which streams small
    models faster. Where these lack a model or their package, it takes another one; Keras, the slowest, comes last.

    Raises:
        ArtifactError: if the folder has no model that fits.
    """
    wanted = "float32" if precision in ("auto", "bf16") else precision
    formats = list(RUNTIMES) if engine == "auto" else [engine]
    if precision == "bf16":
        formats = ["openvino"]
    elif engine == "auto" and count is not None and count >= MANY:
        formats.sort(key=lambda format: format not in ("sklearn", "onnx"))
    fitting = [
        (name, file.format)
        for format in formats
        for name, file in sorted(facts.files.items(), key=_exported_first)
        if file.format == format and file.precision == wanted
    ]
    exported = [pair for pair in fitting if pair[1] != "keras"]
    if engine == precision == "auto" and not exported:
        reduced = [
            (name, f.format) for name, f in facts.files.items() if f.format in RUNTIMES and f.precision != wanted
        ]
        fitting = reduced or fitting
    elif engine == "auto":
        fitting = exported or fitting
    if not fitting:
        if vectors := [name for name, file in facts.files.items() if file.format == VECTORS_FORMAT]:
            raise _starts_at_vectors(folder / vectors[0])
        there = ", ".join(f"{f.format} in {f.precision}" for f in facts.files.values() if f.format in RUNTIMES)
        if there and not (folder / "config.json").exists():  # exports without their run, such as those of imagenet
            raise ArtifactError(
                f"{folder}: expected a model for {formats[0]} in {wanted}, found {there}. "
                "Choose another --engine or --precision."
            )
        command = f"imgclf export {folder}"
        if wanted != "float32":
            command += f" --quantize {wanted}"
        elif engine != "auto" or precision == "bf16":
            command += f" --format {formats[0]}"
        what = "an exported model" if engine == precision == "auto" else f"a model for {formats[0]} in {wanted}"
        raise ArtifactError(f"{folder}: expected {what} in it, found none. {command} makes it.")
    here = [pair for pair in fitting if environment.has_package(RUNTIMES[pair[1]].package)]
    name, format = (here or fitting)[0]
    if format == "keras" and engine == "auto":
        log.info(
            "%s: nothing is exported that runs here, so Keras predicts, which starts slowly. imgclf export %s makes a "
            "faster model.",
            folder,
            folder,
        )
    return name


def _starts_at_vectors(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path}: expected a model that takes images, found one that takes feature vectors, which no graph computes. "
        "Its metadata name them. imgclf predict needs the run that it was exported from."
    )


def _exported_first(item: tuple[str, File]) -> bool:
    """`model.keras` belongs to training; `classifier.keras`, where it is exported, comes before it."""
    return item[0] == "model.keras"


def _race(folder: Path, facts: Artifact, names: Sequence[str]) -> tuple[str, Runtime]:
    """Return the model that predicts the most images per second on all processors, and its runtime."""
    started = {}
    for name in dict.fromkeys(names):
        artifact.verify(folder, facts, name)
        started[name] = runtimes.start(facts.files[name].format, folder / name, PredictConfig.precision)
    rates = {name: images_per_second(runtime) for name, runtime in started.items()} if len(started) > 1 else {}
    for name, rate in rates.items():
        log.debug("%s: %.0f images per second in a trial", folder / name, rate)
    fastest = max(started, key=lambda name: rates.get(name, 0.0))
    return fastest, started[fastest]


def images_per_second(runtime: Runtime, seconds: float = TRIAL_S) -> float:
    """Return the speed of a runtime when every processor uses it, as in a stream; measured for the given time."""
    workers = environment.cpu_count()
    runtime.prepare(workers)
    batch = np.random.default_rng(0).uniform(0, 255, (runtime.batch_size, runtime.size_px, runtime.size_px, 3))
    pixels = batch.astype(np.float32)

    given = head(runtime.names)
    wanted = (given,) if given else runtime.names

    def repeat(until: float) -> int:
        done = 0
        while done == 0 or time.perf_counter() < until:
            runtime.outputs(pixels, wanted)
            done += len(pixels)
        return done

    from concurrent.futures import ThreadPoolExecutor  # not needed for one image from a cold start

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(repeat, [0.0] * workers))  # the first calls are slower
        begin = time.perf_counter()
        done = sum(pool.map(repeat, [begin + seconds] * workers))
    return done / (time.perf_counter() - begin)
