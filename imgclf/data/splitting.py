"""Dataset -> Dataset with every image on one side: training, validation or test; and folds."""

import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from imgclf import runs
from imgclf.data import dataset as datasets
from imgclf.data import grouping, labels, readers
from imgclf.data.dataset import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, listed
from imgclf.errors import DatasetError, UsageError
from imgclf.settings import DataConfig

K = TypeVar("K", bound=Hashable)


def choose(dataset: Dataset, settings: DataConfig) -> tuple[Dataset, list[str]]:
    """Leave out, label, choose and group what was read, as the settings say: all that comes before the split.

    Returns:
        The dataset, and notes for the user.

    Raises:
        ImgclfError: of any kind, if a setting or a file that it names does not suit the dataset.
    """
    notes = []
    if settings.exclude:
        dataset, found = labels.exclude(dataset, Path(settings.exclude))
        notes += found
    if settings.labels:
        dataset, found = labels.correct(dataset, Path(settings.labels))
        notes += found
    if settings.renames:
        dataset = labels.rename(dataset, settings.renames)
    if settings.class_map:
        dataset, found = labels.merge(dataset, Path(settings.class_map))
        notes += found
    dataset = readers.narrow(dataset, classes=settings.class_filter, limit=settings.limit)
    if len(dataset.class_names) < 2:
        raise DatasetError(
            f"{dataset.origin}: expected at least 2 classes to tell apart, found "
            f"{listed(dataset.class_names) or 'none'}. Choose more of them with --classes, or merge fewer."
        )
    if settings.group_by:
        dataset, found = grouping.group(dataset, settings.group_by)
        notes += found
    return dataset, notes


def divide(dataset: Dataset, settings: DataConfig, related: Iterable[Sequence[int]] = ()) -> tuple[Dataset, list[str]]:
    """Split what was chosen, as the settings say; `related` and the result as in `split`.

    Raises:
        ImgclfError: of any kind, if a setting or a file that it names does not suit the dataset.
    """
    notes = []
    old = None
    if settings.split_from:
        path = Path(settings.split_from)
        is_run = os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        old = datasets.read_manifest(runs.find(path).manifest if is_run else path, dataset.root)
        notes.append(f"Sides are kept from {path} (sha256 {old.digest()}).")
    dataset, found = split(
        dataset,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        val_as=settings.val_as,
        seed=settings.seed,
        test_group=settings.test_group,
        old=old,
        related=related,
    )
    return dataset, notes + found


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
) -> tuple[Dataset, list[str]]:
    """Put every image on one side, class by class, and say in plain English what was done.

    Sides that the dataset brings along are kept. What is missing is carved from its training images (from all, when
    it brings no sides), the fractions being shares of those. With a validation part and no test part, the validation
    part becomes the test part, used for no choice, unless `val_as` is "validation".

    What is carved is carved in units: exact duplicates, the images of one `Sample.group` and those that are `related`
    stand on one side, and so does what is linked by several of these. A unit's place is a number in [0, 1), a hash of
    the seed and of the group's name or, without a group, of the image's bytes (the smallest of them, where it has
    several). Below `test_fraction` it is for test, below the sum of both fractions for validation, otherwise for
    training. So the names of files and their order are without influence, and images that are added, to old groups
    or to new ones, move no old one. The price is that the shares are met on average, not to the image. Two rules come
    before it:

    - In each class at least one unit is for training, one for test if there are two, and one for validation if there
      are three (if there are two, where no test part is carved), as far as units that show several classes allow it.
    - Images without a group whose very bytes stand in several classes are for training: they can test nothing.

    An old image can thus move only when its class grows past one of these minima, or when a new image makes two units
    one, or shows its bytes in another class. With `old`, not even then: images keep the sides that they have there
    (found by their bytes, else by their path), units with an old image go where that stands, and only the others are
    carved. Where one unit holds old images of several sides, all of it goes to the earliest of training, validation
    and test, so that no model was ever trained on a test image; a note lists every image that moves.

    Args:
        validation_fraction: in [0, 1); 0 carves no validation part.
        test_fraction: in [0, 1); 0 carves no test part.
        val_as: "test" or "validation", what a given validation part without a test part is for.
        seed: another seed, another split.
        test_group: the images of this group, and what hangs together with them, are the test part.
        old: a split whose sides are kept.
        related: rows that belong together beside groups and duplicates, one sequence for each set.

    Returns:
        The dataset with `Sample.split` set, and notes for the user, one sentence or two each.

    Raises:
        DatasetError: if a class has no training image, there is no such group, or `old` holds none of the images.
        UsageError: if there is a test group, and the dataset or `old` brings a test part of other images along.
    """
    units = grouping.units(dataset.samples, related)
    notes = []
    if together := grouping.joined(dataset.samples, units):
        notes.append(f"Groups that share images stay together: {listed(' + '.join(names) for names in together)}.")
    if test_group is not None:
        dataset = _hold_out(dataset, units, test_group)
    given = {s.split for s in dataset.samples} & set(SPLITS)
    if VALIDATION in given and TEST not in given and val_as == "test":
        dataset = dataset.with_splits([TEST if s.split == VALIDATION else s.split for s in dataset.samples])
        given = (given - {VALIDATION}) | {TEST}
        notes.append(
            "val/ is used as the test part (for no choice); validation is carved from train/. "
            "--val-as validation changes it."
        )
    elif test_group is not None:
        notes.append(f"The test part is the group {listed([test_group])}.")
    elif given:
        fractions = {VALIDATION: validation_fraction, TEST: test_fraction}
        carved = [side for side, fraction in fractions.items() if fraction > 0 and side not in given]
        kept = f"The given parts ({', '.join(side for side in SPLITS if side in given)}) are kept."
        notes.append(f"{kept} Carved from train/: {', '.join(carved)}." if carved else kept)

    before = _sides_in(dataset, old) if old else [UNASSIGNED] * len(dataset)
    final = [s.split for s in dataset.samples]
    if test_group is not None and any(b == TEST != f for b, f in zip(before, final, strict=True)):
        raise UsageError(
            f"--test-group {test_group}: the split to keep has other images in its test part. Leave --split-from or "
            "--test-group out."
        )
    free = [row for row, side in enumerate(final) if side in (TRAIN, UNASSIGNED)]
    kept_units = _earliest((units[row], before[row]) for row in free)
    given_units = _earliest((unit, side) for unit, side in zip(units, final, strict=True) if side in (VALIDATION, TEST))
    pool = []
    for row in free:
        if units[row] in given_units and units[row] not in kept_units and final[row] == UNASSIGNED:
            final[row] = given_units[units[row]]
        else:
            pool.append(row)
    sides = _carve(
        [dataset.samples[row] for row in pool],
        [units[row] for row in pool],
        kept_units,
        test_fraction=0.0 if TEST in given else test_fraction,
        validation_fraction=0.0 if VALIDATION in given else validation_fraction,
        seed=seed,
    )
    for row in pool:
        final[row] = sides[units[row]]
    result = dataset.with_splits(final)
    _check_training(result)
    if old:
        notes += _moves(result, before)
    asked = [side for side, fraction in ((TEST, test_fraction), (VALIDATION, validation_fraction)) if fraction > 0]
    return result, [*notes, *_achieved(result), *_warnings(result, asked)]


def folds(
    dataset: Dataset, k: int, seed: int, related: Iterable[Sequence[int]] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deal the images out into `k` folds, each of which is the test part once.

    Every image is tested exactly once. Units (see `split`) stay whole; each class, and then all images together, are
    spread as evenly as they allow: without duplicates and groups the folds' counts of a class differ by one at most.
    The sides that the images have are ignored; order and names of files are without influence.

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
    places = _places(samples, units, seed)
    shares: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for sample, unit in zip(samples, units, strict=True):
        shares[unit][sample.label] += 1
    sizes = dataset.counts()
    of_class = {name: [0] * k for name in sizes}
    in_all = [0] * k
    fold_of: dict[int, int] = {}
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
            f"{listed(stuck)} in one: they are copies or one group. Add some, or leave the class out with --classes."
        )
    folds = np.array([fold_of[unit] for unit in units], dtype=np.int64)
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(k)]


def _hold_out(dataset: Dataset, units: Sequence[int], name: str) -> Dataset:
    """Give the test part to a group, and to the images that hang together with it."""
    names = sorted({s.group for s in dataset.samples if s.group})
    if not names:
        raise UsageError(f"--test-group {name}: the images have no groups. --group-by names them.")
    if name not in names:
        raise DatasetError(f"{dataset.origin}: no group {name!r}; the groups are {listed(names)}.")
    held = {unit for unit, s in zip(units, dataset.samples, strict=True) if s.group == name}
    if any(s.split == TEST and unit not in held for unit, s in zip(units, dataset.samples, strict=True)):
        raise UsageError(f"--test-group {name}: {dataset.origin} brings a test part along. Give its other parts alone.")
    pairs = zip(units, dataset.samples, strict=True)
    return dataset.with_splits([TEST if unit in held else s.split for unit, s in pairs])


def _sides_in(dataset: Dataset, old: Dataset) -> list[str]:
    """The side in an old split of every image that it holds, found by its bytes, else by its path; "" for others."""
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
            f"{dataset.origin}: expected images of the split to keep ({len(old):,} images, {len(of_path):,} with a "
            "side), found none of them. Choose another --split-from."
        )
    return found


def _earliest(sides: Iterable[tuple[K, str]]) -> dict[K, str]:
    """For each key the first of training, validation and test that it occurs with."""
    order = {side: place for place, side in enumerate(SPLITS)}
    found: dict[K, str] = {}
    for key, side in sides:
        if side and (key not in found or order[side] < order[found[key]]):
            found[key] = side
    return found


def _carve(
    samples: Sequence[Sample],
    units: Sequence[int],
    kept: Mapping[int, str],
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> dict[int, str]:
    """A side for every unit, by the rules of `split`; units in `kept` have theirs."""
    places = _places(samples, units, seed)
    torn = _torn(samples, units)
    classes = _classes(samples, units)
    side = {}
    for unit, place in places.items():
        carved = TEST if place < test_fraction else VALIDATION if place < test_fraction + validation_fraction else TRAIN
        side[unit] = kept.get(unit) or (TRAIN if unit in torn else carved)
    members: defaultdict[str, list[int]] = defaultdict(list)
    for unit, names in classes.items():
        if unit not in torn or unit in kept:
            for name in names:
                members[name].append(unit)
    counts = Counter((name, side[unit]) for name, own in members.items() for unit in own)
    least: dict[str, dict[str, int]] = {}
    for name, own in members.items():
        for_test = int(test_fraction > 0 and len(own) >= 2)
        for_validation = int(validation_fraction > 0 and len(own) >= 2 + for_test)
        least[name] = {TRAIN: 1, TEST: for_test, VALIDATION: for_validation}

    def lacks(name: str, goal: str) -> bool:
        return counts[name, goal] < least[name][goal]

    def can_leave(unit: int, settled: Sequence[str]) -> bool:
        here = side[unit]
        return here not in settled or all(counts[name, here] > least[name][here] for name in classes[unit])

    settled: list[str] = []  # the sides that have their minima already
    for goal in (TRAIN, TEST, VALIDATION):
        for name in sorted(name for name in members if lacks(name, goal)):
            if not lacks(name, goal):
                continue  # a unit with this class, too, has come in the meantime
            own = sorted((u for u in members[name] if u not in kept and u not in torn), key=places.__getitem__)
            if goal == TRAIN:
                own.reverse()
            elif goal == VALIDATION:  # the nearest: the training unit of the lowest place, the test unit of the highest
                own = [u for u in own if side[u] == TRAIN] + [u for u in reversed(own) if side[u] == TEST]
            for unit in [u for u in own if can_leave(u, settled)][:1]:
                counts.subtract((label, side[unit]) for label in classes[unit])
                counts.update((label, goal) for label in classes[unit])
                side[unit] = goal
        settled.append(goal)
    return side


def _places(samples: Sequence[Sample], units: Sequence[int], seed: int) -> dict[int, float]:
    """Each unit's place in [0, 1): the smallest among those of its groups or, without a group, of its contents."""
    groups = {(unit, s.group) for unit, s in zip(units, samples, strict=True) if s.group}
    grouped = {unit for unit, _ in groups}
    contents = {(u, grouping.content(s)) for u, s in zip(units, samples, strict=True) if u not in grouped}
    places: dict[int, float] = {}
    for unit, name in itertools.chain(((unit, f"group\0{name}") for unit, name in groups), contents):
        digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
        places[unit] = min(places.get(unit, 1.0), int.from_bytes(digest[:6], "big") / 2**48)
    return places


def _torn(samples: Sequence[Sample], units: Sequence[int]) -> set[int]:
    """The units without a group that show the same bytes in several classes."""
    label_of: dict[str, str] = {}
    torn, grouped = set(), set()
    for sample, unit in zip(samples, units, strict=True):
        if sample.group:
            grouped.add(unit)
        if label_of.setdefault(grouping.content(sample), sample.label) != sample.label:
            torn.add(unit)
    return torn - grouped


def _classes(samples: Sequence[Sample], units: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The classes that each unit shows."""
    classes: dict[int, tuple[str, ...]] = {}
    for sample, unit in zip(samples, units, strict=True):
        if sample.label not in classes.get(unit, ()):
            classes[unit] = (*classes.get(unit, ()), sample.label)
    return classes


def _check_training(dataset: Dataset) -> None:
    if not dataset.samples:
        raise DatasetError(f"{dataset.origin}: expected images to split, found none.")
    lacking = [name for name, n in dataset.counts(TRAIN).items() if n == 0]
    if lacking:
        raise DatasetError(
            f"{dataset.origin}: expected training images of every class, found none of {listed(lacking)}. "
            "Add some, or leave the class out with --classes."
        )


def _moves(dataset: Dataset, before: Sequence[str]) -> list[str]:
    """How many images kept their old sides, and every one that did not."""
    pairs = [(s, side) for s, side in zip(dataset.samples, before, strict=True) if side]
    moved = [f"{listed([s.path])} ({side} -> {s.split})" for s, side in pairs if s.split != side]
    new = len(dataset) - len(pairs)
    notes = [f"Sides kept from the old split: {len(pairs) - len(moved):,} images; new ones: {new:,}."]
    if moved:
        notes.append(f"Moved to another side: {len(moved):,} images: {', '.join(moved)}.")
    return notes


def _achieved(dataset: Dataset) -> list[str]:
    images = Counter(s.split for s in dataset.samples)
    groups = Counter(side for side, _ in {(s.split, s.group) for s in dataset.samples if s.group})
    shares = [f"{images[side]:,} {side} ({images[side] / len(dataset):.1%})" for side in SPLITS]
    notes = [f"Images: {', '.join(shares)}."]
    if groups:
        notes.append(f"Groups: {', '.join(f'{groups[side]:,} {side}' for side in SPLITS)}.")
    return notes


def _warnings(dataset: Dataset, asked: Collection[str]) -> list[str]:
    """What the user should know about the sides; `asked` are those that were to be carved."""
    notes = []
    distinct = "distinct images or groups" if any(s.group for s in dataset.samples) else "distinct images"
    for side in (TEST, VALIDATION):
        counts = dataset.counts(side)
        lacking = [name for name, n in counts.items() if n == 0]
        if len(lacking) == len(counts):
            notes.append(f"There is no {side} part{f': too few {distinct}' if side in asked else ''}.")
        elif lacking:
            notes.append(f"No {side} image of {listed(lacking)}: too few {distinct}, or none in the given part.")
    if leaks := _unlike(dataset, grouping.content, lambda s: s.split):
        notes.append(
            f"Byte for byte the same on two sides of the given split: {len(leaks)} (such as {listed(leaks[0])}). "
            "Scores on them flatter the model."
        )
    if leaks := _unlike(dataset, lambda s: s.group, lambda s: s.split):
        notes.append(
            f"Groups on two sides of the given split: {len(leaks)} (such as that of {listed(leaks[0])}). "
            "Scores on them flatter the model."
        )
    if torn := _unlike(dataset, grouping.content, lambda s: s.label):
        notes.append(
            f"Byte for byte the same in two classes: {len(torn)} (such as {listed(torn[0])}). One label must be wrong."
        )
    return notes


def _unlike(dataset: Dataset, key: Callable[[Sample], str], what: Callable[[Sample], str]) -> list[list[str]]:
    """For every key whose samples do not all agree: the paths of its first and of the first other; "" is no key."""
    first: dict[str, Sample] = {}
    found: dict[str, list[str]] = {}
    for sample in dataset.samples:
        name = key(sample)
        if name and name not in found and what(earlier := first.setdefault(name, sample)) != what(sample):
            found[name] = [earlier.path, sample.path]
    return list(found.values())
