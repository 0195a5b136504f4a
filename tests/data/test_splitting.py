"""The split: shares that are met, by content and seed alone, and given splits that are kept."""

import hashlib
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgclf.data import collection, grouping, splitting
from imgclf.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Dataset, Sample
from imgclf.errors import DatasetError, UsageError


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


def splits_of(samples: list[Sample], **changes: object) -> dict[str, str]:
    return {s.path: s.split for s in split(samples, **changes)[0].samples}


# Few contents, so that duplicates within a class and across classes are common.
SETS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12)), min_size=1, max_size=60).map(
    lambda rows: [Sample(f"{i}.png", name, sha256=sha(content)) for i, (name, content) in enumerate(rows)]
)
FRACTIONS = st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.49])
SEEDS = st.integers(0, 5)


@given(SETS, FRACTIONS, FRACTIONS, SEEDS)
@settings(deadline=None)
def test_every_image_has_one_split_and_duplicates_share_it(
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


def place(content: str, seed: int) -> float:
    return int(sha(f"{seed}:{content}")[:12], 16) / 16**12


def by_formula(name: str, samples: list[Sample], *, validation: float, test: float, seed: int) -> dict[str, str]:
    """The splits of one class without groups, in another way: counts first, then slices in the order of places."""
    contents = {s.sha256 for s in samples if s.label == name}
    contents -= {s.sha256 for s in samples if s.label != name}
    n = len(contents)
    ordered = sorted(contents, key=lambda content: place(content, seed))
    in_test = [c for c in ordered if place(c, seed) < test]
    in_validation = [c for c in ordered if test <= place(c, seed) < test + validation]
    rest = [c for c in ordered if place(c, seed) >= test + validation]
    least = {TEST: int(test > 0 and n >= 2), VALIDATION: int(validation > 0 and n >= 2 + int(test > 0))}

    def bounds(share: float, goal: str, other: str) -> tuple[int, int]:
        counts = [k for k in range(n + 1) if abs(k - share * n) <= max(1, 0.1 * share * n) + 1e-9]
        counts = [k for k in counts if least[goal] <= k <= n - 1 - least[other]]
        return (min(counts), max(counts)) if counts and share else (0, 0)

    (low_t, high_t), (low_v, high_v) = bounds(test, TEST, VALIDATION), bounds(validation, VALIDATION, TEST)
    if len(in_test) > high_t and len(in_validation) < low_v:
        moved = min(len(in_test) - high_t, low_v - len(in_validation))
        in_test, in_validation = in_test[:-moved], in_test[-moved:] + in_validation
    elif len(in_test) < low_t and len(in_validation) > high_v:
        moved = min(low_t - len(in_test), len(in_validation) - high_v)
        in_test, in_validation = in_test + in_validation[:moved], in_validation[moved:]
    more = max(low_t - len(in_test), 0)
    in_test, rest = (in_test + rest[:more])[: max(high_t, 0)], rest[more:]
    more = max(low_v - len(in_validation), 0)
    in_validation = (in_validation + rest[:more])[: max(high_v, 0)]
    chosen = dict.fromkeys(in_test, TEST) | dict.fromkeys(in_validation, VALIDATION)
    return {content: chosen.get(content, TRAIN) for content in contents}


@given(SETS, FRACTIONS, FRACTIONS, SEEDS)
@settings(deadline=None)
def test_without_groups_the_images_nearest_to_the_thresholds_are_moved(
    samples: list[Sample], validation: float, test: float, seed: int
) -> None:
    assume(validation + test < 0.7)  # beyond, training may have none to spare, which the formula leaves out
    result, _ = split(samples, validation_fraction=validation, test_fraction=test, seed=seed)
    for name in result.class_names:
        expected = by_formula(name, samples, validation=validation, test=test, seed=seed)
        found = {s.sha256: s.split for s in result.samples if s.label == name and s.sha256 in expected}
        assert found == expected


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 150), min_size=1), FRACTIONS, FRACTIONS, SEEDS)
@settings(deadline=None)
def test_each_class_has_its_share_of_validation_and_test_images(
    counts: dict[str, int], validation: float, test: float, seed: int
) -> None:
    result, notes = split(make(counts), validation_fraction=validation, test_fraction=test, seed=seed)
    for part, share in ((VALIDATION, validation), (TEST, test)):
        for name, count in result.counts(part).items():
            assert abs(count - share * counts[name]) <= max(1, 0.1 * share * counts[name]) + 1e-9
    assert not any("instead of" in note for note in notes)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"ant": 60}, {TRAIN: range(40, 45), VALIDATION: range(8, 11), TEST: range(8, 11)}),
        ({"ant": 6, "bee": 6, "cat": 6, "dog": 6}, {TRAIN: [16], VALIDATION: [4], TEST: [4]}),
        ({"ant": 12, "bee": 12}, {TRAIN: range(16, 21), VALIDATION: range(2, 5), TEST: range(2, 5)}),
    ],
)
@pytest.mark.parametrize("seed", range(20))
def test_small_sets_are_split_as_asked(counts: dict[str, int], expected: dict[str, range], seed: int) -> None:
    result, _ = split(make(counts), seed=seed)
    for part, allowed in expected.items():
        assert sum(result.counts(part).values()) in allowed


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
    found = defaultdict(set)
    for row, sample in enumerate(result.samples):
        found[sample.sha256].add(sample.split)
        found[sample.group or row].add(sample.split)
        for number, rows in enumerate(related):
            if row in rows:
                found[f"related {number}"].add(sample.split)
    assert all(len(splits) == 1 for splits in found.values())
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
    """`count` people, each a group with images of every class."""
    return [
        Sample(f"{label}/{person}-{i}.png", label, group=f"person {person}", sha256=sha((person, label, i)))
        for person in range(count)
        for label in classes
        for i in images
    ]


@pytest.mark.parametrize("seed", range(5))
def test_images_added_to_small_groups_and_new_small_groups_move_few_old_ones(seed: int) -> None:
    old, new = people(200), people(220)
    before, after = splits_of(old, seed=seed), splits_of(new, seed=seed)
    moved = [path for path in before if before[path] != after[path]]
    assert len(moved) <= 0.04 * len(before)  # 8 people
    fuller = splits_of(people(200, range(6)), seed=seed)  # every group and so every share grows alike
    assert {path: fuller[path] for path in before} == before


def test_the_shares_of_groups_are_met_and_printed() -> None:
    for seed in range(10):
        result, notes = split(people(2000, range(1)), seed=seed)
        for name, share in ((VALIDATION, 0.15), (TEST, 0.15)):
            assert abs(result.counts(name)["a"] / 2000 - share) <= 0.015
        found = {name: sum(result.counts(name).values()) // 2 for name in SPLITS}
        assert notes[1] == f"Groups: {', '.join(f'{found[name]:,} {name}' for name in SPLITS)}."


def sizes(**groups: int) -> list[Sample]:
    """One class, with the groups of these sizes."""
    return [
        Sample(f"{name}/{i}.png", "ant", group=name, sha256=sha((name, i)))
        for name in groups
        for i in range(groups[name])
    ]


def group_splits(samples: list[Sample], **changes: object) -> dict[str, str]:
    return {s.group: s.split for s in split(samples, **changes)[0].samples}


@pytest.mark.parametrize("seed", range(10))
def test_five_equal_groups_are_three_for_training_and_one_for_each_other_split(seed: int) -> None:
    result, notes = split(people(5, range(60)), seed=seed)
    assert [sum(result.counts(name).values()) for name in SPLITS] == [360, 120, 120]
    assert notes[1:] == [
        "Groups: 3 train, 1 validation, 1 test.",
        "Images that belong together prevent the shares asked for: "
        "test has 120 of 600 images instead of 90 (+5.0%); validation has 120 of 600 images instead of 90 (+5.0%).",
    ]


def test_the_largest_group_is_for_training_and_the_rest_fills_the_split_furthest_below_its_share() -> None:
    # 100 images, 70/15/15 asked. 50: training. 28: training lacks 20, the others 15. 12: training has 8 too many.
    found = group_splits(sizes(a=12, b=50, c=28, d=10))
    assert found == {"b": TRAIN, "c": TRAIN, "a": TEST, "d": VALIDATION}
    assert group_splits(sizes(a=5, b=90, c=5)).pop("b") == TRAIN


def test_groups_of_one_class_are_assigned_class_by_class() -> None:
    samples = [s for c in "ab" for s in (replace(s, label=c, group=f"{c}-{s.group}") for s in people(5, classes=c))]
    result, notes = split(samples)
    for name in "ab":
        assert [result.counts(part)[name] for part in SPLITS] == [15, 5, 5]
    assert notes[1] == "Groups: 6 train, 2 validation, 2 test."


def test_single_images_make_up_for_large_groups() -> None:
    for seed in range(10):
        result, notes = split(sizes(a=50, b=50, c=50) + make({"ant": 100}), seed=seed)
        assert {s.split for s in result.samples if s.group} == {TRAIN}
        assert all(34 <= result.counts(name)["ant"] <= 41 for name in (VALIDATION, TEST))  # 37.5, and a tenth
        assert not any("prevent" in note for note in notes)


def test_fewer_groups_than_splits_leave_one_empty_and_that_is_said() -> None:
    for seed in range(10):
        result, notes = split(people(2), seed=seed)
        assert [sum(result.counts(name).values()) for name in SPLITS] == [10, 0, 10]
        assert "The validation split is empty: too few distinct images or groups." in notes
        assert (
            "Images that belong together prevent the shares asked for: test has 10 of 20 images instead of 3 (+35.0%); "
            "validation has 0 of 20 images instead of 3 (-15.0%)." in notes
        )


def test_all_images_in_one_group_are_for_training_and_that_is_said() -> None:
    result, notes = split(people(1))
    assert sum(result.counts(TRAIN).values()) == 10
    assert [note for note in notes if "is empty" in note] == [
        "The test split is empty: too few distinct images or groups.",
        "The validation split is empty: too few distinct images or groups.",
    ]


def test_three_groups_with_all_classes_fill_all_splits() -> None:
    for seed in range(30):
        result, _ = split(people(3), seed=seed)
        assert {s.split for s in result.samples} == set(SPLITS)


def test_one_group_for_each_class_leaves_nothing_to_test_on() -> None:
    samples = [replace(s, group=s.label) for s in make({"ant": 9, "bee": 9})]
    assert "The test split is empty: too few distinct images or groups." in split(samples)[1]


def test_images_shared_by_two_groups_join_them_and_are_named() -> None:
    shared = [Sample(f"a/x{i}.png", "a", group=f"person {i}", sha256=sha("x")) for i in (0, 1)]
    samples = people(9) + shared
    alike = [[row for row, s in enumerate(samples) if s.path in ("a/0-0.png", "b/1-3.png")]]
    for seed in range(20):
        result, notes = split(samples, seed=seed, related=alike)
        assert len({s.split for s in result.samples if s.group in ("person 0", "person 1")}) == 1
        assert notes[0] == (
            "Groups person 0, person 1 stay together, because they share images: "
            "a/0-0.png = b/1-3.png; a/x0.png = a/x1.png."
        )


def test_many_groups_with_images_in_common_are_one_line() -> None:
    pairs = [(f"person {i}", f"person {i + 1}", i, n) for i in (0, 2, 4) for n in range(5)]
    shared = [
        Sample(f"a/x{i}{n}-{own}.png", "a", group=group, sha256=sha(f"{i} {n}"))
        for *groups, i, n in pairs
        for own, group in enumerate(groups)
    ]
    _, notes = split(people(9) + shared)
    assert [note for note in notes if "stay together" in note] == [
        "Groups person 0, person 1 stay together, because they share images: a/x00-0.png = a/x00-1.png; "
        "a/x01-0.png = a/x01-1.png; a/x02-0.png = a/x02-1.png and 2 more. So do 2 more such sets of groups."
    ]


def test_groups_in_given_splits_are_not_said_to_stay_together() -> None:
    samples = [
        Sample(
            f"{group}/{n}.png",
            "ab"[n % 2],
            SPLITS[group],
            group=str(group),
            sha256=sha("x" if n == 0 else f"{group} {n}"),
        )
        for group in range(3)
        for n in range(4)
    ]
    assert not any("stay together" in note for note in split(samples)[1])


@given(st.integers(10, 110), SEEDS)
@settings(deadline=None)
def test_images_that_are_added_to_a_kept_split_move_no_old_one(added: int, seed: int) -> None:
    old, _ = split(make({"ant": 3, "bee": 100}), seed=seed)
    samples = make({"ant": 3 + added, "bee": 100 + added, "cat": added})
    result, notes = split(samples, seed=seed + 1, old=old)
    before = {s.path: s.split for s in old.samples}
    assert {s.path: s.split for s in result.samples if s.path in before} == before
    assert all(result.counts(part)[name] for name in ("ant", "bee", "cat") for part in SPLITS)
    assert notes[0] == f"Kept from the old split: 103 images; new: {3 * added}."
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


def test_a_new_image_that_joins_old_groups_moves_them_to_the_earliest_split_and_every_move_is_listed() -> None:
    old, _ = split(people(40))
    split_of = {s.group: s.split for s in old.samples}
    one, two = (next(g for g in split_of if split_of[g] == goal) for goal in (TRAIN, TEST))
    joining = [Sample(f"a/x-{g}.png", "a", group=g, sha256=sha("x")) for g in (one, two)]
    result, notes = split(people(40) + joining, old=old)
    assert {s.split for s in result.samples if s.group in (one, two)} == {TRAIN}
    moved = [s.path for s in old.samples if s.group == two]
    listing = ", ".join(f"{path} (test -> train)" for path in moved)
    assert f"Moved to another split: {len(moved)} images: {listing}." in notes
    others = {s.path: s.split for s in old.samples if s.group != two}
    assert {s.path: s.split for s in result.samples if s.path in others} == others


def test_a_new_image_of_an_old_group_goes_where_that_stands() -> None:
    old, _ = split(people(40))
    result, _ = split(people(40, range(6)), seed=5, old=old)
    split_of = {s.group: s.split for s in old.samples}
    assert all(s.split == split_of[s.group] for s in result.samples)


def test_a_split_of_other_images_cannot_be_kept() -> None:
    with pytest.raises(DatasetError, match=r"expected images of the split to keep \(1 images, 1 of them assigned\)"):
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
    assert notes[0] == "The test split is the group person 7."


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


def test_a_test_group_beside_a_given_test_split_is_an_error() -> None:
    samples = [replace(s, group=s.path.split("/")[0]) for s in given_parts(TRAIN, TEST)]
    with pytest.raises(UsageError, match="has a test split"):
        split(samples, test_group=TRAIN)


def test_a_test_group_beside_a_kept_split_holds_out_new_images_of_it_and_no_others() -> None:
    old, _ = split(people(40), test_group="person 7")
    result, _ = split(people(40, range(6)), test_group="person 7", old=old)
    assert {s.group for s in result.samples if s.split == TEST} == {"person 7"}
    with pytest.raises(UsageError, match="the split to keep has other test images"):
        split(people(40), test_group="person 8", old=old)


def test_a_group_in_two_given_splits_is_reported() -> None:
    samples = given_parts(TRAIN, TEST)
    samples = [replace(s, group="site") if s.path.endswith("ant/0.png") else s for s in samples]
    assert any(
        note.startswith("Groups in two given splits: 1 (such as that of train/ant/0.png, test/ant/0.png).")
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
    with pytest.raises(DatasetError, match="found all those of 'bee' in one"):
        splitting.folds(dataset(make({"ant": 9, "bee": 1})), 3, seed=0)


@given(st.integers(0, 10_000), SEEDS)
@settings(deadline=None)
def test_a_tenth_more_images_moves_few_old_ones_and_a_new_class_none(start: int, seed: int) -> None:
    old = make({"ant": 100, "bee": 100}, start=start)
    before = splits_of(old, seed=seed)
    after = splits_of(old + make({"cat": 50}), seed=seed)
    assert {path: after[path] for path in before} == before
    after = splits_of(old + make({"ant": 10}, start=start + 100), seed=seed)
    changed = [path for path in before if after[path] != before[path]]
    # The ten new ones and two shares that grow by 1.5 or 2 can push at most that many across the thresholds.
    assert len(changed) <= 14
    assert not any("bee" in path for path in changed)


def test_one_seed_is_one_split_and_another_seed_another() -> None:
    samples = make({"ant": 200, "bee": 200})
    assert splits_of(samples, seed=3) == splits_of(samples, seed=3)
    assert splits_of(samples, seed=3) != splits_of(samples, seed=4)


def test_most_images_follow_a_threshold_on_a_salted_hash() -> None:
    samples = make({"ant": 3000})
    unlike = 0
    for sample in split(samples, seed=7, test_fraction=0.2, validation_fraction=0.1)[0].samples:
        spot = place(sample.sha256, 7)
        unlike += sample.split != (TEST if spot < 0.2 else VALIDATION if spot < 0.3 else TRAIN)
    assert unlike == 0  # its counts by the hash alone are within a tenth of 600 and 300


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {TRAIN: 1}), (2, {TRAIN: 1, TEST: 1}), (3, {TRAIN: 1, VALIDATION: 1, TEST: 1})],
)
def test_small_classes_are_split_by_the_minima(count: int, expected: dict[str, int]) -> None:
    result, _ = split(make({"small": count, "large": 100}))
    assert {part: n for part in SPLITS if (n := result.counts(part)["small"])} == expected


def test_two_images_without_a_test_part_are_for_training_and_validation() -> None:
    result, notes = split(make({"small": 2, "large": 100}), test_fraction=0.0)
    assert result.counts(VALIDATION)["small"] == result.counts(TRAIN)["small"] == 1
    assert "The test split is empty." in notes


def test_a_class_with_one_image_is_reported() -> None:
    _, notes = split(make({"small": 1, "large": 100}))
    assert "The test split contains no images of small: too few distinct images." in notes
    assert "The validation split contains no images of small: too few distinct images." in notes


def test_copies_of_one_image_count_once() -> None:
    copies = [Sample(f"copy/{i}.png", "copy", sha256=sha("copy")) for i in range(50)]
    result, _ = split(copies + make({"large": 100}))
    assert result.counts(TRAIN)["copy"] == 50


def test_one_image_in_two_classes_is_for_training() -> None:
    torn = [Sample("ant/x.png", "ant", sha256=sha("x")), Sample("bee/x.png", "bee", sha256=sha("x"))]
    for seed in range(20):
        result, _ = split(torn + make({"ant": 30, "bee": 30}), seed=seed)
        assert {s.split for s in result.samples if s.sha256 == sha("x")} == {TRAIN}


def test_without_hashes_the_path_decides() -> None:
    samples = [replace(s, sha256="") for s in make({"ant": 100})]
    assert set(splits_of(samples).values()) == set(SPLITS)
    assert splits_of(samples) == splits_of(list(reversed(samples)))


def given_parts(*parts: str) -> list[Sample]:
    return [s for part in parts for s in make({"ant": 60, "bee": 60}, part)]


def before_and_after(result: Dataset) -> set[tuple[str, str]]:
    return {(s.path.split("/")[0], s.split) for s in result.samples}


def test_three_given_parts_are_kept() -> None:
    result, notes = split(given_parts(*SPLITS))
    assert before_and_after(result) == {(TRAIN, TRAIN), (VALIDATION, VALIDATION), (TEST, TEST)}
    assert notes[0] == "The given splits (train, validation, test) are kept."


def test_with_train_and_test_the_validation_is_carved_from_train() -> None:
    result, notes = split(given_parts(TRAIN, TEST))
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, VALIDATION), (TEST, TEST)}
    assert notes[0] == "The given splits (train, test) are kept. Carved from train/: validation."


def test_with_train_and_val_the_val_part_is_the_test_part() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION))
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, VALIDATION), (VALIDATION, TEST)}
    assert notes[0] == (
        "val/ is used as the test split (for no choice); validation is carved from train/. "
        "--val-as validation changes it."
    )


def test_val_as_validation_carves_the_test_part_from_train() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION), val_as="validation")
    assert before_and_after(result) == {(TRAIN, TRAIN), (TRAIN, TEST), (VALIDATION, VALIDATION)}
    assert notes[0] == "The given splits (train, validation) are kept. Carved from train/: test."


def test_val_as_validation_without_a_test_fraction_has_no_test_part() -> None:
    result, notes = split(given_parts(TRAIN, VALIDATION), val_as="validation", test_fraction=0.0)
    assert before_and_after(result) == {(TRAIN, TRAIN), (VALIDATION, VALIDATION)}
    assert "The test split is empty." in notes


def test_a_train_folder_alone_is_split_as_a_whole() -> None:
    result, notes = split(given_parts(TRAIN))
    assert before_and_after(result) == {(TRAIN, part) for part in SPLITS}
    assert notes[0] == "The given splits (train) are kept. Carved from train/: validation, test."


def test_a_split_of_a_split_changes_nothing() -> None:
    once, _ = split(given_parts(TRAIN, VALIDATION))
    assert split(list(once.samples), seed=9)[0] == once


def test_the_same_image_in_given_train_and_test_stays_where_it_is() -> None:
    leak = [Sample(f"{part}/ant/x.png", "ant", part, sha256=sha("x")) for part in (TRAIN, TEST)]
    result, _ = split(leak + given_parts(TRAIN, TEST))
    assert result.samples[1].split == TEST


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
    assert "The given test split contains no images of bee." in notes


@pytest.mark.real
def test_ants_and_bees_are_split_as_their_folders_say(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "ants-bees").rglob("train") if path.is_dir())
    result, _ = split(list(collection.collect(folder).samples))
    assert result.counts(TEST) == {"ants": 70, "bees": 83}
    assert sum(result.counts(TRAIN).values()) + sum(result.counts(VALIDATION).values()) == 245


@pytest.mark.real
def test_photographs_of_one_hand_stay_together(real_data: Path) -> None:
    """Students signed the digits one after the other: the tens of a camera's counter tell hands, nearly."""
    folder = next(path.parent for path in (real_data / "sign-digits").rglob("0") if path.is_dir())
    result, _ = grouping.group(collection.collect(folder), r"IMG_(\d{3})")
    result, _ = splitting.split(result, validation_fraction=0.15, test_fraction=0.15, seed=0)
    found = defaultdict(set)
    for sample in result.samples:
        found[sample.group].add(sample.split)
    assert len(found) == 219
    assert all(len(splits) == 1 for splits in found.values())
    for name in result.class_names:
        n = result.counts()[name]
        assert all(abs(result.counts(part)[name] - 0.15 * n) <= 0.3 * 0.15 * n for part in (VALIDATION, TEST))


@pytest.mark.real
def test_a_tenth_more_hand_signs_moves_at_most_one_in_a_hundred(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "sign-digits").rglob("0") if path.is_dir())
    whole = collection.collect(folder)
    old = tuple(s for i, s in enumerate(whole.samples) if i % 11)  # the eleventh is a tenth of the others
    before = splits_of(list(old))
    result, _ = split(list(whole.samples))
    after = {s.path: s.split for s in result.samples}
    assert sum(after[path] != before[path] for path in before) <= 0.01 * len(before)
    for part in (VALIDATION, TEST):
        for name, count in result.counts(part).items():
            share = 0.15 * result.counts()[name]
            assert abs(count - share) <= 0.1 * share
    kept, _ = split(list(whole.samples), old=split(list(old))[0])
    assert {s.path: s.split for s in kept.samples if s.path in before} == before
