"""Split a dataset into training, validation and test images, or into folds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from imgclf import tasks
from imgclf.data import carving, grouping
from imgclf.data.dataset import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, listed
from imgclf.errors import DatasetError, UsageError

K = TypeVar("K", bound=Hashable)


def split(
    dataset: Dataset,
    *,
    validation_fraction: float,
    test_fraction: float,
    val_as: str = "test",
    seed: int,
    test_group: str | None = None,
    old: Dataset | None = None,
    related: Iterable[Sequence[int]] = (),
    trainable: bool = True,
) -> tuple[Dataset, list[str]]:
    """Assign every image to training, validation or test, class by class.

    A split that the dataset brings along is kept. What it lacks is carved from its training images (from all, when it
    brings no split), and the fractions refer to those. A given validation split without a test split becomes the test
    split, used for no choice, unless `val_as` is "validation".

    Carving never divides a unit: exact duplicates, the images of one `Sample.group`, those that are `related`, and
    whatever is linked by several of these.

    1. A hash of the seed and of the group's name or, without a group, of the image's bytes (the smallest, where a unit
       has several) is a number in [0, 1). Below `test_fraction` it means test, below the sum of both fractions
       validation, otherwise training. Names and order of files have no influence.
    2. A group with more images of a class than the tolerance in 3 allows is assigned by its size instead: the largest
       of a class goes to training, and each further one to the split furthest below its share.
    3. In every class the validation and test counts differ from fraction x n by at most 1 or, if that is more, by a
       tenth, where no group or duplicate prevents it: the units nearest to the threshold are moved. (Copies of an
       image count once; n are the images that are carved.)
    4. In each class at least one unit is for training, one for test if there are two, and one for validation if there
       are three (two, where no test split is carved), as far as units with several classes allow it.
    5. Images without a group whose bytes occur in several classes are for training: they can test nothing.

    Without large groups, adding images thus moves few old ones: none in a class whose hashes meet its shares, about as
    many as its counts leave the tolerance in others. Large groups can move when others are added. With `old` nothing
    moves: images keep the split that they have there (found by their bytes, else by their path), units with an old
    image follow it, and only the others are carved. The exception is a unit with old images of several splits: all of
    it goes to the earliest of training, validation and test, so that no model was trained on a test image, and a note
    lists every image that moves.

    Args:
        validation_fraction: in [0, 1); 0 carves no validation split.
        test_fraction: in [0, 1); 0 carves no test split.
        val_as: "test" or "validation", what a given validation split without a test split is for.
        seed: another seed, another split.
        test_group: the images of this group, and those linked to them, are the test split.
        old: a split to keep.
        related: more rows that belong together, one sequence for each set.
        trainable: whether a class without a training image is an error; otherwise, it is a note.

    Returns:
        The dataset with `Sample.split` set, and notes for the user.

    Raises:
        DatasetError: if a class has no training image, there is no such group, or `old` contains none of the images.
        UsageError: if there is a test group, and the dataset or `old` has other test images.
    """
    related = list(related)
    units = grouping.units(dataset.samples, related)
    strata = tasks.find(dataset.task).strata([s.label for s in dataset.samples])
    notes = linked_groups(dataset, units, related)
    if test_group is not None:
        dataset = _hold_out(dataset, units, test_group)
    given = {s.split for s in dataset.samples} & set(SPLITS)
    if VALIDATION in given and TEST not in given and val_as == "test":
        dataset = dataset.with_splits([TEST if s.split == VALIDATION else s.split for s in dataset.samples])
        given = (given - {VALIDATION}) | {TEST}
        notes.append(
            "val/ is used as the test split (for no choice); validation is carved from train/. "
            "--val-as validation changes it."
        )
    elif test_group is not None:
        notes.append(f"The test split is the group {listed([test_group])}.")
    elif given:
        fractions = {VALIDATION: validation_fraction, TEST: test_fraction}
        lacking = [name for name, fraction in fractions.items() if fraction > 0 and name not in given]
        kept = f"{KEPT} ({', '.join(name for name in SPLITS if name in given)}) are kept."
        notes.append(f"{kept} Carved from train/: {', '.join(lacking)}." if lacking else kept)

    before = _splits_in(dataset, old) if old else [UNASSIGNED] * len(dataset)
    final = [s.split for s in dataset.samples]
    if test_group is not None and any(b == TEST != f for b, f in zip(before, final, strict=True)):
        raise UsageError(
            f"--test-group {test_group}: the split to keep has other test images. Leave --split-from or "
            "--test-group out."
        )
    free = [row for row, name in enumerate(final) if name in (TRAIN, UNASSIGNED)]
    kept_units = _earliest((units[row], before[row]) for row in free)
    given_units = _earliest((unit, name) for unit, name in zip(units, final, strict=True) if name in (VALIDATION, TEST))
    pool = []
    for row in free:
        if units[row] in given_units and units[row] not in kept_units and final[row] == UNASSIGNED:
            final[row] = given_units[units[row]]
        else:
            pool.append(row)
    asked = {TEST: test_fraction, VALIDATION: validation_fraction}
    shares = {name: 0.0 if name in given else fraction for name, fraction in asked.items()}
    carved = carving.carve(
        [dataset.samples[row] for row in pool],
        [strata[row] for row in pool],
        [units[row] for row in pool],
        kept_units,
        test_fraction=shares[TEST],
        validation_fraction=shares[VALIDATION],
        seed=seed,
    )
    for row in pool:
        final[row] = carved[units[row]]
    result = dataset.with_splits(final)
    if obstacle := _obstacle(result):
        if trainable or not result.samples:
            raise obstacle
        notes.append(f"It cannot be trained on as it is. {obstacle}")
    if old:
        notes += _moves(result, before)
    notes += [*_achieved(result), *_unmet([(result.samples[row].split, strata[row]) for row in pool], shares)]
    return result, [*notes, *_warnings(result, [name for name, share in shares.items() if share > 0])]


def folds(
    dataset: Dataset, k: int, seed: int, related: Iterable[Sequence[int]] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deal the images out into `k` folds, each of which is tested on once.

    Every image is tested exactly once. Units (see `split`) stay whole; each class, and then all images together, are
    spread as evenly as they allow: without duplicates and groups, the folds' counts of a class differ by one at most,
    and so do their sizes. (scikit-learn's StratifiedGroupKFold makes folds of 8 to 10 images of classes of 17, 13, 6.)
    The split that the images have is ignored; names and order of files have no influence.

    Returns:
        For each fold the rows for training and those for testing, ascending int64.

    Raises:
        UsageError: if `k` is less than 2.
        DatasetError: if a class would be without training images in one of the folds.
    """
    if k < 2:
        raise UsageError(f"expected at least 2 folds, found {k}.")
    samples = dataset.samples
    units = grouping.units(samples, related)
    places = carving.places(samples, units, seed)
    strata = tasks.find(dataset.task).strata([s.label for s in samples])
    shares: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for own, unit in zip(strata, units, strict=True):
        shares[unit].update(own)
    sizes = Counter(name for own in strata for name in own)
    of_class = {name: [0] * k for name in sizes}
    in_all = [0] * k
    fold_of: dict[int, int] = {}
    if any(len(own) > 1 for own in strata):
        fold_of = carving.stratify(shares, dict.fromkeys(range(k), 1 / k), places)
        for unit, fold in fold_of.items():
            for name, n in shares[unit].items():
                of_class[name][fold] += n
        shares.clear()  # all are dealt out
    for unit in sorted(shares, key=lambda unit: (-shares[unit].total(), places[unit])):
        share = shares[unit]
        fullness = [
            (sum(of_class[name][fold] * n / sizes[name] for name, n in sorted(share.items())), in_all[fold], fold)
            for fold in range(k)
        ]
        fold = min(fullness)[2]
        fold_of[unit] = fold
        in_all[fold] += share.total()
        for name, n in share.items():
            of_class[name][fold] += n
    stuck = [name for name, counts in of_class.items() if sizes[name] and max(counts) == sizes[name]]
    if stuck:
        raise DatasetError(
            f"{dataset.origin}: expected images of every class outside each of {k} folds, found all those of "
            f"{listed(map(repr, stuck))} in one: a single image, copies or one group. Add some, or leave the class "
            "out with --classes."
        )
    folds = np.array([fold_of[unit] for unit in units], dtype=np.int64)
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(k)]


def linked_groups(dataset: Dataset, units: Sequence[int], related: Iterable[Sequence[int]]) -> list[str]:
    """Say that groups stay together, and name the files that link the first of them."""
    found = grouping.joined(dataset.samples, units, related)
    if not found or (all(s.split for s in dataset.samples) and {s.split for s in dataset.samples} >= set(SPLITS)):
        return []  # nothing is moved in given splits: the doctor names what they share
    names, files = found[0]
    linked = "; ".join(" = ".join(listed([path]) for path in paths) for paths in files[:_LINKS_SHOWN])
    more = f" and {len(files) - _LINKS_SHOWN:,} more" if len(files) > _LINKS_SHOWN else ""
    others = f" So do {len(found) - 1:,} more such sets of groups." if len(found) > 1 else ""
    return [f"Groups {listed(names)} stay together, because they share images: {linked}{more}.{others}"]


_LINKS_SHOWN = 3
KEPT = "The given splits"
"""How the note begins that says which splits came with the data."""


def _hold_out(dataset: Dataset, units: Sequence[int], name: str) -> Dataset:
    """Make a group, and the images linked to it, the test split."""
    names = sorted({s.group for s in dataset.samples if s.group})
    if not names:
        raise UsageError(f"--test-group {name}: the images have no groups. --group-by names them.")
    if name not in names:
        raise DatasetError(f"{dataset.origin}: no group {name!r}; the groups are {listed(names)}.")
    held = {unit for unit, s in zip(units, dataset.samples, strict=True) if s.group == name}
    if any(s.split == TEST and unit not in held for unit, s in zip(units, dataset.samples, strict=True)):
        raise UsageError(f"--test-group {name}: {dataset.origin} has a test split. Pass its other folders alone.")
    pairs = zip(units, dataset.samples, strict=True)
    return dataset.with_splits([TEST if unit in held else s.split for unit, s in pairs])


def _splits_in(dataset: Dataset, old: Dataset) -> list[str]:
    """Find every image in an old split, by its bytes, else by its path; "" for those that are not in it."""
    of_path = {s.path: s for s in old.samples if s.split}
    of_content = _earliest((grouping.content(s), s.split) for s in old.samples)
    found = []
    for sample in dataset.samples:
        namesake, content = of_path.get(sample.path), grouping.content(sample)
        if namesake and (content not in of_content or grouping.content(namesake) == content):
            found.append(namesake.split)
        else:
            found.append(of_content.get(content, UNASSIGNED))
    if not any(found):
        raise DatasetError(
            f"{dataset.origin}: expected images of the split to keep ({len(old):,} images, {len(of_path):,} of them "
            "assigned), found none of them. Choose another --split-from."
        )
    return found


def _earliest(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """Map each key to the first of training, validation and test that it occurs with."""
    found: dict[K, str] = {}
    for key, name in pairs:
        if name and (key not in found or SPLITS.index(name) < SPLITS.index(found[key])):
            found[key] = name
    return found


def _obstacle(dataset: Dataset) -> DatasetError | None:
    """Why a dataset cannot be trained on, as it is split; None if it can."""
    if not dataset.samples:
        return DatasetError(f"{dataset.origin}: expected images to split, found none.")
    lacking = [name for name, n in dataset.counts(TRAIN).items() if n == 0]
    if not lacking:
        return None
    given = sorted({s.given for s in dataset.samples if s.given})
    again = " Pass --resplit to ignore the given split and make a new one." if given else ""
    if len(lacking) == len(dataset.class_names) and given:
        return DatasetError(
            f"{dataset.origin}: expected training images, found images for {' and '.join(given)} only.{again}"
        )
    return DatasetError(
        f"{dataset.origin}: expected training images of every class, found none of {listed(lacking)}. "
        f"Add some, or leave the class out with --classes.{again}"
    )


def _moves(dataset: Dataset, before: Sequence[str]) -> list[str]:
    """Say how many images kept their old split, and list every one that did not."""
    pairs = [(s, name) for s, name in zip(dataset.samples, before, strict=True) if name]
    moved = [f"{listed([s.path])} ({name} -> {s.split})" for s, name in pairs if s.split != name]
    new = len(dataset) - len(pairs)
    notes = [f"Kept from the old split: {len(pairs) - len(moved):,} images; new: {new:,}."]
    if moved:
        notes.append(f"Moved to another split: {len(moved):,} images: {', '.join(moved)}.")
    return notes


def _achieved(dataset: Dataset) -> list[str]:
    images = Counter(s.split for s in dataset.samples)
    groups = Counter(name for name, _ in {(s.split, s.group) for s in dataset.samples if s.group})
    shares = [f"{images[name]:,} {name} ({images[name] / len(dataset):.1%})" for name in SPLITS]
    notes = [f"Images: {', '.join(shares)}."]
    if groups:
        notes.append(f"Groups: {', '.join(f'{groups[name]:,} {name}' for name in SPLITS)}.")
    return notes


def _unmet(samples: Sequence[tuple[str, Sequence[str]]], shares: Mapping[str, float]) -> list[str]:
    """Say which shares could not be met, in all or else in a class, and by how much.

    Args:
        samples: the split and the strata of each.
    """
    counts = Counter((label, split) for split, own in samples for label in own)
    sizes = sorted(Counter(label for _, own in samples for label in own).items())
    in_all, of_classes = [], []
    for part, share in shares.items():
        bands = {label: carving.wanted(share, size) for label, size in sizes if share}
        low, high = (sum(limits) for limits in zip(*bands.values(), strict=True)) if bands else (0, len(samples))
        count, size = sum(counts[label, part] for label, _ in sizes), sum(n for _, n in sizes)
        if not low <= count <= high:
            in_all.append(f"{part} has {_instead(count, size, share)}")
        for label, size in sizes:
            low, high = bands.get(label, (0, size))
            if not low <= counts[label, part] <= high:
                of_classes.append(f"{part} has {_instead(counts[label, part], size, share)} of {listed([label])}")
    found = in_all or of_classes
    if not found:
        return []
    more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
    return [f"Images that belong together prevent the shares asked for: {'; '.join(found[:10])}{more}."]


def _instead(count: int, size: int, share: float) -> str:
    return f"{count:,} of {size:,} images instead of {share * size:,.0f} ({count / size - share:+.1%})"


def _warnings(dataset: Dataset, asked: Collection[str]) -> list[str]:
    """Say what is missing or suspicious in the split; `asked` are the splits that should have been carved.

    Copies are the doctor's (`conflict`, `leakage`).
    """
    notes = []
    distinct = "distinct images or groups" if any(s.group for s in dataset.samples) else "distinct images"
    for part in (TEST, VALIDATION):
        counts = dataset.counts(part)
        lacking = [name for name, n in counts.items() if n == 0]
        if len(lacking) == len(counts):
            notes.append(f"The {part} split is empty{f': too few {distinct}' if part in asked else ''}.")
        elif lacking:
            start, reason = ("The", f": too few {distinct}") if part in asked else ("The given", "")
            notes.append(f"{start} {part} split contains no images of {listed(lacking)}{reason}.")
    if leaks := _unlike(dataset, lambda s: s.group, lambda s: s.split):
        notes.append(
            f"Groups in two given splits: {len(leaks)} (such as that of {listed(leaks[0])}). "
            "Scores on them flatter the model."
        )
    return notes


def _unlike(dataset: Dataset, key: Callable[[Sample], str], what: Callable[[Sample], str]) -> list[list[str]]:
    """Find keys whose samples disagree: the paths of the first sample and of the first that differs; "" is no key."""
    first: dict[str, Sample] = {}
    found: dict[str, list[str]] = {}
    for sample in dataset.samples:
        name = key(sample)
        if name and name not in found and what(earlier := first.setdefault(name, sample)) != what(sample):
            found[name] = [earlier.path, sample.path]
    return list(found.values())
