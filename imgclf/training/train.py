"""Train a classifier from start to end: dataset + settings -> run folder."""

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import imgclf
from imgclf import environment, runs, storage, tasks
from imgclf.data import dataset as datasets
from imgclf.data import doctor, reading, run_data
from imgclf.data.dataset import TEST, TRAIN, Dataset
from imgclf.errors import MissingError, UsageError
from imgclf.evaluation import answers, plots, report, robustness, scorers, slices
from imgclf.prediction import artifact, decision
from imgclf.prediction.artifact import File
from imgclf.runs import Run
from imgclf.settings import REPORT_FORMATS, TrainConfig, preprocessing, small_cnn
from imgclf.training import calibration_fit, distillation, estimators
from imgclf.training.calibration_fit import Calibrated
from imgclf.training.decoding import Decoding
from imgclf.training.estimators import Estimator, Fitted, Work
from imgclf.training.images import Images
from imgclf.training.progress import OnProgress, Row
from imgclf.training.run_log import explained, log_to
from imgclf.training.time_budget import Clock

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")

CURVE = "learning_curve.png"


def train(
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    output: Path | str | None = None,
    with_report: bool = True,
    backbone: "keras.Model | None" = None,
    built: Any = None,
    on_progress: OnProgress | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier, score it on the test part, and export it.

    Args:
        output: the run folder, new or empty; by default `runs/<data>-<backbone>-<n>`.
        with_report: whether to write `report.html`, too.
        backbone: a backbone of your own, in place of `config.backbone`: a functional model from pixels (n, s, s, 3),
            0-255, to a map, tokens or a vector.
        built: what the estimator's `build` returned for these settings and classes, where folds may share it.
        started: the `time.monotonic()` from which the time limit counts; by default now.

    Returns:
        The finished run.

    Raises:
        DatasetError: if there are not at least two classes with training images.
        UsageError: if `config` asks for other settings of the data than those the dataset was read with, for a teacher
            of another task or other classes, or for more neighbors than there are training images.
        RunError: if the folder cannot be used, or the training diverged.
        MissingError: if weights that were asked for cannot be had.
    """
    clock_from = time.monotonic() if started is None else started
    settings = distillation.check(reading.settled(dataset, config or TrainConfig()), dataset)
    with ExitStack() as stack:
        if backbone is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgclf-")))
            settings = replace(settings, backbone=str(save_own(backbone, folder)))
        estimator, notes = estimators.kind(settings).resolve(settings, dataset.median_side_px)
        estimator.check(len(dataset.part(TRAIN)))
        decoding = stack.enter_context(Decoding(dataset, estimator, on_progress))
        built = built if built is not None else estimator.build(len(dataset.class_names))
        stem = f"{dataset.name}-{short(estimator.name)}"
        run = runs.create(Path(output)) if output else runs.create(runs.create_next(Path("runs"), stem))
        for context in (explained(run, alone=with_report), run.lock(), log_to(run)):
            stack.enter_context(context)
        _describe_data(dataset, notes)
        _compare_preprocessing(estimator.settings)
        run.write_labels(list(dataset.class_names))
        datasets.write_manifest(dataset, run.manifest)
        estimator.keep(built, run)
        storage.write_json(run.config, _facts(dataset, estimator.settings))  # last: with it, the folder is a run
        work = _fit(estimator, built, run, decoding, on_progress, clock_from)
        _end(run)
        _conclude(run, dataset, work, with_report=with_report)
    return run


def _conclude(run: Run, dataset: Dataset, work: Work, *, with_report: bool) -> None:
    """Write the report, and say how long it all took."""
    if with_report and run.metrics.is_file():
        work.enter("writing the report")
        scorers.of(run).report(run, run.path, files=dataset.files)
    log.info("%s: finished in %.0f s.", run.path, time.monotonic() - work.clock.started)


def _fit(
    estimator: Estimator,
    built: Any,
    run: Run,
    decoding: Decoding,
    on_progress: OnProgress | None,
    started: float,
    extended: Run | None = None,
) -> Work:
    """Wait for the pixels, check that there is something to train on, fit, and finish the run.

    Args:
        extended: the finished run that is trained for more epochs, whose files those of `run` are to replace.
    """
    clock = Clock.start(estimator.limit_s, started)
    dataset, pixels = decoding.result()
    datasets.write_manifest(dataset, run.manifest)
    storage.write_json(run.config, run.read_config() | {"data_sha256": dataset.digest()})
    task, labels = tasks.find(dataset.task), [s.label for s in dataset.samples if s.split == TRAIN]
    task.check(labels, dataset.class_names, str(dataset.root))
    lessons = distillation.lessons(estimator.settings, dataset, extended or run, estimator.image_size, on_progress)
    work = Work(Images(dataset, pixels, lessons), run, clock, on_progress, decoding.seconds, extended)
    _finish(work, estimator.fit(built, work))
    return work


def _finish(work: Work, fitted: Fitted) -> None:
    """Calibrate, score, draw, describe and export. What is described is finished."""
    run, dataset = work.run, fitted.images.dataset
    storage.write_json(run.config, run.read_config() | {"config": fitted.settings.to_dict()})
    work.enter("calibrating and scoring")
    calibrated = calibration_fit.calibrate(run, fitted)
    files = fitted.store(run)
    outputs = fitted.predictions(TEST, calibrated.temperature)
    if len(outputs):
        _score(run, dataset.part(TEST), outputs, calibrated)
    else:
        log.info("The test split is empty, so nothing is scored; imgclf evaluate RUN DATA scores other images.")
    _draw(run, fitted.rows)
    describe(run, fitted, files, calibrated)
    formats = (*fitted.exports(work.clock), *(_exported(work.extended) if work.extended else ()))
    export(run, tuple(dict.fromkeys(formats)), work.on_progress, work.extended)


def _end(run: Run) -> None:
    """Delete what only an unfinished training needs."""
    run.checkpoint.unlink(missing_ok=True)
    run.backbone.unlink(missing_ok=True)


def _draw(run: Run, rows: Sequence[Row]) -> None:
    """Draw the learning curve, if the history has one."""
    picture = plots.history([{key: str(value) for key, value in row.items()} for row in rows])
    if picture:
        storage.write_atomic(run.path / CURVE, picture)


def resume(
    run: Run | Path | str,
    *,
    epochs: int | None = None,
    data: Path | None = None,
    with_report: bool = True,
    on_progress: OnProgress | None = None,
    started: float | None = None,
) -> Run:
    """Resume an interrupted training from its last checkpoint, with its own settings and split.

    Args:
        run: the run or its folder.
        epochs: the new number of epochs of a finished run, which has had fewer. Its learning rate rises and falls once
            more, and the better weights on validation are kept.
        data: the new location of its images; the run records it.
        with_report: whether to write `report.html` as well.
        started: the `time.monotonic()` from which the time limit counts; by default now.

    Raises:
        UsageError: if the run cannot have more epochs.
        RunError: if the folder contains no training, or it is damaged.
        DatasetError: if its images are missing.
    """
    run = runs.find(run)
    clock_from = time.monotonic() if started is None else started
    settings = TrainConfig.from_dict(run.read_config()["config"])
    with explained(run, alone=with_report), run.lock(), log_to(run):
        is_finished = run.artifact.exists()
        if is_finished and epochs is None and not run.extension.config.is_file():
            _complete(run, settings, with_report)
            return run
        if is_finished or epochs is not None:
            settings = _with_more_epochs(run, settings, epochs)
        dataset = run_data.read(run, data)
        gone = run_data.missing(dataset)
        if gone:
            raise gone
        if data:
            _move(run, dataset)
        if is_finished:
            _extend(run, settings, dataset)
        estimator = estimators.kind(settings).of_run(settings)
        with Decoding(dataset, estimator, on_progress) as decoding:
            built = estimator.build(len(dataset.class_names), run)
            if is_finished:
                work = _fit(estimator, built, run.extension, decoding, on_progress, clock_from, run)
                _replace(run, run.extension)
            else:
                work = _fit(estimator, built, run, decoding, on_progress, clock_from)
                _end(run)
        _conclude(run, dataset, work, with_report=with_report)
    return run


def _move(run: Run, dataset: Dataset) -> None:
    """Record where the images are now."""
    with storage.stage(run.path) as stage:
        moved = Run(stage)
        storage.write_json(moved.config, run.read_config() | {"data": str(dataset.origin.resolve())})
        datasets.write_manifest(dataset, moved.manifest)
        storage.install(stage, run.path)


def _complete(run: Run, settings: TrainConfig, with_report: bool) -> None:
    """Make what a finished run lacks: exports, the learning curve, the report."""
    from imgclf.exporting import artifacts

    made = artifact.read(run.path).files
    missing = [name for name in settings.export_formats if artifacts.FILES[name] not in made]
    if missing:
        export(run, missing)
        log.info("%s: exported %s.", run.path, ", ".join(missing))
    if not (run.path / CURVE).is_file() and run.history_file.is_file():
        _draw(run, run.history)
    if with_report and run.metrics.is_file() and not (run.path / f"{report.NAME}.html").is_file():
        scorers.of(run).report(run, run.path)
    _end(run)
    log.info("%s: this training is finished.", run.path)


def _with_more_epochs(run: Run, config: TrainConfig, epochs: int | None) -> TrainConfig:
    """Return settings with the new number of epochs; None resumes the training for more that was interrupted."""
    if config.method in ("probe", "auto") or config.epochs is None:
        raise UsageError(f"--epochs: {run.path} was trained with --method {config.method}, which counts no epochs.")
    if not run.artifact.exists():
        raise UsageError(f"--epochs: {run.path} is not finished; --resume alone resumes it.")
    if run.extension.config.is_file():
        begun = TrainConfig.from_dict(run.extension.read_config()["config"])
        if epochs in (None, begun.epochs):
            return begun
        if run.extension.checkpoint.is_file():
            raise UsageError(
                f"--epochs: {run.path} is being trained for {begun.epochs} epochs, which --resume alone resumes; found "
                f"{epochs}. Delete {run.extension.path} to give that training up."
            )
    if epochs is None or epochs <= config.epochs:
        raise UsageError(f"--epochs: {run.path} has had {config.epochs}; expected more, found {epochs}.")
    return replace(config, epochs=epochs)


def _extend(run: Run, settings: TrainConfig, dataset: Dataset) -> None:
    """Begin a training for more epochs in a folder of its own, or resume one: until its end, the run stays as it is."""
    begun = run.extension
    if not begun.checkpoint.is_file():
        shutil.rmtree(begun.path, ignore_errors=True)
        begun.path.mkdir()
        begun.write_labels(list(dataset.class_names))
    datasets.write_manifest(dataset, begun.manifest)
    storage.write_json(begun.config, run.read_config() | {"config": settings.to_dict()})


def _exported(run: Run) -> list[str]:
    """Return the formats that a run has, however they were asked for."""
    from imgclf.exporting import artifacts

    made = {*artifact.read(run.path).files, *(path.name for path in run.path.glob(artifacts.FILES[artifacts.BACKBONE]))}
    return [format for format, name in artifacts.FILES.items() if name in made]


def _replace(run: Run, work: Run) -> None:
    """Replace a run's files by those of the training for more epochs, in one step."""
    now = artifact.read(work.path).files
    gone = [name for name in artifact.read(run.path).files if name not in now]
    gone += [f"{report.NAME}.{format}" for format in REPORT_FORMATS]  # which tell of the former model
    gone += [*robustness.FILES, slices.FILE, answers.FOLDER]
    storage.install(work.path, run.path, remove=gone, leave=(work.checkpoint.name, work.backbone.name))


def save_own(backbone: "keras.Model", folder: Path) -> Path:
    """Return a user's model as a file, which is what training knows: what cannot be saved could not be resumed."""
    path = folder / f"{backbone.name}.keras"
    try:
        backbone.save(path)
    except Exception as error:  # a foreign model makes Keras raise nearly anything
        raise UsageError(
            f"backbone: {backbone.name} cannot be saved, so a run could not contain it ({error})."
        ) from None
    return path


def short(backbone: str) -> str:
    """Return a backbone's name as part of a folder's."""
    if small_cnn.parse(backbone):
        return small_cnn.SMALL_CNN
    return re.sub(r"[^\w.-]+", "-", re.split(r"[/\\:]", backbone.rstrip("/\\"))[-1].removesuffix(".keras"))


def _describe_data(dataset: Dataset, notes: Sequence[str]) -> None:
    """Log what was chosen, and what is wrong with the images."""
    for note in (*notes, *doctor.told(dataset)):
        log.info("%s", note)
    if alike := [name for name in dataset.class_names if name.casefold() == decision.UNKNOWN]:
        log.warning(
            "The class %s has the name that tables give to rejected images. Programs should read the columns predicted "
            "and rejected, people may want another name for it: --rename %s=other.",
            *(repr(alike[0]), alike[0]),
        )


def _compare_preprocessing(settings: TrainConfig) -> None:
    """Warn if another run, whose weights or predictions are taken, saw images through another chain of steps."""
    for option, given in (("--weights", settings.weights), ("--distill", settings.distill)):
        place = Path(given or "")
        other = Run(place if place.is_dir() else place.parent)
        if not given or not place.exists() or not other.config.is_file():
            continue
        theirs = TrainConfig.from_dict(other.read_config()["config"]).preprocess
        if not preprocessing.same(theirs, settings.preprocess):
            log.warning(
                "%s %s: that run was trained with %s, this one with %s. --preprocess makes them alike.",
                *(option, given),
                *(f"--preprocess {chain}" if chain else "no --preprocess" for chain in (theirs, settings.preprocess)),
            )


def _facts(dataset: Dataset, settings: TrainConfig) -> dict[str, Any]:
    return {
        "imgclf": imgclf.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(dataset.origin.resolve()),
        "data_sha256": dataset.digest(),
        "config": settings.to_dict(),
        "augmentation": settings.policy.to_dict(),
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }


def _score(run: Run, dataset: Dataset, outputs: np.ndarray, calibrated: Calibrated) -> None:
    scorer = scorers.find(dataset.task)
    scored = scorer.score(dataset.samples, outputs, dataset.class_names, calibrated.rules, calibrated.outlier_scores)
    scored.write(run.path)
    log.info("Test %s", scorer.headline(scored.metrics, digits=4))
    if decided := scorer.decided(scored.metrics):
        log.info("%s", decided)


def describe(run: Run, fitted: Fitted, files: Mapping[str, File], calibrated: Calibrated) -> None:
    """Write `artifact.json`: what prediction needs, with the stored model as the first of its files."""
    settings, dataset = fitted.settings, fitted.images.dataset
    files = dict(files)
    if calibrated.rules.outlier_above is not None:
        kept = run.path / decision.FILE
        files[kept.name] = File(decision.FORMAT, *artifact.hash_tree(kept))
    facts = artifact.Artifact(
        imgclf=imgclf.__version__,
        labels=tuple(dataset.class_names),
        image_size=fitted.images.size_px,
        resize=settings.resize,
        window=settings.window,
        preprocess=settings.preprocess,
        allow_truncated=settings.allow_truncated,
        backbone=settings.backbone,
        task=dataset.task,
        outputs=fitted.outputs,
        data_sha256=dataset.digest(),
        files=files,
        temperature=calibrated.temperature,
        decision=calibrated.rules,
    )
    artifact.write(run.path, facts)


def export(
    run: Run, formats: Sequence[str], on_progress: OnProgress | None = None, extended: Run | None = None
) -> None:
    """Write exports, as far as their packages are installed."""
    if not formats:
        return
    from imgclf.exporting import artifacts

    try:
        artifacts.write(run, formats, on_progress=on_progress)
    except MissingError as error:
        log.warning("Not exported: %s imgclf export %s exports it later.", error, (extended or run).path)
