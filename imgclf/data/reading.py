"""The one door for data: read, label, filter, check and split, as the settings say."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from imgclf import runs, tasks
from imgclf.data import collection, doctor, grouping, labels, memory, splitting
from imgclf.data import dataset as datasets
from imgclf.data.dataset import UNASSIGNED, Dataset, listed
from imgclf.data.scan_cache import Scanner
from imgclf.errors import DatasetError, UsageError
from imgclf.settings import DataConfig, ReadConfig
from imgclf.settings.base import flag_of

C = TypeVar("C", bound=DataConfig)


def read(
    source: Path | str,
    settings: ReadConfig | None = None,
    *,
    split: bool = True,
    pixels: bool | None = None,
    trainable: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a dataset of any layout; correct its labels, filter it, check it and split it.

    Args:
        source: a folder, an archive, a table, or a JSON file of annotations.
        settings: what to read and how; what it does not say (a `ReadConfig` says nothing about labels, filters and
            splits) has the defaults of `DataConfig`.
        split: whether the images are for training. Without it they are for scoring: one class is enough, nothing is
            checked, and the images have only the split that the data bring along.
        pixels: whether to examine pixels, too; by default where near-duplicates are asked for. Without, no
            near-duplicates are found.
        trainable: whether it is an error that a class has no training image; otherwise, a note says so.
        on_progress: called with (files read, files to read) in the calling thread; before that, for what has to be
            unpacked, with (done, to do).

    Returns:
        The dataset, with the settings that it was read with, notes, and what the checks found.

    Raises:
        ImgclfError: of any kind, if the data cannot be read, or a setting does not suit them.
    """
    given = {f.name: getattr(settings, f.name) for f in fields(DataConfig) if hasattr(settings, f.name)}
    config = DataConfig(**given)
    _refuse(config)
    memory.BUDGET.set_limit(config.memory_gb)
    if pixels is None:
        pixels = split and config.near_duplicates != "off"
    with contextlib.ExitStack() as stack:
        scanner = stack.enter_context(Scanner(config.allow_truncated)) if pixels else None
        found = collection.collect(
            source,
            config,
            classes=() if config.relabels else config.class_filter,
            min_classes=2 if split else 1,
            on_progress=on_progress,
            scanner=scanner if config.limit is None else None,
        )
        if split and config.resplit:
            found = replace(found, samples=tuple(replace(s, split=UNASSIGNED, given=UNASSIGNED) for s in found.samples))
        dataset, notes = _choose(found, config, min_classes=2 if split else 1)
        dataset = replace(dataset, settings=config, notes=tuple(notes))
        if not split:
            return dataset
        checkup = doctor.examine(dataset, config, scanner)
    related = checkup.related if config.near_duplicates == "group" else ()
    dataset, notes = _split(dataset, config, related, trainable=trainable)
    return replace(dataset, checkup=checkup, split_notes=tuple(notes))


def settled(dataset: Dataset, config: C) -> C:
    """Fill in the settings that a dataset was read with.

    The seed may differ: it is also that of the initial weights and of the shuffling, for one dataset as it was split.

    Raises:
        UsageError: if `config` asks for other settings of the data; a default value asks for nothing.
    """
    if dataset.settings is None:
        return config
    values = {f.name: getattr(dataset.settings, f.name) for f in fields(dataset.settings)}
    for field in fields(dataset.settings):
        asked, default = getattr(config, field.name), field.default
        if field.name == "seed" and asked != default:
            values["seed"] = asked
        if asked not in (values[field.name], default):
            raise UsageError(
                f"{field.name}: {dataset.origin} was read with {values[field.name]!r}, but {asked!r} is asked for. "
                "Pass the same settings to imgclf.read."
            )
    return dataclasses.replace(config, **values)


def _refuse(config: DataConfig) -> None:
    """Refuse settings that the task does not support."""
    for field in fields(config):
        if getattr(config, field.name) != field.default:
            tasks.refuse(config.task, flag_of(field.name))


def related(dataset: Dataset, settings: DataConfig) -> tuple[tuple[int, ...], ...]:
    """Return the rows of near-duplicates that folds must not divide; none where the settings look for none."""
    if settings.near_duplicates == "off":
        return ()
    with Scanner(settings.allow_truncated) as scanner:
        return doctor.examine(dataset, settings, scanner).related


def _choose(dataset: Dataset, settings: DataConfig, min_classes: int) -> tuple[Dataset, list[str]]:
    """Correct labels, leave out images, choose classes, and group the images: all that comes before the split."""
    notes = []
    if settings.exclude:
        dataset, found = labels.exclude(dataset, Path(settings.exclude))
        notes += found
    if settings.labels:
        dataset, found = labels.correct(dataset, Path(settings.labels))
        notes += found
    if settings.renames:
        dataset, found = labels.rename(dataset, settings.renames)
        notes += found
    if settings.class_map:
        dataset, found = labels.merge(dataset, Path(settings.class_map))
        notes += found
    dataset = collection.narrow(dataset, classes=settings.class_filter, limit=settings.limit)
    min_classes = min(min_classes, tasks.find(dataset.task).FEWEST)
    if len(dataset.class_names) < min_classes:
        raise DatasetError(
            f"{dataset.origin}: expected at least {min_classes} classes, found "
            f"{listed(dataset.class_names) or 'none'}. Choose more of them with --classes, or merge fewer."
        )
    if settings.group_by:
        dataset, found = grouping.group(dataset, settings.group_by)
        notes += found
    return dataset, notes


def _split(
    dataset: Dataset, settings: DataConfig, related: tuple[tuple[int, ...], ...], *, trainable: bool
) -> tuple[Dataset, list[str]]:
    notes = []
    old = None
    if settings.split_from:
        path = Path(settings.split_from)
        is_run = os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        old = datasets.read_manifest(runs.find(path).manifest if is_run else path, dataset.root)
        notes.append(f"The split is kept from {path} (SHA-256 {old.digest()}).")
    dataset, found = splitting.split(
        dataset,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        val_as=settings.val_as,
        seed=settings.seed,
        test_group=settings.test_group,
        old=old,
        related=related,
        trainable=trainable,
    )
    return dataset, notes + found
