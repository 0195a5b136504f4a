"""Preview or write augmented images, made by the same code that augments in training."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgclf import environment, storage, tasks
from imgclf.data import copying, images, preprocessing, reading
from imgclf.data.dataset import TRAIN, Dataset, Sample, listed
from imgclf.errors import DatasetError, ImageError, UsageError
from imgclf.evaluation import plots
from imgclf.policies import Policy
from imgclf.settings import AugmentConfig
from imgclf.tasks import JOINED
from imgclf.training.augmentation import Augment

log = logging.getLogger("imgclf")

MOST_ROWS = 12
"""Rows of a contact sheet, at most."""

_BATCH = 32


@dataclass(frozen=True)
class Augmented:
    """What `augment` wrote: the policy, the contact sheet, the folder and the number of images in it."""

    policy: Policy
    sheet: Path | None
    to: Path | None
    copies: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        places = {name: str(path) if path else None for name, path in (("sheet", self.sheet), ("to", self.to))}
        return {"policy": self.policy.to_dict(), **places, "copies": self.copies}


def augment(
    dataset: Dataset,
    config: AugmentConfig | None = None,
    *,
    output: Path | str | None = None,
    to: Path | str | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Augmented:
    """Draw a contact sheet of augmented training images, or write augmented training images.

    With `config.preprocess`, images are preprocessed first; the sheet shows them before and after.

    Args:
        dataset: labeled images; those of its training split are augmented.
        output: a new PNG file for the contact sheet; by default `<data>-<policy>.png`, or no sheet if `to` is given.
        to: a new or empty folder for `config.copies` variants of each training image, in class folders.

    Raises:
        UsageError: if a file exists already or cannot be written, or `config` asks for other data than the dataset's.
        DatasetError: if no training image can be decoded.
    """
    if to:
        tasks.refuse(dataset.task, "--to")
    config = reading.settled(dataset, config or AugmentConfig())
    output, to = (Path(path) if path else None for path in (output, to))
    storage.refuse_existing(output)
    if config.copies != AugmentConfig.copies and not to:
        raise UsageError("--copies: expected --to beside it, found none.")
    policy, losses = config.final_policy
    for note in (*dataset.notes, *dataset.split_notes, *losses):
        log.info("%s", note)
    if policy.strength("flip") and all(len(name) == 1 for name in _strata(dataset)):
        log.info("The classes look like digits or letters; --keep-orientation avoids flips.")
    drawn = (output or _free(f"{dataset.name}-{policy.name or 'policy'}")) if output or not to else None
    if drawn:
        try:
            sheet(dataset, policy, config, drawn)
        except OSError as error:
            raise UsageError(f"-o {drawn}: cannot be written ({error.strerror or error}).") from None
    copies = 0
    if to:
        progress = on_progress or (lambda phase, done, total: None)
        copies = write(dataset, policy, config, to, lambda done, total: progress("writing", done, total))
        log.info("%s: wrote %s images.", to, f"{copies:,}")
    return Augmented(policy, drawn, to, copies)


def _free(stem: str) -> Path:
    """Return a PNG file that does not exist yet."""
    number = 1
    while os.path.lexists(path := f"{stem}{f'-{number}' if number > 1 else ''}.png"):
        number += 1
    return Path(path)


def sheet(dataset: Dataset, policy: Policy, settings: AugmentConfig, path: Path) -> None:
    """Draw a contact sheet: for each class or range of numbers, a training image as it is and in variants.

    Raises:
        DatasetError: if not one image can be decoded.
        OSError: if the file cannot be written.
    """
    part = dataset.part(TRAIN)
    strata = _strata(part)
    names, originals = [], []
    for name, samples in strata.items():
        found = _first_readable(part, samples, replace(settings, preprocess=None))
        if found is not None:
            sample, pixels = found
            names.append(name if name in dataset.class_names else sample.label.replace(JOINED, ", ") or "(none)")
            originals.append(pixels)
        if len(names) == MOST_ROWS:
            break
    if not names:
        raise DatasetError(f"{dataset.root}: expected training images, but none of {len(part)} could be decoded.")
    if len(strata) > len(names):
        log.info("The sheet shows %d of %d classes; --classes chooses them.", len(names), len(strata))
    columns, firsts = [np.stack(originals)], ["original"]
    title = f"{policy.name}: {policy}" if policy.name else str(policy)
    if settings.steps:
        done = [preprocessing.apply(Image.fromarray(image), settings.steps) for image in originals]
        columns, firsts = [*columns, np.stack(list(map(np.asarray, done)))], [*firsts, "preprocessed"]
        title = f"preprocessed: {settings.preprocess}" + (f"; {title}" if policy.operations else "")
    count = settings.variants if policy.operations or not settings.steps else 0
    made = _variants(Augment(policy, settings.image_size), columns[-1], count, (settings.seed,)) if count else None
    rows = np.stack(columns, axis=1)
    plots.contact_sheet(path, rows if made is None else np.concatenate([rows, made], axis=1), names, title, firsts)


def _variants(augment: Augment, pixels: np.ndarray, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """uint8 (n, S, S, 3) -> uint8 (n, count, s, s, 3)."""
    made = augment(np.repeat(pixels, count, axis=0), np.random.default_rng(seed))
    return made.reshape(len(pixels), count, *made.shape[1:])


def _strata(dataset: Dataset) -> dict[str, list[Sample]]:
    """Return the images of each class, in their order, or of each range of numbers; those without a class come last."""
    found: dict[str, list[Sample]] = {name: [] for name in dataset.class_names}
    names = tasks.find(dataset.task).strata([sample.label for sample in dataset.samples])
    for sample, own in sorted(zip(dataset.samples, names, strict=True), key=lambda pair: pair[1]):
        for name in own:
            found.setdefault(name, []).append(sample)
    return {name: samples for name, samples in found.items() if samples}


def _first_readable(part: Dataset, samples: list[Sample], settings: AugmentConfig) -> tuple[Sample, np.ndarray] | None:
    """One of the images, drawn by the seed, and its pixels: uint8 (s, s, 3)."""
    for place in np.random.default_rng(settings.seed).permutation(len(samples)):
        pixels = _load(part, samples[place], settings)
        if pixels is not None:
            return samples[place], pixels
    return None


def _load(dataset: Dataset, sample: Sample, settings: AugmentConfig) -> np.ndarray | None:
    """uint8 (s, s, 3); None, and a warning, if the file cannot be decoded."""
    try:
        return images.load(dataset.root / sample.path, settings.image_size, settings.decoding)
    except ImageError as error:
        log.warning("Left out %s: %s", sample.path, error)
        return None


def write(
    dataset: Dataset,
    policy: Policy,
    settings: AugmentConfig,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write variants of the training part into class folders, as PNG: `<name>-1.png` and so on.

    The folder is made whole or not at all.

    Returns:
        How many files were written.

    Raises:
        UsageError: if the folder is not new or empty, lies in the dataset, or cannot be written.
        DatasetError: if a class name cannot be a folder's name, or not one image can be decoded.
    """
    part = dataset.part(TRAIN)
    augment = Augment(policy, settings.image_size)
    written = 0
    with copying.whole(part, folder) as place, ThreadPoolExecutor(environment.cpu_count()) as pool:
        taken: dict[str, set[str]] = {}
        for done, samples, pixels in _batches(part, settings, pool):
            targets = []
            made = _variants(augment, pixels, settings.copies, (settings.seed, done))
            for sample, variants in zip(samples, made, strict=True):
                if sample.label not in taken:
                    copying.new_folder(place, sample.label, part)
                stem = Path(copying.free_name(sample, taken.setdefault(sample.label, set()))).stem
                targets += [(place / sample.label / f"{stem}-{n}.png", one) for n, one in enumerate(variants, start=1)]
            for _ in pool.map(lambda target: Image.fromarray(target[1]).save(target[0]), targets):
                written += 1
            if on_progress:
                on_progress(done, len(part))
        if not written:
            raise DatasetError(f"{dataset.root}: expected training images, but none of {len(part)} could be decoded.")
        lost = [name for name in dataset.class_names if name not in taken]
        if lost:
            log.warning("no images were written for %s", listed(lost))
    return written


def _batches(
    part: Dataset, settings: AugmentConfig, pool: ThreadPoolExecutor
) -> Iterator[tuple[int, list[Sample], np.ndarray]]:
    """How many samples are done, and those of a batch that can be decoded, with uint8 (b, s, s, 3)."""
    for first in range(0, len(part), _BATCH):
        samples = part.samples[first : first + _BATCH]
        loaded = list(pool.map(lambda sample: _load(part, sample, settings), samples))
        pairs = [(sample, one) for sample, one in zip(samples, loaded, strict=True) if one is not None]
        if pairs:
            yield first + len(samples), [sample for sample, _ in pairs], np.stack([one for _, one in pairs])
