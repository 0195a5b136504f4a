"""Train a classifier from start to end: dataset + settings -> run folder."""

import csv
import io
import json
import logging
import math
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

import imgclf
from imgclf import environment, runs
from imgclf.data import dataset as datasets
from imgclf.data import loading, reading, run_data
from imgclf.data.dataset import TEST, TRAIN, Dataset
from imgclf.errors import DatasetError, MissingError, RunError, UsageError
from imgclf.evaluation import calibration, decisions, plots, report, scoring
from imgclf.models import classifier, flattening, sources
from imgclf.prediction import artifact, decision
from imgclf.runs import Run
from imgclf.settings import AUTO, TrainConfig
from imgclf.training import calibration_fit, devices, loop, recipe, trackers
from imgclf.training.auto_finetune import DEFAULT_LIMIT_S, Images, Training
from imgclf.training.calibration_fit import Calibrated
from imgclf.training.loop import OnProgress
from imgclf.training.time_budget import Clock

log = logging.getLogger("imgclf")

HISTORY = ("phase", "epoch", "image_size", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "outcome")
"""The columns of `history.csv`."""

SPARE = 0.05
"""The share of a time limit by which exports that were counted on may overrun it."""


def train(
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    output: Path | str | None = None,
    with_report: bool = True,
    backbone: keras.Model | None = None,
    model: keras.Model | None = None,
    on_progress: OnProgress | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier, score it on the test part, and export it.

    Args:
        output: the run folder, new or empty; by default `runs/<data>-<backbone>-<n>`.
        with_report: whether to write `report.html`, too.
        backbone: a backbone of your own, in place of `config.backbone`: a functional model from pixels (n, s, s, 3),
            0-255, to a map, tokens or a vector.
        model: what `build` gave for these settings and classes, its head anew or not: of no use to any method but a
            probe, which sets the whole head.
        started: since when the time limit counts, of `time.monotonic`; by default from now on.

    Returns:
        The finished run.

    Raises:
        DatasetError: if there are not at least two classes with training images.
        UsageError: if `config` asks for other settings of the data than those the dataset was read with.
        RunError: if the folder cannot be used, or the training diverged.
        MissingError: if weights that were asked for cannot be had.
    """
    started = time.monotonic() if started is None else started
    config = reading.settled(dataset, config or TrainConfig())
    with ExitStack() as stack:
        if backbone is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgclf-")))
            config = replace(config, backbone=str(_save_own(backbone, folder)))
        config, notes = recipe.resolve(config)
        devices.choose(config.device)
        devices.check_batch(loop.batch_size(config))
        trackers.check(config)
        decoding = stack.enter_context(_Decoding(dataset, config, on_progress))
        # before there is a folder: weights that cannot be had leave nothing behind
        model = model if model is not None else build(config, len(dataset.class_names))
        stem = f"{dataset.name}-{_short(config.backbone)}"
        run = runs.create(Path(output)) if output else runs.create(runs.create_next(Path("runs"), stem))
        for context in (_explained(run), run.lock(), _log_to(run)):
            stack.enter_context(context)
        found = dataset.checkup.lines() if dataset.checkup else []
        for note in (*notes, *found, *dataset.notes, *dataset.split_notes):
            log.info("%s", note)
        for skipped in dataset.skipped:
            if skipped.kind in ("unreadable", "unlabelled", "empty-class", "excluded"):
                log.warning("left out %s: %s", skipped.path, skipped.reason)
        run.write_labels(list(dataset.class_names))
        datasets.write_manifest(dataset, run.manifest)
        runs.write_json(run.config, _facts(dataset, config))
        if not sources.portable(config.backbone):
            classifier.backbone(model).save(run.backbone)
        _train(run, model, decoding, config, on_progress, started)
        if with_report and run.metrics.is_file():
            report.write(run, files=dataset.files)
    return run


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
    started = time.monotonic() if started is None else started
    facts = run.read_config()
    config = TrainConfig.from_dict(facts["config"])
    devices.choose(config.device)
    with _explained(run), run.lock(), _log_to(run):
        if epochs is not None:
            config = _with_more_epochs(run, config, epochs)
        elif run.artifact.exists():
            from imgclf.exporting import artifacts

            made = artifact.read(run.path).files
            missing = [name for name in config.export_formats if artifacts.FILES[name] not in made]
            if missing:
                _export(run, missing)
                log.info("%s: exported %s", run.path, ", ".join(missing))
            run.checkpoint.unlink(missing_ok=True)
            run.backbone.unlink(missing_ok=True)
            log.info("%s: this training is finished", run.path)
            return run
        dataset = run_data.read(run, data)
        gone = run_data.missing(dataset)
        if gone:
            raise gone
        if data:
            runs.write_json(run.config, run.read_config() | {"data": str(dataset.origin.resolve())})
            datasets.write_manifest(dataset, run.manifest)
        with _Decoding(dataset, config, on_progress) as decoding:
            kept = next((file for file in (run.backbone, run.model) if file.is_file()), None)
            kept = None if sources.portable(config.backbone) else kept
            model = build(config, len(dataset.class_names), kept=kept)
            _train(run, model, decoding, config, on_progress, started)
        if with_report and run.metrics.is_file():
            report.write(run, files=dataset.files)
    return run


def _with_more_epochs(run: Run, config: TrainConfig, epochs: int) -> TrainConfig:
    if config.method in ("probe", "auto") or config.epochs is None:
        raise UsageError(f"--epochs: {run.path} was trained with --method {config.method}, which counts no epochs.")
    if not run.artifact.exists():
        raise UsageError(f"--epochs: {run.path} is not finished; --resume alone goes on with it.")
    if epochs <= config.epochs:
        raise UsageError(f"--epochs: {run.path} has had {config.epochs}; expected more, found {epochs}.")
    return replace(config, epochs=epochs)


def _save_own(backbone: keras.Model, folder: Path) -> Path:
    """A user's model as a file, which is what training knows: what cannot be saved could not be resumed."""
    path = folder / f"{backbone.name}.keras"
    try:
        backbone.save(path)
    except Exception as error:  # a foreign model makes Keras raise nearly anything
        raise UsageError(
            f"backbone: {backbone.name} cannot be saved, so a run could not contain it ({error})."
        ) from None
    return path


def _short(backbone: str) -> str:
    """A backbone's name as part of a folder's."""
    return re.sub(r"[^\w.-]+", "-", re.split(r"[/\\:]", backbone.rstrip("/\\"))[-1].removesuffix(".keras"))


def build(config: TrainConfig, classes: int, *, kept: Path | None = None) -> keras.Model:
    """The classifier that resolved settings ask for, with the initial weights that its seed gives."""
    if config.deterministic:
        devices.make_deterministic()
    keras.utils.set_random_seed(config.seed)
    return recipe.build(config, classes, kept=kept)


def _facts(dataset: Dataset, config: TrainConfig) -> dict[str, Any]:
    return {
        "imgclf": imgclf.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(dataset.origin.resolve()),
        "data_sha256": dataset.digest(),
        "config": config.to_dict(),
        "augmentation": config.policy.to_dict(),
        "versions": environment.versions(),
        "hardware": environment.hardware() | {"keras_backend": keras.backend.backend()},
    }


def _train(
    run: Run,
    model: keras.Model,
    decoding: "_Decoding",
    config: TrainConfig,
    on_progress: OnProgress | None,
    started: float,
) -> None:
    assert config.image_size is not None
    begun = time.monotonic()
    clock = Clock.start(config.limit_s or (DEFAULT_LIMIT_S if config.method == "auto" else math.inf), started)
    dataset, pixels = decoding.result()
    datasets.write_manifest(dataset, run.manifest)
    runs.write_json(run.config, run.read_config() | {"data_sha256": dataset.digest()})
    _check_classes(dataset)
    training = Training(
        model,
        config,
        Images(dataset, pixels),
        clock,
        lambda rows: _write_history(run.history, rows),
        run.checkpoint,
        on_progress,
        trackers.callbacks(run, config),
        decoding_s=decoding.seconds,
    )
    probabilities = _fit(run, training)
    model, config, pixels = training.model, training.config, training.images.pixels
    runs.write_json(run.config, run.read_config() | {"config": config.to_dict()})
    calibrating_from = time.monotonic()
    fitted = calibration_fit.calibrate(run, model, dataset, pixels, config, on_progress=on_progress)
    if config.time_limit:
        training.clock.learn(training.passes_s(), time.monotonic() - calibrating_from)
    probabilities = calibration.apply_temperature(probabilities, fitted.temperature)
    model.save(run.model)
    if len(probabilities):
        _score(run, dataset.part(TEST), probabilities, fitted)
    else:
        log.info("there is no test part, so nothing is scored; imgclf evaluate RUN DATA scores other images")
    _describe(run, model, dataset, config, fitted)
    picture = plots.history([{key: str(value) for key, value in row.items()} for row in training.rows])
    if picture:
        runs.write_atomic(run.path / "learning_curve.png", picture)
    _export(run, _formats_in_time(training))
    run.checkpoint.unlink(missing_ok=True)
    run.backbone.unlink(missing_ok=True)
    log.info("%s: finished in %.0f s", run.path, time.monotonic() - begun)


def _formats_in_time(training: Training) -> tuple[str, ...]:
    """What to export: what was asked for, as far as it does not overrun a time limit that was given."""
    formats = training.config.export_formats
    if training.config.time_limit is None:
        return formats
    left = training.clock.left_s() + SPARE * training.clock.limit_s
    layers = len(training.model.layers)
    count = sum(training.clock.ending_s(n, layers, 0.0) <= left for n in range(1, len(formats) + 1))
    if count < len(formats):
        names = ", ".join(formats[count:])
        log.warning("not exported, since the time limit is reached: %s. imgclf export does it later.", names)
    return formats[:count]


class _Decoding:
    """Pixels that a thread decodes, so that the network can be built meanwhile; leaving the context ends it."""

    def __init__(self, dataset: Dataset, config: TrainConfig, on_progress: OnProgress | None) -> None:
        self.seconds = 0.0  # that it took
        self._dataset, self._config, self._on_progress = dataset, config, on_progress
        self._done = 0
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._future = self._pool.submit(self._decode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()

    def result(self) -> tuple[Dataset, loading.Pixels]:
        """The dataset without what cannot be decoded, and the pixels of the rest.

        Raises:
            DatasetError: see `loading.decode`.
            MissingError: see `loading.decode`.
        """
        readable, pixels = self._future.result()
        for skipped in readable.skipped[len(self._dataset.skipped) :]:
            log.warning("left out %s: %s", skipped.path, skipped.reason)
        return readable, pixels

    def _decode(self) -> tuple[Dataset, loading.Pixels]:
        config, begun = self._config, time.monotonic()
        assert config.image_size is not None
        decoded = loading.decode(
            self._dataset,
            config.image_size,
            config.decoding,
            cache=config.cache,
            cache_limit_gb=config.cache_limit_gb,
            on_progress=self._advance,
        )
        self.seconds = time.monotonic() - begun
        return decoded

    def _advance(self, count: int) -> None:
        if self._ended.is_set():
            raise CancelledError
        self._done += count
        if self._on_progress:
            self._on_progress("decoding", self._done, len(self._dataset))


def _check_classes(dataset: Dataset) -> None:
    empty = [name for name, count in dataset.counts(TRAIN).items() if not count]
    if empty:
        raise DatasetError(
            f"{dataset.root}: expected training images for every class, found none for {', '.join(empty)}. "
            "Add images, or name the classes to use with --classes."
        )


def _fit(run: Run, training: Training) -> np.ndarray:
    """Give the classifier the weights that training finds; `history.csv` grows with every epoch.

    Returns:
        Its probabilities for the test part, float32 (m, classes).
    """
    config = training.config
    if run.artifact.exists():
        return _go_on(run, training)
    solved = np.empty((0,))
    if config.method in ("probe", "finetune", "auto"):
        solved = training.probe()
        if config.method == "probe":
            return solved
    _settle(run, training)
    if config.method == "auto":
        training.improve()
        if not training.has_improved:
            return solved
    else:
        training.descend(config.method, config.unfreeze_from, training.config, _deadline(training))
    probabilities = training.answer()
    if len(solved):
        labels = training.images.part(TEST).labels
        at_first, now = (float(np.mean(p.argmax(axis=1) == labels)) for p in (solved, probabilities))
        log.info("test accuracy %.4f; of the probe alone it was %.4f", now, at_first)
    return probabilities


def _go_on(run: Run, training: Training) -> np.ndarray:
    """More epochs for a finished run."""
    config = training.config
    earlier = read_history(run.history)
    training.model.set_weights(flattening.load(run.model).get_weights())
    training.rows[:] = earlier
    had = sum(row["phase"] == config.method for row in earlier)
    assert config.epochs is not None
    more = replace(config, epochs=config.epochs - had)
    log.info("%s: %d epochs more", run.path, more.epochs)
    training.extend(config.method, config.unfreeze_from, more, _deadline(training))
    runs.write_json(run.config, run.read_config() | {"config": config.to_dict()})
    return training.answer()


def _deadline(training: Training) -> float:
    return training.clock.deadline(training.ending_s())


def _settle(run: Run, training: Training) -> None:
    """Find the numbers that only training itself can tell, and write them into the run's settings."""
    if not isinstance(training.config.batch_size, int):
        training.config = replace(training.config, batch_size=loop.batch_size(training.config))
        training.may_halve = True
    if training.config.lr == AUTO:
        training.find_rate(run.path / "learning_rate.png")
    runs.write_json(run.config, run.read_config() | {"config": training.config.to_dict()})


def _score(run: Run, dataset: Dataset, probabilities: np.ndarray, fitted: Calibrated) -> None:
    scored = scoring.score(dataset.samples, probabilities, dataset.class_names, fitted.rules, fitted.outlier_scores)
    scored.write(run.path)
    low, high = scored.metrics["intervals"]["accuracy"]
    log.info("Test accuracy %.4f (95%% CI %.4f to %.4f), n = %d", scored.metrics["accuracy"], low, high, len(dataset))
    if covered := decisions.describe(scored.metrics):
        log.info("%s", covered)


def _describe(run: Run, model: keras.Model, dataset: Dataset, config: TrainConfig, fitted: Calibrated) -> None:
    """Write `artifact.json`: what prediction needs to know, with `model.keras` as the first of its files."""
    assert config.image_size is not None
    files = {run.model.name: artifact.File("keras", *artifact.hash_tree(run.model))}
    if fitted.rules.outlier_above is not None:
        kept = run.path / decision.FILE
        files[kept.name] = artifact.File(decision.FORMAT, *artifact.hash_tree(kept))
    facts = artifact.Artifact(
        imgclf=imgclf.__version__,
        labels=tuple(dataset.class_names),
        image_size=config.image_size,
        resize=config.resize,
        window=config.window,
        allow_truncated=config.allow_truncated,
        backbone=config.backbone,
        outputs=("probabilities", "embedding", *(["feature_map"] if classifier.has_map(model) else [])),
        data_sha256=dataset.digest(),
        files=files,
        temperature=fitted.temperature,
        decision=fitted.rules,
    )
    artifact.write(run.path, facts)


def _export(run: Run, formats: Sequence[str]) -> None:
    if not formats:
        return
    from imgclf.exporting import artifacts

    try:
        artifacts.write(run, formats)
    except MissingError as error:
        log.warning("not exported: %s imgclf export %s does it later.", error, run.path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `history.csv`, numbers as numbers, without the empty cells."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole, text = ("epoch", "image_size"), ("phase", "outcome")
    return [
        {
            key: value if key in text else int(value) if key in whole else float(value)
            for key, value in row.items()
            if value
        }
        for row in rows
    ]


def _write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    runs.write_atomic(path, text.getvalue())


@contextmanager
def _explained(run: Run) -> Iterator[None]:
    """Say what is kept when the disk is full or the user has had enough."""
    again = f"imgclf train --resume {run.path} goes on from there."
    try:
        yield
    except OSError as error:
        kept = f" Finished epochs are kept: {again}" if run.checkpoint.exists() else ""
        raise RunError(f"{run.path}: the run cannot be written ({error.strerror or error}).{kept}") from None
    except KeyboardInterrupt:
        if run.checkpoint.exists():
            log.info("finished epochs are kept: %s", again)
        raise


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "level": record.levelname, "message": record.getMessage()})


@contextmanager
def _log_to(run: Run) -> Iterator[None]:
    """Write imgclf's own log lines to the run as well, as text and as JSON Lines."""
    handlers = [
        logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") for path in (run.log, run.events)
    ]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers[1].setFormatter(_JSONLines())
    level = log.level
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
