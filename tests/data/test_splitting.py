"""The split: every image on one side, by content and seed alone, and given sides kept."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data import dataset as datasets
from imgclf.data import grouping, preparing, readers, splitting
from imgclf.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Dataset, Sample
from imgclf.errors import DatasetError, RunError, UsageError
from imgclf.settings import DataConfig


def sha(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def make(counts: dict[str, int], split: str = "", start: int = 0) -> list[Sample]:
    """Samples with contents of their own, `counts` of each class."""
    return [
        Sample(f"{split}/{name}/{i}.png", name, split, sha256=sha((name, split, i)))
        for name, count in counts.items()
        for i in range(start, start + count)
    ]


def dataset(samples: list[Sample]) -> Dataset:
    return Dataset(Path("data"), tuple(samples), tuple(sorted({s.label for s in samples})))


def split(samples: list[Sample], **changes: object) -> tuple[Dataset, list[str]]:
    options = {"validation_fraction": 0.15, "test_fraction": 0.15, "seed": 0, **changes}
    return splitting.split(dataset(samples), **options)


def prepare(data: Dataset, config: DataConfig) -> tuple[Dataset, list[str]]:
    prepared = preparing.prepare(data, config)
    return prepared.dataset, prepared.notes


def sides(samples: list[Sample], **changes: object) -> dict[str, str]:
    return {s.path: s.split for s in split(samples, **changes)[0].samples}


# Few contents, so that duplicates within a class and across classes are common.
SETS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12)), min_size=1, max_size=60).map(
    lambda rows: [Sample(f"{i}.png", name, sha256=sha(content)) for i, (name, content) in enumerate(rows)]
)
FRACTIONS = st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.49])
SEEDS = st.integers(0, 5)


@given(SETS, FRACTIONS, FRACTIONS, SEEDS)
@settings(deadline=None)
def test_every_image_stands_on_one_side_and_duplicates_stand_together(
    samples: list[Sample], validation: float, test: float, seed: int
) -> None:
    result, _ = split(samples, validation_fraction=validation, test_fraction=test, seed=seed)
    assert [replace(s, split="") for s in result.samples] == samples
    assert {s.split for s in result.samples} <= set(SPLITS)
    of_content = defaultdict(set)
    for sample in result.samples:
        of_content[sample.sha256].add(sample.split)
    assert all(len(found) == 1 for found in of_content.values())
    assert (test > 0) or TEST not in {s.split for s in result.samples}
    assert (validation > 0) or VALIDATION not in {s.split for s in result.samples}


@given(SETS, SEEDS)
@settings(deadline=None)
def test_every_class_gets_the_stated_minima(samples: list[Sample], seed: int) -> None:
    result, _ = split(samples, seed=seed)
    classes = defaultdict(set)
    for sample in samples:
        classes[sample.sha256].add(sample.label)
    for name in result.class_names:
        own = {s.sha256: s.split for s in result.samples if s.label == name and classes[s.sha256] == {name}}
        assert {TRAIN, TEST} <= set(own.values()) or len(own) < 2
        assert set(SPLITS) == set(own.values()) or len(own) < 3
        assert any(s.split == TRAIN for s in result.samples if s.label == name)


@given(SETS, SEEDS, st.randoms())
@settings(deadline=None)
def test_order_and_names_of_files_have_no_influence(samples: list[Sample], seed: int, shuffler: random.Random) -> None:
    expected = {(s.sha256, s.label): s.split for s in split(samples, seed=seed)[0].samples}
    shuffled = shuffler.sample(samples, len(samples))
    renamed = [replace(s, path=f"other/{i}.jpg") for i, s in enumerate(shuffled)]
    assert {(s.sha256, s.label): s.split for s in split(renamed, seed=seed)[0].samples} == expected


def by_formula(name: str, samples: list[Sample], *, validation: float, test: float, seed: int) -> dict[str, str]:
    """The sides of one class without groups, by another way: counts first, then cuts in the order of places."""
    contents = {s.sha256 for s in samples if s.label == name}
    contents -= {s.sha256 for s in samples if s.label != name}
    ordered = sorted((int(sha(f"{seed}:{content}")[:12], 16) / 16**12, content) for content in contents)
    n = len(ordered)
    least_test = int(test > 0 and n >= 2)
    least_validation = int(validation > 0 and n >= 2 + least_test)
    below = [sum(place < limit for place, _ in ordered) for limit in (test, test + validation)]
    n_test = min(max(below[0], least_test), n - 1 - least_validation)
    n_validation = min(max(below[1] - n_test, least_validation), n - 1 - n_test)
    cut = [TEST] * n_test + [VALIDATION] * n_validation + [TRAIN] * n
    return {content: side for (_, content), side in zip(ordered, cut, strict=False)}


@given(SETS, FRACTIONS, FRACTIONS, SEEDS)
@settings(deadline=None)
def test_without_groups_each_class_is_cut_in_the_order_of_places(
    samples: list[Sample], validation: float, test: float, seed: int
) -> None:
    result, _ = split(samples, validation_fraction=validation, test_fraction=test, seed=seed)
    for name in result.class_names:
        expected = by_formula(name, samples, validation=validation, test=test, seed=seed)
        found = {s.sha256: s.split for s in result.samples if s.label == name and s.sha256 in expected}
        assert found == expected


# Groups and contents that repeat within classes and across them.
GROUPED = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.integers(0, 30)), min_size=1, max_size=60
).map(
    lambda rows: [Sample(f"{i}.png", c, group=f"g{g}" if g else "", sha256=sha(n)) for i, (c, g, n) in enumerate(rows)]
)


@given(GROUPED, FRACTIONS, FRACTIONS, SEEDS, st.lists(st.lists(st.integers(0, 59), max_size=4), max_size=3))
@settings(deadline=None)
def test_groups_duplicates_and_related_images_are_never_divided(
    samples: list[Sample], validation: float, test: float, seed: int, related: list[list[int]]
) -> None:
    related = [[row for row in rows if row < len(samples)] for rows in related]
    options = {"validation_fraction": validation, "test_fraction": test, "seed": seed, "related": related}
    result, _ = split(samples, **options)
    assert [replace(s, split="") for s in result.samples] == samples
    assert {s.split for s in result.samples} <= set(SPLITS)
    sides = defaultdict(set)
    for row, sample in enumerate(result.samples):
        sides[sample.sha256].add(sample.split)
        sides[sample.group or row].add(sample.split)
        for number, rows in enumerate(related):
            if row in rows:
                sides[f"related {number}"].add(sample.split)
    assert all(len(found) == 1 for found in sides.values())
    assert all(result.counts(TRAIN).values())
    assert result == split(samples, **options)[0]


@given(GROUPED, SEEDS, st.randoms())
@settings(deadline=None)
def test_order_and_names_of_files_have_no_influence_on_groups(
    samples: list[Sample], seed: int, shuffler: random.Random
) -> None:
    expected = {(s.sha256, s.label, s.group): s.split for s in split(samples, seed=seed)[0].samples}
    renamed = [replace(s, path=f"other/{i}.jpg") for i, s in enumerate(shuffler.sample(samples, len(samples)))]
    assert {(s.sha256, s.label, s.group): s.split for s in split(renamed, seed=seed)[0].samples} == expected


def people(count: int, images: range = range(5), classes: str = "ab") -> list[Sample]:
    """So many people, each a group with images of every class."""
    return [
        Sample(f"{label}/{person}-{i}.png", label, group=f"person {person}", sha256=sha((person, label, i)))
        for person in range(count)
        for label in classes
        for i in images
    ]


@given(st.integers(1, 3), st.integers(0, 40), SEEDS)
@settings(deadline=None, max_examples=30)
def test_images_added_to_groups_and_new_groups_move_no_old_one(more: int, people_more: int, seed: int) -> None:
    old, new = people(100), people(100 + people_more, range(5 + more))
    before, after = sides(old, seed=seed), sides(new, seed=seed)
    assert {path: after[path] for path in before} == before


def test_the_groups_fractions_are_met_on_average_and_printed() -> None:
    result, notes = split(people(2000, range(1)))
    found = {side: sum(result.counts(side).values()) / 4000 for side in SPLITS}
    assert abs(found[TEST] - 0.15) < 4 * (0.15 * 0.85 / 2000) ** 0.5  # four standard deviations
    assert notes[1] == f"Groups: {', '.join(f'{found[side] * 2000:,.0f} {side}' for side in SPLITS)}."


def test_few_groups_with_all_classes_stand_on_all_sides() -> None:
    for seed in range(30):
        result, _ = split(people(3), seed=seed)
        assert {s.split for s in result.samples} == set(SPLITS)


def test_one_group_for_each_class_leaves_nothing_to_test_on() -> None:
    samples = [replace(s, group=s.label) for s in make({"ant": 9, "bee": 9})]
    assert "There is no test part: too few distinct images or groups." in split(samples)[1]


def test_an_image_shared_by_two_groups_joins_them_and_is_reported() -> None:
    shared = [Sample(f"a/x{i}.png", "a", group=f"person {i}", sha256=sha("x")) for i in (0, 1)]
    for seed in range(20):
        result, notes = split(people(9) + shared, seed=seed)
        assert len({s.split for s in result.samples if s.group in ("person 0", "person 1")}) == 1
        assert notes[0] == "Groups that share images stay together: person 0 + person 1."


@given(st.integers(10, 110), SEEDS)
@settings(deadline=None)
def test_images_that_are_added_to_a_kept_split_move_no_old_one(added: int, seed: int) -> None:
    old, _ = split(make({"ant": 3, "bee": 100}), seed=seed)
    samples = make({"ant": 3 + added, "bee": 100 + added, "cat": added})
    result, notes = split(samples, seed=seed + 1, old=old)
    before = {s.path: s.split for s in old.samples}
    assert {s.path: s.split for s in result.samples if s.path in before} == before
    assert all(result.counts(side)[name] for name in ("ant", "bee", "cat") for side in SPLITS)
    assert notes[0] == f"Sides kept from the old split: 103 images; new ones: {3 * added}."
    assert not any(note.startswith("Moved") for note in notes)


def test_a_kept_split_finds_images_by_their_bytes_then_by_their_path() -> None:
    old = dataset([Sample("1.png", "ant", TEST, sha256="a"), Sample("2.png", "ant", VALIDATION, sha256="b")])
    samples = [
        Sample("moved/1.png", "ant", sha256="a"),
        Sample("2.png", "ant", sha256="edited"),
        *make({"ant": 5}),
    ]
    result, _ = split(samples, old=old)
    assert [s.split for s in result.samples[:2]] == [TEST, VALIDATION]


def test_a_new_image_that_joins_old_groups_moves_them_to_the_earliest_side_and_every_move_is_listed() -> None:
    old, _ = split(people(40))
    side = {s.group: s.split for s in old.samples}
    one, two = (next(g for g in side if side[g] == goal) for goal in (TRAIN, TEST))
    joining = [Sample(f"a/x-{g}.png", "a", group=g, sha256=sha("x")) for g in (one, two)]
    result, notes = split(people(40) + joining, old=old)
    assert {s.split for s in result.samples if s.group in (one, two)} == {TRAIN}
    moved = [s.path for s in old.samples if s.group == two]
    listing = ", ".join(f"{path} (test -> train)" for path in moved)
    assert f"Moved to another side: {len(moved)} images: {listing}." in notes
    others = {s.path: s.split for s in old.samples if s.group != two}
    assert {s.path: s.split for s in result.samples if s.path in others} == others


def test_a_new_image_of_an_old_group_goes_where_that_stands() -> None:
    old, _ = split(people(40))
    result, _ = split(people(40, range(6)), seed=5, old=old)
    side = {s.group: s.split for s in old.samples}
    assert all(s.split == side[s.group] for s in result.samples)


def test_a_split_of_other_images_cannot_be_kept() -> None:
    with pytest.raises(DatasetError, match=r"expected images of the split to keep \(1 images, 1 with a side\)"):
        split(make({"ant": 9}), old=dataset([Sample("x.png", "ant", TEST, sha256="x")]))


def test_a_kept_split_and_given_parts() -> None:
    old, _ = split(given_parts(TRAIN, TEST))
    grown = make({"ant": 80, "bee": 80}, TRAIN) + make({"ant": 70, "bee": 70}, TEST)
    result, _ = split(grown, seed=3, old=old)
    before = {s.path: s.split for s in old.samples}
    assert {s.path: s.split for s in result.samples if s.path in before} == before
    assert {s.split for s in result.samples if s.path.startswith(TEST)} == {TEST}
    assert {s.split for s in result.samples if s.path.startswith(TRAIN)} == {TRAIN, VALIDATION}


def test_a_test_group_is_the_test_part_and_the_rest_has_none() -> None:
    result, notes = split(people(40), test_group="person 7")
    assert {s.group for s in result.samples if s.split == TEST} == {"person 7"}
    assert {s.split for s in result.samples} == set(SPLITS)
    assert notes[0] == "The test part is the group person 7."


def test_with_a_test_group_a_given_validation_part_stays_one() -> None:
    samples = [replace(s, group="site" if i % 7 == 0 else "") for i, s in enumerate(given_parts(TRAIN, VALIDATION))]
    result, _ = split(samples, test_group="site")
    assert all((s.split == TEST) == (s.group == "site") for s in result.samples)
    assert {s.split for s in result.samples if s.path.startswith(VALIDATION) and not s.group} == {VALIDATION}


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (make({"ant": 9}), UsageError, "the images have no groups. --group-by names them"),
        (people(3), DatasetError, "no group 'nobody'; the groups are person 0, person 1, person 2"),
    ],
)
def test_an_unknown_test_group_is_an_error(samples: list[Sample], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split(samples, test_group="nobody")


def test_a_test_group_beside_a_given_test_part_is_an_error() -> None:
    samples = [replace(s, group=s.path.split("/")[0]) for s in given_parts(TRAIN, TEST)]
    with pytest.raises(UsageError, match="brings a test part along"):
        split(samples, test_group=TRAIN)


def test_a_test_group_beside_a_kept_split_holds_out_new_images_of_it_and_no_others() -> None:
    old, _ = split(people(40), test_group="person 7")
    result, _ = split(people(40, range(6)), test_group="person 7", old=old)
    assert {s.group for s in result.samples if s.split == TEST} == {"person 7"}
    with pytest.raises(UsageError, match="the split to keep has other images in its test part"):
        split(people(40), test_group="person 8", old=old)


def test_a_group_on_two_given_sides_is_reported() -> None:
    samples = given_parts(TRAIN, TEST)
    samples = [replace(s, group="site") if s.path.endswith("ant/0.png") else s for s in samples]
    assert any(
        note.startswith("Groups on two sides of the given split: 1 (such as that of train/ant/0.png, test/ant/0.png).")
        for note in split(samples)[1]
    )


@given(GROUPED, st.integers(2, 4), SEEDS)
@settings(deadline=None)
def test_folds_test_every_image_once_and_divide_no_group(samples: list[Sample], k: int, seed: int) -> None:
    data = dataset(samples)
    try:
        found = splitting.folds(data, k, seed)
    except DatasetError as error:
        assert "outside each of" in str(error)  # a class of one unit, or of few that show other classes, too
        return
    assert sorted(row for _, test in found for row in test) == list(range(len(samples)))
    for train, test in found:
        assert sorted([*train, *test]) == list(range(len(samples)))
        assert not {samples[i].sha256 for i in train} & {samples[i].sha256 for i in test}
        assert not {samples[i].group for i in train if samples[i].group} & {samples[i].group for i in test}
        assert {samples[i].label for i in train} == set(data.class_names)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 5), SEEDS, st.randoms())
@settings(deadline=None)
def test_folds_are_stratified_and_forget_the_order(
    ants: int, bees: int, k: int, seed: int, shuffler: random.Random
) -> None:
    samples = make({"ant": ants, "bee": bees})
    found = splitting.folds(dataset(samples), k, seed)
    for name in ("ant", "bee"):
        counts = [sum(samples[i].label == name for i in test) for _, test in found]
        assert max(counts) - min(counts) <= 1
    assert max(len(test) for _, test in found) - min(len(test) for _, test in found) <= 1
    shuffled = shuffler.sample(samples, len(samples))
    again = splitting.folds(dataset(shuffled), k, seed)
    assert [{shuffled[i].path for i in test} for _, test in again] == [
        {samples[i].path for i in test} for _, test in found
    ]


def test_folds_spread_groups_with_all_classes_evenly() -> None:
    samples = people(20)
    for _, test in splitting.folds(dataset(samples), 5, seed=0):
        assert len({samples[i].group for i in test}) == 4
    assert [len(test) for _, test in splitting.folds(dataset(samples), 5, 0, related=[[0, 10, 20]])] == [40] * 5


def test_impossible_folds_are_errors() -> None:
    with pytest.raises(UsageError, match="at least 2 folds, found 1"):
        splitting.folds(dataset(make({"ant": 9})), 1, seed=0)
    with pytest.raises(DatasetError, match="found all those of bee in one"):
        splitting.folds(dataset(make({"ant": 9, "bee": 1})), 3, seed=0)


@given(st.integers(0, 10_000), st.integers(1, 200), SEEDS)
@settings(deadline=None)
def test_images_that_are_added_move_no_old_one(start: int, added: int, seed: int) -> None:
    # 100 images a class: no class lives by the minima, for 0.85 ** 100 is 1e-7.
    old = make({"ant": 100, "bee": 100}, start=start)
    new = make({"ant": added, "cat": added}, start=start + 100)
    before, after = sides(old, seed=seed), sides(old + new, seed=seed)
    assert {path: after[path] for path in before} == before


def test_a_tenth_more_images_moves_none(image_folder: object) -> None:
    folder = image_folder(count=50, size_px=8)  # type: ignore[operator]
    before = sides(list(readers.read(folder).samples))
    for name in ("ant", "bee"):
        for i in range(5):
            pixels = (folder / name / "000.png").read_bytes()
            (folder / name / f"a{i}.png").write_bytes(pixels + bytes([i]))  # another file, by its content
    after = sides(list(readers.read(folder).samples))
    assert len(after) == 110
    assert {path: after[path] for path in before} == before


def test_one_seed_is_one_split_and_another_seed_another() -> None:
    samples = make({"ant": 200, "bee": 200})
    assert sides(samples, seed=3) == sides(samples, seed=3)
    assert sides(samples, seed=3) != sides(samples, seed=4)


def test_the_side_is_a_threshold_on_a_salted_hash() -> None:
    samples = make({"ant": 300})
    for sample in split(samples, seed=7, test_fraction=0.2, validation_fraction=0.1)[0].samples:
        place = int(hashlib.sha256(f"7:{sample.sha256}".encode()).hexdigest()[:12], 16) / 16**12
        assert sample.split == (TEST if place < 0.2 else VALIDATION if place < 0.3 else TRAIN)


def test_the_fractions_are_met_on_average_in_every_class() -> None:
    result, notes = split(make({"ant": 4000, "bee": 4000}))
    for side, share in ((TRAIN, 0.7), (VALIDATION, 0.15), (TEST, 0.15)):
        for count in result.counts(side).values():
            assert abs(count / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5  # four standard deviations
    assert len(notes) == 1
    assert notes[0].startswith("Images: 5,")


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {TRAIN: 1}), (2, {TRAIN: 1, TEST: 1}), (3, {TRAIN: 1, VALIDATION: 1, TEST: 1})],
)
def test_small_classes_are_split_by_the_minima(count: int, expected: dict[str, int]) -> None:
    result, _ = split(make({"small": count, "large": 100}))
    assert {side: n for side in SPLITS if (n := result.counts(side)["small"])} == expected


def test_two_images_without_a_test_part_are_for_training_and_validation() -> None:
    result, notes = split(make({"small": 2, "large": 100}), test_fraction=0.0)
    assert result.counts(VALIDATION)["small"] == result.counts(TRAIN)["small"] == 1
    assert "There is no test part." in notes


def test_a_class_with_one_image_is_reported() -> None:
    _, notes = split(make({"small": 1, "large": 100}))
    assert "No test image of small: too few distinct images, or none in the given part." in notes
    assert "No validation image of small: too few distinct images, or none in the given part." in notes


def test_copies_of_one_image_count_once() -> None:
    copies = [Sample(f"copy/{i}.png", "copy", sha256=sha("copy")) for i in range(50)]
    result, _ = split(copies + make({"large": 100}))
    assert result.counts(TRAIN)["copy"] == 50


def test_one_image_in_two_classes_is_for_training_and_reported() -> None:
    torn = [Sample("ant/x.png", "ant", sha256=sha("x")), Sample("bee/x.png", "bee", sha256=sha("x"))]
    for seed in range(20):
        result, notes = split(torn + make({"ant": 30, "bee": 30}), seed=seed)
        assert {s.split for s in result.samples if s.sha256 == sha("x")} == {TRAIN}
    assert notes[-1].startswith("Byte for byte the same in two classes: 1 (such as ant/x.png, bee/x.png).")


def test_without_hashes_the_path_decides() -> None:
    samples = [replace(s, sha256="") for s in make({"ant": 100})]
    assert set(sides(samples).values()) == set(SPLITS)
    assert sides(samples) == sides(list(reversed(samples)))


def given_parts(*parts: str) -> list[Sample]:
    return [s for part in parts for s in make({"ant": 60, "bee": 60}, part)]


def before_and_after(result: Dataset) -> set[tuple[str, str]]:
    return {(s.path.split("/")[0], s.split) for s in result.samples}


def test_three_given_parts_are_kept() -> None:
    result, notes = split(given_parts(*SPLITS))
    assert before_and_after(result) == {(TRAIN, TRAIN), (VALIDATION, VALIDATION), (TEST, TEST)}
    assert notes[0] == "The given parts (train, validation, test) are kept."


def test_with_train_and_test_the_validation_is_carved_from_train() -> None:
    result, notes = split(given_parts(TRAIN, TEST))
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, VALIDATION), (TEST, TEST)}
    assert notes[0] == "The given parts (train, test) are kept. Carved from train/: validation."


def test_with_train_and_val_the_val_part_is_the_test_part() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION))
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, VALIDATION), (VALIDATION, TEST)}
    assert notes[0] == (
        "val/ is used as the test part (for no choice); validation is carved from train/. "
        "--val-as validation changes it."
    )


def test_val_as_validation_carves_the_test_part_from_train() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION), val_as="validation")
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, TEST), (VALIDATION, VALIDATION)}
    assert notes[0] == "The given parts (train, validation) are kept. Carved from train/: test."


def test_val_as_validation_without_a_test_fraction_has_no_test_part() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION), val_as="validation", test_fraction=0.0)
    assert before_and_after(result) == {(TRAIN, TRAIN), (VALIDATION, VALIDATION)}
    assert "There is no test part." in notes


def test_a_train_folder_alone_is_split_as_a_whole() -> None:
    result, notes = split(given_parts(TRAIN))
    assert before_and_after(result) == {(TRAIN, side) for side in SPLITS}
    assert notes[0] == "The given parts (train) are kept. Carved from train/: validation, test."


def test_a_split_of_a_split_changes_nothing() -> None:
    once, _ = split(given_parts(TRAIN, VALIDATION))
    assert split(list(once.samples), seed=9)[0] == once


def test_the_same_image_in_given_train_and_test_is_reported() -> None:
    leak = [Sample(f"{side}/ant/x.png", "ant", side, sha256=sha("x")) for side in (TRAIN, TEST)]
    result, notes = split(leak + given_parts(TRAIN, TEST))
    assert result.samples[1].split == TEST
    assert notes[-1] == (
        "Byte for byte the same on two sides of the given split: 1 (such as train/ant/x.png, test/ant/x.png). "
        "Scores on them flatter the model."
    )


def test_a_class_without_training_images_is_an_error() -> None:
    samples = given_parts(TRAIN) + make({"ant": 5, "cat": 5, "dog": 5}, TEST)
    with pytest.raises(DatasetError, match="expected training images of every class, found none of cat, dog"):
        split(samples)


def test_parts_without_training_images_are_an_error() -> None:
    with pytest.raises(DatasetError, match="found none of ant, bee"):
        split(given_parts(VALIDATION, TEST))


def test_nothing_to_split_is_an_error() -> None:
    with pytest.raises(DatasetError, match="expected images to split"):
        split([])


def test_a_class_missing_from_the_given_test_part_is_reported() -> None:
    _, notes = split(given_parts(TRAIN) + make({"ant": 5}, TEST))
    assert "No test image of bee: too few distinct images, or none in the given part." in notes


def test_prepare_labels_chooses_groups_and_splits(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(classes=("ant", "bee", "cat", "dog"), count=12, size_px=8)
    data = readers.read(folder)
    (tmp_path / "labels.csv").write_text("path,label,exclude\nant/000.png,bee,\nant/001.png,,yes\n")
    (tmp_path / "map.csv").write_text("old,new\nwasp,insect\nant,insect\n")
    config = DataConfig(
        labels=str(tmp_path / "labels.csv"),
        rename="bee=wasp",
        class_map=str(tmp_path / "map.csv"),
        classes="insect,cat",
        group_by=r"(\d)\.png",
    )
    result, notes = prepare(data, config)
    assert result.counts() == {"cat": 12, "insect": 23}
    assert {s.group for s in result.samples} == set("0123456789")
    assert all(len({s.split for s in result.samples if s.group == g}) == 1 for g in "0123456789")
    assert notes[:2] == [
        f"{tmp_path / 'labels.csv'}: 1 labels changed, 1 images left out.",
        f"{tmp_path / 'map.csv'}: 4 classes became 3.",
    ]
    assert prepare(data, replace(config, limit=7))[0].counts() == {"cat": 2, "insect": 5}


@pytest.mark.parametrize("change", ["rename", "map"])
def test_prepare_refuses_what_leaves_one_class(image_folder: Callable[..., Path], tmp_path: Path, change: str) -> None:
    data = readers.read(image_folder(count=6, size_px=8))
    (tmp_path / "map.csv").write_text("ant,insect\nbee,insect\n")
    config = DataConfig(rename="ant=emmet", classes="emmet")
    if change == "map":
        config = DataConfig(class_map=str(tmp_path / "map.csv"))
    with pytest.raises(DatasetError, match=r"at least 2 classes to tell apart, found (emmet|insect)\."):
        prepare(data, config)


def test_prepare_keeps_the_sides_of_a_manifest_and_names_its_hash(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = readers.read(image_folder(count=20, size_px=8))
    old, _ = prepare(replace(data, samples=data.samples[::2]), DataConfig(seed=1))
    datasets.write_manifest(old, tmp_path / "m.csv")
    result, notes = prepare(data, DataConfig(split_from=str(tmp_path / "m.csv")))
    assert result.samples[::2] == old.samples
    assert notes[:2] == [
        f"Sides are kept from {tmp_path / 'm.csv'} (sha256 {old.digest()}).",
        "Sides kept from the old split: 20 images; new ones: 20.",
    ]
    with pytest.raises(RunError, match="expected a run folder"):
        prepare(data, DataConfig(split_from=str(tmp_path)))
    for name in ("none.csv", "x" * 300):
        with pytest.raises(DatasetError, match="the manifest cannot be read"):
            prepare(data, DataConfig(split_from=str(tmp_path / name)))


@pytest.mark.real
def test_ants_and_bees_are_split_as_their_folders_say(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "ants-bees").rglob("train") if path.is_dir())
    result, _ = split(list(readers.read(folder).samples))
    assert result.counts(TEST) == {"ants": 70, "bees": 83}
    assert sum(result.counts(TRAIN).values()) + sum(result.counts(VALIDATION).values()) == 245


@pytest.mark.real
def test_photographs_of_one_hand_stay_together(real_data: Path) -> None:
    """Students signed the digits one after the other: the tens of a camera's counter tell hands, nearly."""
    folder = next(path.parent for path in (real_data / "sign-digits").rglob("0") if path.is_dir())
    result, _ = grouping.group(readers.read(folder), r"IMG_(\d{3})")
    result, _ = splitting.split(result, validation_fraction=0.15, test_fraction=0.15, seed=0)
    sides = defaultdict(set)
    for sample in result.samples:
        sides[sample.group].add(sample.split)
    assert len(sides) == 219
    assert all(len(found) == 1 for found in sides.values())
    assert all(result.counts(side)[name] > 15 for side in SPLITS for name in result.class_names)
    kept = result.samples[::10]  # nine tenths are new
    before, _ = splitting.split(
        replace(result.with_splits([""] * len(result)), samples=tuple(replace(s, split="") for s in kept)),
        validation_fraction=0.15,
        test_fraction=0.15,
        seed=0,
    )
    after = {s.path: s.split for s in result.samples}
    assert {s.path: s.split for s in before.samples} == {s.path: after[s.path] for s in before.samples}
