"""Cross-validate: test every image once with a model that has not seen it; each fold is a run."""

import functools
import gc
import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import imgclf
from imgclf import environment, runs, storage
from imgclf.data import dataset as datasets
from imgclf.data import reading, run_data, splitting
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.evaluation import scorers
from imgclf.runs import Run
from imgclf.settings import DataConfig, KfoldConfig, TrainConfig
from imgclf.settings.classical import NETWORK
from imgclf.training import estimators
from imgclf.training import train as training
from imgclf.training.progress import OnProgress

if TYPE_CHECKING:
    import keras

log = logging.getLogger("imgclf")

FOLDS = "folds.json"


@dataclass(frozen=True)
class CrossValidation:
    """What came out: the folder, the content of its `folds.json`, and the scores of all images together."""

    folder: Path
    folds: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _Fold:
    """One training: where it goes, and on which images of the dataset it is tested."""

    folder: Path
    tested: tuple[int, ...]
    seed: int


def kfold(
    source: Dataset | Run,
    config: TrainConfig | None = None,
    settings: KfoldConfig | None = None,
    *,
    data: Path | None = None,
    output: Path | str | None = None,
    backbone: "keras.Model | None" = None,
    on_progress: OnProgress | None = None,
) -> CrossValidation:
    """Cross-validate a recipe on every image but those of a test split that the data came with.

    Folds are stratified; groups and duplicates stay together. A folder that already contains folds of the same images
    and settings is resumed: finished folds are kept, an interrupted one continues.

    Args:
        source: labeled images; or a run, whose recipe is cross-validated on its training and validation images, in
            `kfold-<folds>` inside it.
        config: how to train; not for a run. Folds export nothing; its formats are those of the ensemble.
        data: the new location of a run's images.
        output: by default `runs/<data>-<backbone>-kfold-<n>`; not for a run.
        backbone: a backbone of your own, as for `train`; not for a run.

    Raises:
        UsageError: if an ensemble is asked for of anything but probes, or distillation.
        DatasetError: if a class has fewer images or groups than there are folds, or images of a run are missing.
        RunError: if the folder contains something else, or the run is damaged.
    """
    if isinstance(source, Run):
        if backbone is not None:
            raise UsageError(f"backbone: the folds of {source.path} have that run's backbone. Pass images instead.")
        return _of_run(source, settings or KfoldConfig(), data, on_progress)
    if backbone is not None:
        with tempfile.TemporaryDirectory(prefix="imgclf-") as place:
            own = training.save_own(backbone, Path(place))
            config = replace(config or TrainConfig(), backbone=str(own))
            return _of_dataset(source, config, settings, output, own, on_progress)
    return _of_dataset(source, config, settings, output, None, on_progress)


def _of_dataset(
    dataset: Dataset,
    config: TrainConfig | None,
    settings: KfoldConfig | None,
    output: Path | str | None,
    own: Path | None,
    on_progress: OnProgress | None,
) -> CrossValidation:
    """Cross-validate on images.

    Args:
        own: a file with a backbone that was passed as a model; the folder keeps a copy, from which folds are trained.
    """
    config, settings = config or TrainConfig(), settings or KfoldConfig()
    config = reading.settled(dataset, config)
    if config.distill or config.unlabeled:
        raise UsageError("--distill: a teacher was trained on images that folds test on, so kfold takes none.")
    dataset, notes = images_to_fold(dataset, config)
    estimator, found = estimators.kind(config).resolve(config, dataset.median_side_px)
    if settings.ensemble:
        from imgclf.training import ensemble

        ensemble.check(estimator.settings)
    for note in (*notes, *found):
        log.info("%s", note)
    for note in _cost(estimator, settings):
        log.info("%s", note)
    formats = estimator.settings.export_formats
    config = replace(estimator.settings, export="none")
    stem = f"{dataset.name}-{training.short(estimator.name)}-kfold"
    folder = Path(output) if output else runs.create_next(Path("runs"), stem)
    if own:
        config = replace(config, backbone=str(Run(folder).backbone.resolve()))
    folds = _dealt(folder, dataset, config, settings)
    largest = max(folds, key=lambda fold: len(fold.tested))
    estimator.check(len(split(dataset, largest.tested, config, largest.seed).part(TRAIN)))
    run = _open(folder, dataset, config, settings)
    with run.lock():
        if own:
            _keep_own(own, run)
        try:
            done = _all_folds(run, folds, dataset, config, settings, on_progress)
            if settings.ensemble:
                places = [fold.folder for fold in folds]
                ensemble.write(
                    run, dataset, _of_all_folds(config, len(dataset.class_names)), places, config, formats, on_progress
                )
            return done
        except KeyboardInterrupt as stop:
            stop.add_note(f"{folder} was begun")
            more = "" if output else f" with -o {folder}"
            log.info("%s: finished folds are kept; the same command%s resumes from there.", folder, more)
            raise
        finally:
            _of_all_folds.cache_clear()


def _cost(estimator: estimators.Estimator, settings: KfoldConfig) -> list[str]:
    """Return what a cross-validation takes that fine-tunes the network in every fold, and what is quicker."""
    trained = estimator.settings
    if trained.model != NETWORK or trained.method not in ("auto", "finetune"):
        return []
    count = settings.folds * settings.repeats
    limit = "" if math.isinf(estimator.limit_s) else f", up to {_minutes(estimator.limit_s)} each"
    return [
        f"Cross-validation trains {count} times with --method {trained.method}{limit}: each fold as imgclf train "
        "would. --method probe takes seconds for a fold."
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _keep_own(own: Path, run: Run) -> None:
    """Copy a backbone into the folder, unless it is there already.

    Raises:
        RunError: if folds of another backbone are there.
    """
    if not run.backbone.exists():
        with storage.replacing(run.backbone) as new:
            shutil.copyfile(own, new)
        return
    from imgclf.models import stored  # Keras takes seconds to import, and classifiers on hand-made features need none

    one, other = (stored.own(path).get_weights() for path in (own, run.backbone))  # names differ from call to call
    if len(one) != len(other) or not all(map(np.array_equal, one, other)):
        raise RunError(f"{run.path}: expected folds of the same backbone, found others. Choose another -o.")


def _of_run(run: Run, settings: KfoldConfig, data: Path | None, on_progress: OnProgress | None) -> CrossValidation:
    """Cross-validate the recipe of a run on its own images."""
    config = TrainConfig.from_dict(run.read_config()["config"])
    if config.backbone.endswith(".keras") and not Path(config.backbone).exists():
        raise RunError(
            f"{run.path}: its backbone {config.backbone} is gone, and the trained one has seen the images of all "
            "folds. Cross-validate the images: imgclf kfold DATA --backbone FILE, or imgclf.kfold(..., backbone=MODEL)."
        )
    dataset = run_data.read(run, data, splits=(TRAIN, VALIDATION))
    gone = run_data.missing(dataset)
    if gone:
        raise gone
    kept = tuple(replace(s, split=UNASSIGNED) for s in dataset.samples)
    name = f"kfold-{settings.folds}" + (f"x{settings.repeats}" if settings.repeats > 1 else "")
    return kfold(replace(dataset, samples=kept), config, settings, output=run.path / name, on_progress=on_progress)


def images_to_fold(dataset: Dataset, config: DataConfig) -> tuple[Dataset, list[str]]:
    """Return the images to deal out: all but the test split that the data bring along, or the test group."""
    checks = dataset.checkup.lines() if dataset.checkup else []
    notes = [*checks, *dataset.notes]
    by_hand = dataset.settings is None or bool(config.test_group)  # then every test image was given
    out = [s.split == TEST and (by_hand or s.given in (VALIDATION, TEST)) for s in dataset.samples]
    kept = tuple(s for s, is_out in zip(dataset.samples, out, strict=True) if not is_out)
    if len(kept) < len(dataset):
        notes.append(f"The given test split stays out: {len(dataset) - len(kept):,} images.")
    dataset = replace(dataset, samples=kept)
    return dataset.with_splits([UNASSIGNED] * len(dataset)), notes


def _open(folder: Path, dataset: Dataset, config: TrainConfig, settings: KfoldConfig) -> Run:
    """Return the folder, new or of the same cross-validation."""
    run = Run(folder)
    facts = {
        "imgclf": imgclf.__version__,
        "data": str(dataset.origin.resolve()),
        "data_sha256": dataset.digest(),
        "config": config.to_dict(),
        "kfold": {"folds": settings.folds, "repeats": settings.repeats},
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }
    if run.config.is_file():
        before = run.read_config()
        for key in ("data_sha256", "config", "kfold"):
            if before.get(key) != facts[key]:
                raise RunError(
                    f"{folder}: expected folds of the same images and settings, found others (their {key} differs). "
                    "Choose another -o."
                )
    else:
        runs.create(folder)
    storage.write_json(run.config, facts)
    run.write_labels(list(dataset.class_names))
    datasets.write_manifest(dataset.with_splits([TEST] * len(dataset)), run.manifest)
    return run


def _all_folds(
    run: Run,
    folds: list[_Fold],
    dataset: Dataset,
    config: TrainConfig,
    settings: KfoldConfig,
    on_progress: OnProgress | None,
) -> CrossValidation:
    work = [(fold, dataset, config) for fold in folds if not _is_finished(Run(fold.folder))]
    done = len(folds) - len(work)
    if done:
        log.info("%d of %d folds are finished already.", done, len(folds))

    def tell(newly: int = 1) -> None:
        nonlocal done
        done += newly
        if on_progress:
            on_progress("folds", done, len(folds))

    tell(0)
    for item in work[: 1 if settings.jobs > 1 else None]:  # the first alone: it computes what all share
        _train_fold(*item)
        tell()
    if settings.jobs > 1 and len(work) > 1:
        try:
            with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
                for _ in pool.map(_train_fold, *zip(*work[1:], strict=True)):
                    tell()
        except BrokenProcessPool:
            raise RunError(
                f"{run.path}: the process of a fold was killed, perhaps for want of memory. Finished folds are kept: "
                "the same command resumes, perhaps with fewer --jobs."
            ) from None
    return _summed_up(run, dataset, folds, settings)


def _dealt(folder: Path, dataset: Dataset, config: TrainConfig, settings: KfoldConfig) -> list[_Fold]:
    smallest, count = min(((n, name) for name, n in dataset.counts().items()), default=(0, ""))
    if smallest < settings.folds:
        raise DatasetError(
            f"{dataset.origin}: expected at least {settings.folds} images of every class for {settings.folds} folds, "
            f"found {smallest} of {datasets.listed([count])}. Ask for fewer --folds, or leave the class out."
        )
    groups = {s.group for s in dataset.samples if s.group}
    alone = sum(not s.group for s in dataset.samples)
    if groups and len(groups) + alone < settings.folds:
        raise DatasetError(
            f"{dataset.origin}: expected at least {settings.folds} groups for {settings.folds} folds, found "
            f"{len(groups) + alone}. Ask for fewer --folds."
        )
    related = reading.related(dataset, config)
    folds = []
    for repeat in range(settings.repeats):
        place = folder / f"repeat-{repeat + 1}" if settings.repeats > 1 else folder
        dealt = splitting.folds(dataset, settings.folds, config.seed + repeat, related)
        for number, (_, tested) in enumerate(dealt, start=1):
            folds.append(_Fold(place / f"fold-{number}", tuple(tested.tolist()), config.seed + repeat))
    return folds


def _is_finished(fold: Run) -> bool:
    return fold.artifact.is_file() and fold.predictions.is_file()  # it is described after it was scored


def _train_fold(fold: _Fold, dataset: Dataset, config: TrainConfig) -> None:
    """Train one fold, or resume it; one without a checkpoint is retrained."""
    own = split(dataset, fold.tested, config, fold.seed)
    started = Run(fold.folder)
    if fold.folder.is_dir() and not started.checkpoint.is_file():
        shutil.rmtree(fold.folder)
    if started.checkpoint.is_file():
        log.info("%s: resuming.", fold.folder)
        moved = started.read_config()["data"] != str(dataset.origin.resolve())
        training.resume(started, data=dataset.origin if moved else None, with_report=False)
    else:
        log.info("%s: testing on %d images.", fold.folder, len(fold.tested))
        built = _of_all_folds(config, len(dataset.class_names))
        training.train(own, replace(config, seed=fold.seed), output=fold.folder, with_report=False, built=built)
        if built is not None:
            return
    if config.model == NETWORK:
        import keras

        keras.backend.clear_session()  # else the graphs of all folds stay in memory
        gc.collect()


def split(dataset: Dataset, tested: Iterable[int], config: TrainConfig, seed: int) -> Dataset:
    """Split images into those of a fold, the test split, and the others, of which some validate.

    Args:
        tested: the places of the fold's images.
    """
    held_out = set(tested)
    dealt = dataset.with_splits([TEST if row in held_out else TRAIN for row in range(len(dataset))])
    return carve_validation(dealt, config, seed)


def carve_validation(dataset: Dataset, config: TrainConfig, seed: int) -> Dataset:
    """Carve the validation images out of a fold's training images, saying nothing of a split that no user made."""
    own, notes = splitting.split(
        dataset,
        validation_fraction=config.validation_fraction,
        test_fraction=0.0,
        seed=seed,
        related=reading.related(dataset, config),
    )
    settings = replace(dataset.settings, seed=seed) if dataset.settings else None
    told = tuple(note for note in notes if not note.startswith(splitting.KEPT))  # a fold's are not the user's
    return replace(own, settings=settings, notes=(), split_notes=told, checkup=None)


@functools.lru_cache(maxsize=1)
def _of_all_folds(config: TrainConfig, classes: int) -> Any:
    """Return what the folds share, such as the one graph of all folds of a probe; None where each builds its own."""
    estimator = estimators.kind(config).of_run(config)
    return estimator.build(classes) if estimator.shared else None


def _summed_up(run: Run, dataset: Dataset, folds: Sequence[_Fold], settings: KfoldConfig) -> CrossValidation:
    scorer, rows, found, paths = scorers.find(dataset.task), [], [], []
    by_path, by_content = {s.path: s for s in dataset.samples}, {s.sha256: s for s in dataset.samples}
    for place, fold in enumerate(folds):
        scores = scorers.read_scores(Run(fold.folder), fold.folder)
        name = fold.folder.relative_to(run.path).as_posix()
        rows.append({"fold": name, "n": scores["n"], **{key: scores[key] for key in scorer.SUMMARY}})
        if place < settings.folds:  # each image once: further repeats only sharpen the mean
            found.append(scorer.read(fold.folder / run.predictions.name))
            trained = datasets.read_manifest(Run(fold.folder).manifest, dataset.root).samples
            content = {s.path: s.sha256 for s in trained}
            for path in found[-1].paths:  # images may have moved since this fold was trained
                known = by_path.get(path)
                paths.append(path if known and known.sha256 == content[path] else by_content[content[path]].path)
    scored = scorer.pooled(found, paths, dataset.class_names, [by_path[path].group for path in paths])
    share = 1 / (settings.folds - 1)  # test images to training images
    summary = {key: _summary([row[key] for row in rows], share, limits) for key, limits in scorer.SUMMARY.items()}
    facts = {"keys": list(summary), "rows": rows, "summary": summary, "sentence": _sentence(summary, settings)}
    try:
        with storage.stage(run.path) as stage:
            scored.write(stage)
            storage.write_json(stage / FOLDS, facts)
            scorer.report(run, run.path, files=dataset.files, stage=stage)
            storage.install(stage, run.path)
    except OSError as error:
        raise RunError(f"{run.path}: the folds' scores cannot be written ({error.strerror}).") from None
    return CrossValidation(run.path, facts, scored.metrics)


def _sentence(summary: dict[str, dict[str, Any]], settings: KfoldConfig) -> str:
    """Return the mean and the interval of the first score."""
    key, found = next(iter(summary.items()))
    again = f" times {settings.repeats}" if settings.repeats > 1 else ""
    title = key.replace("_", " ").capitalize()
    if found["mean"] is None:
        return f"{title}: undefined in a fold."
    low, high = found["interval"]
    return (
        f"{title} {found['mean']:.3f} on average over {settings.folds}{again} folds, 95% interval {low:.3f} to "
        f"{high:.3f}, for training sets of this size (Nadeau and Bengio's correction)."
    )


def _summary(values: Sequence[float | None], share: float, limits: tuple[float, float]) -> dict[str, Any]:
    """`mean`, `deviation` and `interval` of a score over the folds; None where a fold does not define it.

    The interval ends where the score itself does: no accuracy is above 1.
    """
    if any(value is None for value in values):
        return {"mean": None, "deviation": None, "interval": None}
    known = [float(value) for value in values if value is not None]
    return {
        "mean": float(np.mean(known)),
        "deviation": float(np.std(known, ddof=1)),
        "interval": np.clip(corrected_interval(known, share), *limits).tolist(),
    }


def corrected_interval(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the 95% interval of the mean over folds, whose training sets overlap: wider than that of independent ones.

    Args:
        values: a score on every fold, of all repeats; at least 2.
        share: how many test images come on one training image: 1 / (k - 1) for k folds.

    Source: Nadeau and Bengio 2003, doi:10.1023/A:1024068626366, section 4.1; for repeats, Bouckaert and Frank 2004.
    """
    from scipy import stats

    mean, variance, n = float(np.mean(values)), float(np.var(values, ddof=1)), len(values)
    reach = float(stats.t.ppf(0.975, n - 1)) * math.sqrt((1 / n + share) * variance)
    return mean - reach, mean + reach
