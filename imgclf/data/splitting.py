"""Dataset -> Dataset with every image on one side: training, validation or test."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from imgclf.data.dataset import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, listed
from imgclf.errors import DatasetError


def split(
    dataset: Dataset, *, validation_fraction: float, test_fraction: float, val_as: str = "test", seed: int
) -> tuple[Dataset, list[str]]:
    """Put every image on one side, class by class, and say in plain English what was done.

    Sides that the dataset brings along are kept. What is missing is carved from its training images (from all, when
    it brings no sides), the fractions being shares of those. With a validation part and no test part, the validation
    part becomes the test part, used for no choice, unless `val_as` is "validation".

    An image's side follows from a hash of the seed and of its bytes: below `test_fraction` it is a test image, below
    the sum of both fractions a validation image, otherwise a training image. So exact duplicates stand on one side,
    names and order are without influence, and images that are added move no old one. The price is that the shares
    are met on average, not to the image. Two rules come before it:

    - In each class at least one distinct image is for training, one for test if there are two, and one for validation
      if there are three (if there are two, where no test part is carved).
    - Images whose very bytes stand in several classes are for training: they can test nothing.

    Args:
        validation_fraction: in [0, 1); 0 carves no validation part.
        test_fraction: in [0, 1); 0 carves no test part.
        val_as: "test" or "validation", what a given validation part without a test part is for.
        seed: another seed, another split.

    Returns:
        The dataset with `Sample.split` set, and notes for the user, one sentence or two each.

    Raises:
        DatasetError: if a class has no training image.
    """
    notes = []
    given = {s.split for s in dataset.samples} & set(SPLITS)
    if VALIDATION in given and TEST not in given and val_as == "test":
        dataset = dataset.with_splits([TEST if s.split == VALIDATION else s.split for s in dataset.samples])
        given = (given - {VALIDATION}) | {TEST}
        notes.append(
            "val/ is used as the test part (for no choice); validation is carved from train/. "
            "--val-as validation changes it."
        )
    elif given:
        fractions = {VALIDATION: validation_fraction, TEST: test_fraction}
        carved = [side for side, fraction in fractions.items() if fraction > 0 and side not in given]
        kept = f"The given parts ({', '.join(side for side in SPLITS if side in given)}) are kept."
        notes.append(f"{kept} Carved from train/: {', '.join(carved)}." if carved else kept)

    pool = [i for i, s in enumerate(dataset.samples) if s.split in (TRAIN, UNASSIGNED)]
    sides = _carve(
        [dataset.samples[i] for i in pool],
        test_fraction=0.0 if TEST in given else test_fraction,
        validation_fraction=0.0 if VALIDATION in given else validation_fraction,
        seed=seed,
    )
    final = [s.split for s in dataset.samples]
    for i, side in zip(pool, sides, strict=True):
        final[i] = side
    result = dataset.with_splits(final)
    _check_training(result)
    return result, [*notes, _achieved(result), *_warnings(result)]


def _carve(samples: Sequence[Sample], *, test_fraction: float, validation_fraction: float, seed: int) -> list[str]:
    """One side for each sample, by the rules of `split`."""
    classes: defaultdict[str, set[str]] = defaultdict(set)  # content -> the classes it stands in
    for sample in samples:
        classes[_content(sample)].add(sample.label)
    contents: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)  # class -> its own contents, by place
    for content, labels in classes.items():
        if len(labels) == 1:
            contents[min(labels)].append((_place(content, seed), content))
    side = dict.fromkeys(classes, TRAIN)
    for members in contents.values():
        members.sort()
        n = len(members)
        least_test = int(test_fraction > 0 and n >= 2)
        least_validation = int(validation_fraction > 0 and n >= 2 + least_test)
        below_test = sum(place < test_fraction for place, _ in members)
        below_both = sum(place < test_fraction + validation_fraction for place, _ in members)
        n_test = min(max(below_test, least_test), n - 1 - least_validation)
        n_validation = min(max(below_both - n_test, least_validation), n - 1 - n_test)
        side.update((content, TEST) for _, content in members[:n_test])
        side.update((content, VALIDATION) for _, content in members[n_test : n_test + n_validation])
    return [side[_content(sample)] for sample in samples]


def _content(sample: Sample) -> str:
    return sample.sha256 or sample.path


def _place(content: str, seed: int) -> float:
    """A number in [0, 1) that depends on the content and the seed alone, evenly spread."""
    digest = hashlib.sha256(f"{seed}:{content}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _check_training(dataset: Dataset) -> None:
    if not dataset.samples:
        raise DatasetError(f"{dataset.root}: expected images to split, found none.")
    lacking = [name for name, n in dataset.counts(TRAIN).items() if n == 0]
    if lacking:
        raise DatasetError(
            f"{dataset.root}: expected training images of every class, found none of {listed(lacking)}. "
            "Add some, or leave the class out with --classes."
        )


def _achieved(dataset: Dataset) -> str:
    counts = {side: sum(s.split == side for s in dataset.samples) for side in SPLITS}
    parts = [f"{n:,} {side} ({n / len(dataset):.1%})" for side, n in counts.items()]
    return f"Images: {', '.join(parts)}."


def _warnings(dataset: Dataset) -> list[str]:
    notes = []
    for side in (TEST, VALIDATION):
        counts = dataset.counts(side)
        lacking = [name for name, n in counts.items() if n == 0]
        if len(lacking) == len(counts):
            notes.append(f"There is no {side} part.")
        elif lacking:
            notes.append(f"No {side} image of {listed(lacking)}: too few distinct images, or none in the given part.")
    places: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        places[_content(sample)].append(sample)
    leaks = [pair for members in places.values() if (pair := _unlike(members, "split"))]
    if leaks:
        notes.append(
            f"Byte for byte the same on two sides of the given split: {len(leaks)} (such as {listed(leaks[0])}). "
            "Scores on them flatter the model."
        )
    torn = [pair for members in places.values() if (pair := _unlike(members, "label"))]
    if torn:
        notes.append(
            f"Byte for byte the same in two classes: {len(torn)} (such as {listed(torn[0])}). One label must be wrong."
        )
    return notes


def _unlike(samples: Sequence[Sample], what: str) -> list[str]:
    """The paths of the first two samples that differ in an attribute; empty when all agree."""
    first = samples[0]
    return next(([first.path, s.path] for s in samples if getattr(s, what) != getattr(first, what)), [])
