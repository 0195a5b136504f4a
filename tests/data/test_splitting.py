"""The split: every image on one side, by content and seed alone, and given sides kept."""

import hashlib
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data import readers, splitting
from imgclf.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Dataset, Sample
from imgclf.errors import DatasetError


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


@pytest.mark.real
def test_ants_and_bees_are_split_as_their_folders_say(real_data: Path) -> None:
    folder = next(path.parent for path in (real_data / "ants-bees").rglob("train") if path.is_dir())
    result, _ = split(list(readers.read(folder).samples))
    assert result.counts(TEST) == {"ants": 70, "bees": 83}
    assert sum(result.counts(TRAIN).values()) + sum(result.counts(VALIDATION).values()) == 245
