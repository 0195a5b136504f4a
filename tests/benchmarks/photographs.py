"""The data sets that transfer is measured on, each split once per seed. For the scripts beside this file."""

import re
from dataclasses import replace
from pathlib import Path

import sklearn.datasets
from PIL import Image
from processes import unzip

import imgclf
from imgclf.data import collection, splitting
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, Dataset

ANTS_BEES, SIGNS, SIGNS_BY_NUMBER, DIGITS = "ants-bees", "sign-digits", "sign-digits by number", "scikit-learn digits"

SEEDS = range(5)
"""Whose test parts the published accuracies are read on."""


def load(folder: Path, seed: int) -> dict[str, Dataset]:
    """Every data set with sides as `imgclf train --seed SEED` gives them.

    Args:
        folder: where the files are unpacked on the first call.
    """
    ants, signs, digits = (folder / name for name in ("ants-bees", "sign-digits", "digits"))
    if not signs.exists():
        unzip("ants-bees", folder)
        unzip("sign-digits", folder)
        _write_digits(digits)
    raw = collection.collect(signs)
    unsplit = {ANTS_BEES: imgclf.read(ants), SIGNS: raw, SIGNS_BY_NUMBER: by_file_number(raw)}
    unsplit[DIGITS] = collection.collect(digits)
    return {
        name: splitting.split(dataset, validation_fraction=0.15, test_fraction=0.15, seed=seed)[0]
        for name, dataset in unsplit.items()
    }


def untested(folder: Path) -> dict[str, Dataset]:
    """Of each data set the images that are in no test part, whatever the seed and the split: what choices are made on.

    Args:
        folder: as for `load`.

    Returns:
        By name, the two splits of the hand signs as one; no image is on a side yet.
    """
    loads = [load(folder, seed) for seed in SEEDS]
    tests = {(name, s.path) for sets in loads for name, data in sets.items() for s in data.part(TEST).samples}
    result = {}
    for name, dataset in loads[0].items():
        aliases = {name, SIGNS_BY_NUMBER} if name == SIGNS else {name}
        kept = tuple(s for s in dataset.samples if not any((alias, s.path) in tests for alias in aliases))
        result[name] = replace(dataset, samples=kept).with_splits([UNASSIGNED] * len(kept))
    del result[SIGNS_BY_NUMBER]
    return result


def by_file_number(dataset: Dataset) -> Dataset:
    """The same images, the last fifth of each class by the number in the file's name being the test part.

    Many of the hand signs show the same hand, so a random split has it on both sides and flatters; this is nearer to
    what a new hand may expect.
    """
    tests: set[str] = set()
    for name in dataset.class_names:
        paths = [sample.path for sample in dataset.samples if sample.label == name]
        paths.sort(key=lambda path: int(re.findall(r"\d+", path)[-1]))
        tests |= set(paths[len(paths) * 4 // 5 :])
    return dataset.with_splits([TEST if sample.path in tests else TRAIN for sample in dataset.samples])


def _write_digits(folder: Path) -> None:
    digits = sklearn.datasets.load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * (255 / 16)).astype("uint8")).save(path)
