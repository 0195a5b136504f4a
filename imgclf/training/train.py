"""One training, start to end: dataset + settings -> run folder."""

import csv
import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

import imgclf
from imgclf import environment, runs
from imgclf.config import TrainConfig
from imgclf.data import dataset as datasets
from imgclf.data import loading, preparing, scans
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from imgclf.errors import DatasetError, MissingError, RunError
from imgclf.evaluation import calibration, decisions, metrics, outputs, plots, report
from imgclf.prediction import artifact, decision
from imgclf.runs import Run
from imgclf.training import calibrating, devices, features, finetune, fitting, probe, resolving
from imgclf.training.calibrating import Calibrated
from imgclf.training.fitting import OnProgress, Part, Plan

log = logging.getLogger("imgclf")


def train(
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    output: Path | str | None = None,
    with_report: bool = True,
    on_progress: OnProgress | None = None,
) -> Run:
    """Train a classifier, score it on the test part, and export it.

    Args:
        output: the run folder, new or empty; by default `runs/<data>-<backbone>-<n>`.
        with_report: whether to write `report.html`, too.

    Returns:
        The finished run.

    Raises:
        DatasetError: if there are not at least two classes with training images.
        RunError: if the folder cannot be used, or the training diverged.
        MissingError: if weights that were asked for cannot be had.
    """
    config, notes = resolving.resolve(config or TrainConfig())
    dataset, data_notes = _prepare(dataset, config)
    model = _build(config, dataset)  # before there is a folder: weights that cannot be had leave nothing behind
    stem = f"{dataset.name}-{config.backbone}"
    run = runs.create(Path(output)) if output else runs.create(runs.create_next(Path("runs"), stem))
    with _explained(run), run.lock(), _log_to(run.log):
        for note in (*notes, *data_notes):
            log.info("%s", note)
        for skipped in dataset.skipped:
            if skipped.kind in ("unreadable", "unlabelled", "empty-class", "excluded"):
                log.warning("left out %s: %s", skipped.path, skipped.reason)
        run.write_labels(list(dataset.class_names))
        datasets.write_manifest(dataset, run.manifest)
        runs.write_json(run.config, _facts(dataset, config))
        _train(run, model, dataset, config, on_progress)
        if with_report and run.metrics.is_file():
            report.write(run, root=dataset.root)
    return run


def _prepare(dataset: Dataset, config: TrainConfig) -> tuple[Dataset, list[str]]:
    """Choose and split the images; the notes say what is wrong with them, a line for each kind of problem."""
    if config.near_duplicates == "off":
        prepared = preparing.prepare(dataset, config)
    else:
        with scans.Scanner(config.allow_truncated) as scanner:
            prepared = preparing.prepare(dataset, config, scanner)
    return prepared.dataset, [*prepared.checkup.lines(), *prepared.notes]


def resume(run: Run, *, on_progress: OnProgress | None = None) -> Run:
    """Go on with an interrupted training from its last checkpoint, with its own settings and split.

    Raises:
        RunError: if the folder holds no training, or it is damaged.
        DatasetError: if its images are no longer there.
    """
    facts = run.read_config()
    config = TrainConfig.from_dict(facts["config"])
    with _explained(run), run.lock(), _log_to(run.log):
        if run.artifact.exists():
            from imgclf.export import artifacts

            made = artifact.read(run.path).files
            missing = [name for name in config.export_formats if artifacts.FILES[name] not in made]
            if missing:
                _export(run, missing)
                log.info("%s: exported %s", run.path, ", ".join(missing))
            run.checkpoint.unlink(missing_ok=True)
            log.info("%s: this training is finished", run.path)
            return run
        dataset = datasets.read_run(run)
        _train(run, _build(config, dataset), dataset, config, on_progress)
        if run.metrics.is_file():
            report.write(run, root=dataset.root)
    return run


def _build(config: TrainConfig, dataset: Dataset) -> keras.Model:
    keras.utils.set_random_seed(config.seed)
    return resolving.build(config, len(dataset.class_names))


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


@dataclass(frozen=True)
class _Pixels:
    """The decoded images and where each side of the split stands among them."""

    dataset: Dataset
    pixels: loading.Pixels  # uint8 (n, s, s, 3)

    def rows(self, split: str) -> np.ndarray:
        """int (m,): where the samples of one side stand."""
        return np.array([i for i, sample in enumerate(self.dataset.samples) if sample.split == split], int)

    def part(self, split: str) -> Part:
        rows = self.rows(split)
        return Part(self.pixels.take(rows), self.dataset.labels[rows])


def _train(run: Run, model: keras.Model, dataset: Dataset, config: TrainConfig, on_progress: OnProgress | None) -> None:
    assert config.image_size is not None
    started = time.monotonic()
    dataset, pixels = _decode(dataset, config, on_progress)
    datasets.write_manifest(dataset, run.manifest)
    runs.write_json(run.config, run.read_config() | {"data_sha256": dataset.digest()})
    images = _Pixels(dataset, pixels)
    _check_classes(dataset)
    probabilities = _fit(run, model, config, images, on_progress)
    fitted = calibrating.calibrate(run, model, dataset, pixels, config, on_progress=on_progress)
    probabilities = calibration.apply_temperature(probabilities, fitted.temperature)
    model.save(run.model)
    if len(probabilities):
        _score(run, dataset.part(TEST), probabilities, fitted)
    else:
        log.info("there is no test part, so nothing is scored; imgclf evaluate RUN DATA scores other images")
    _describe(run, model, dataset, config, fitted)
    _export(run, config.export_formats)
    run.checkpoint.unlink(missing_ok=True)
    log.info("%s: finished in %.0f s", run.path, time.monotonic() - started)


def _decode(dataset: Dataset, config: TrainConfig, on_progress: OnProgress | None) -> tuple[Dataset, loading.Pixels]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress:
            on_progress("decoding", done, len(dataset))

    before = len(dataset.skipped)
    assert config.image_size is not None
    readable, pixels = loading.decode(
        dataset,
        config.image_size,
        config.decoding,
        cache=config.cache,
        cache_limit_gb=config.cache_limit_gb,
        on_progress=advance,
    )
    for skipped in readable.skipped[before:]:
        log.warning("left out %s: %s", skipped.path, skipped.reason)
    return readable, pixels


def _check_classes(dataset: Dataset) -> None:
    empty = [name for name, count in dataset.counts(TRAIN).items() if not count]
    if empty:
        raise DatasetError(
            f"{dataset.root}: expected training images for every class, found none for {', '.join(empty)}. "
            "Add images, or name the classes to use with --classes."
        )


def _fit(
    run: Run, model: keras.Model, config: TrainConfig, images: _Pixels, on_progress: OnProgress | None
) -> np.ndarray:
    """Give the classifier the weights that training finds; `history.csv` grows with every epoch.

    Returns:
        Its probabilities for the test part, float32 (m, classes).
    """
    rows: list[dict[str, Any]] = []

    def write_history(epochs: list[dict[str, Any]]) -> None:
        _write_history(run.history, [*rows, *epochs])

    if config.method in ("probe", "finetune"):
        row, probabilities = _probe(model, images, config, on_progress)
        rows.append(row)
        write_history([])
        if config.method == "probe":
            return probabilities
    moving = resolving.for_steps(model, config)
    if config.method == "finetune":
        free = finetune.unfreeze_upper(moving)
        log.info("fine-tune: %d upper layers of the backbone move, batch normalisation does not", free)
    fitting.fit(
        moving,
        images.part(TRAIN),
        images.part(VALIDATION) if len(images.rows(VALIDATION)) else None,
        _plan(config),
        phase=config.method,
        checkpoint=run.checkpoint,
        on_progress=on_progress,
        on_epoch=write_history,
    )
    model.set_weights(moving.get_weights())
    answering = keras.Model(model.input, model.output)  # compiling the model itself would save an optimiser with it
    answering.compile(jit_compile=devices.jit_compile())
    return fitting.predict(answering, images.part(TEST).pixels, config.batch_size or 32)


def _probe(
    model: keras.Model, images: _Pixels, config: TrainConfig, on_progress: OnProgress | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Solve the head. All images go through the backbone in one stream, those of the test part included, and once.

    Returns:
        The row of `history.csv`, and the probabilities for the test part.
    """
    started = time.monotonic()
    finetune.freeze(model)
    embeddings = features.frozen(model, images.dataset, images.pixels, config, on_progress=on_progress)[0]
    labels, at = images.dataset.labels, {split: images.rows(split) for split in (TRAIN, VALIDATION, TEST)}
    kernel, bias = probe.solve(
        embeddings[at[TRAIN]], labels[at[TRAIN]], classes=model.output_shape[-1], seed=config.seed
    )
    probe.place(model, kernel, bias)
    logits = embeddings @ kernel + bias
    row = {"phase": "probe", "epoch": 1, "image_size": config.image_size}
    row |= _loss_and_accuracy(logits[at[TRAIN]], labels[at[TRAIN]], "")
    text = f"accuracy {row['accuracy']:.4f}"
    if len(at[VALIDATION]):
        row |= _loss_and_accuracy(logits[at[VALIDATION]], labels[at[VALIDATION]], "val_")
        text += f"  validation {row['val_accuracy']:.4f}"
    row["seconds"] = time.monotonic() - started
    log.info("probe  %s  %.1f s", text, row["seconds"])
    return row, probe.softmax(logits[at[TEST]])


def _loss_and_accuracy(logits: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, float]:
    loss, accuracy = fitting.loss_and_accuracy(logits, labels)
    return {f"{prefix}loss": loss, f"{prefix}accuracy": accuracy}


def _plan(config: TrainConfig) -> Plan:
    assert config.image_size and config.epochs and config.batch_size and config.lr is not None
    assert config.weight_decay is not None and config.label_smoothing is not None and config.ema is not None
    return Plan(
        sizes=config.size_steps or (config.image_size,),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        optimizer=config.optimizer,
        warmup_epochs=config.warmup_epochs,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        policy=config.policy,
        mixup=config.mixup,
        cutmix=config.cutmix,
        seed=config.seed,
    )


def _score(run: Run, dataset: Dataset, probabilities: np.ndarray, fitted: Calibrated) -> None:
    groups = [sample.group for sample in dataset.samples]
    scores = metrics.score(dataset.labels, probabilities, dataset.class_names, groups=groups)
    scores["decision"] = decisions.measure(
        dataset.labels,
        probabilities,
        list(dataset.class_names),
        fitted.rules,
        outlier_scores=fitted.outlier_scores,
    )
    runs.write_json(run.metrics, scores)
    paths = [sample.path for sample in dataset.samples]
    outputs.write_predictions(run.predictions, paths, dataset.labels, probabilities, dataset.class_names)
    plots.confusion_matrix(run.path / "confusion_matrix.png", scores)
    low, high = scores["intervals"]["accuracy"]
    log.info("test accuracy %.4f, 95 %% interval %.4f to %.4f, n = %d", scores["accuracy"], low, high, scores["n"])


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
        outputs=("probabilities", "embedding", "feature_map"),
        data_sha256=dataset.digest(),
        files=files,
        temperature=fitted.temperature,
        decision=fitted.rules,
    )
    artifact.write(run.path, facts)


def _export(run: Run, formats: Sequence[str]) -> None:
    if not formats:
        return
    from imgclf import export

    try:
        export.export(run, formats)
    except MissingError as error:
        log.warning("not exported: %s imgclf export %s does it later.", error, run.path)


def _write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = ("phase", "epoch", "image_size", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
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


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Write imgclf's own log lines to a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
