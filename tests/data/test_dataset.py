"""The dataset's counts, labels and digest, and the manifest that reads back exactly."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgclf.data import dataset as datasets
from imgclf.data.dataset import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, Dataset, Sample, Skipped
from imgclf.errors import DatasetError

SAMPLES = (
    Sample("ant/1.png", "ant", TRAIN, "", "aa", 30, 20, "PNG"),
    Sample("ant/2.jpg", "ant", TEST, "", "bb", 10, 10, "JPEG"),
    Sample("bee/1.jpg", "bee", TRAIN, "site 1", "cc", 90, 80, "JPEG"),
)
SKIPPED = (
    Skipped("ant/bad.jpg", "unreadable", "an empty file"),
    Skipped("ant/.x", "hidden", "its name begins with a dot"),
    Skipped("cat", "empty-class", "a folder without images"),
)
ANIMALS = Dataset(Path("animals"), SAMPLES, ("ant", "bee"), SKIPPED)


def test_labels_are_places_in_the_class_names() -> None:
    assert ANIMALS.labels.tolist() == [0, 0, 1]
    assert ANIMALS.labels.dtype == np.int64
    assert replace(ANIMALS, class_names=("bee", "ant")).labels.tolist() == [1, 1, 0]
    assert replace(ANIMALS, class_names=("ant",)).labels.tolist() == [0, 0, -1]


def test_a_part_keeps_all_class_names() -> None:
    part = ANIMALS.part(TEST)
    assert (part.samples, part.class_names, part.skipped) == (SAMPLES[1:2], ("ant", "bee"), ())
    assert part.counts() == {"ant": 1, "bee": 0}


def test_counts_on_one_side_and_in_all() -> None:
    assert ANIMALS.counts() == {"ant": 2, "bee": 1}
    assert ANIMALS.counts(TRAIN) == {"ant": 1, "bee": 1}
    assert ANIMALS.counts(VALIDATION) == {"ant": 0, "bee": 0}


def test_paths_are_below_the_root() -> None:
    assert ANIMALS.paths[0] == Path("animals/ant/1.png")


def test_new_sides_must_be_as_many_as_samples() -> None:
    assert [s.split for s in ANIMALS.with_splits([TEST] * 3).samples] == [TEST] * 3
    with pytest.raises(ValueError, match="shorter"):
        ANIMALS.with_splits([TEST])


def test_summary_counts_and_names() -> None:
    summary = ANIMALS.summary()
    assert summary["images"] == 3
    assert summary["classes"]["ant"] == {"images": 2, "train": 1, "validation": 0, "test": 1}
    assert summary["sizes"] == {"smallest": [10, 10], "median": [30, 20], "largest": [90, 80]}
    assert summary["formats"] == {"JPEG": 2, "PNG": 1}
    assert summary["skipped"] == {"empty-class": 1, "hidden": 1, "unreadable": 1}
    assert summary["unreadable"] == [{"path": "ant/bad.jpg", "reason": "an empty file"}]
    assert summary["empty_classes"] == ["cat"]
    assert summary["sha256"] == ANIMALS.digest()


def test_summary_of_nothing() -> None:
    assert Dataset(Path(), (), ()).summary()["sizes"] == {}


def test_the_digest_forgets_order_and_place_and_nothing_else() -> None:
    shuffled = list(SAMPLES)
    random.Random(3).shuffle(shuffled)
    moved = [replace(s, path=f"elsewhere/{s.path}") for s in shuffled]
    assert Dataset(Path("copy"), tuple(moved), ("bee", "ant")).digest() == ANIMALS.digest()
    for change in ({"sha256": "dd"}, {"label": "bee"}, {"split": VALIDATION}, {"group": "site 2"}):
        changed = replace(ANIMALS, samples=(replace(SAMPLES[0], **change), *SAMPLES[1:]))
        assert changed.digest() != ANIMALS.digest()


def test_listed_names_the_first_ones_and_escapes_control_characters() -> None:
    assert datasets.listed(["a", "b"]) == "a, b"
    assert datasets.listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert datasets.listed(["a\nb", "größe", "\udce9"]) == r"'a\nb', größe, '\udce9'"


def test_the_manifest_is_plain_csv(tmp_path: Path) -> None:
    datasets.write_manifest(ANIMALS, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_bytes() == (
        b"path,label,split,group,sha256,width,height,format\n"
        b"ant/1.png,ant,train,,aa,30,20,PNG\n"
        b"ant/2.jpg,ant,test,,bb,10,10,JPEG\n"
        b"bee/1.jpg,bee,train,site 1,cc,90,80,JPEG\n"
    )


# Any text that a file system can hold, with the characters that CSV trips over often; surrogates stand for other bytes.
TEXT = st.text(st.one_of(st.sampled_from('\r\n",; é\udce9'), st.characters(exclude_categories=["Cs"])))
PATHS = TEXT.filter(lambda text: text != "" and "\0" not in text)
ROWS = st.lists(
    st.builds(
        Sample,
        path=PATHS,
        label=PATHS,
        split=st.sampled_from((*SPLITS, UNASSIGNED)),
        group=TEXT.filter(lambda text: "\0" not in text),
        sha256=st.text("0123456789abcdef", max_size=64),
        width=st.integers(0, 10**6),
        height=st.integers(0, 10**6),
        format=st.sampled_from(("JPEG", "PNG", "")),
    ),
    max_size=8,
)


def as_bytes(sample: Sample) -> Sample:
    """The same with texts as the file system's bytes see them."""
    texts = {key: getattr(sample, key).encode("utf-8", "surrogateescape") for key in ("path", "label", "group")}
    return replace(sample, **texts)


@given(ROWS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_reads_back_exactly(tmp_path: Path, rows: list[Sample]) -> None:
    written = Dataset(tmp_path, tuple(rows), tuple(sorted({s.label for s in rows})))
    datasets.write_manifest(written, tmp_path / "m.csv")
    back = datasets.read_manifest(tmp_path / "m.csv", tmp_path)
    assert [as_bytes(s) for s in back.samples] == [as_bytes(s) for s in rows]
    assert back.digest() == written.digest()


def test_class_names_may_be_given(tmp_path: Path) -> None:
    datasets.write_manifest(ANIMALS, tmp_path / "m.csv")
    back = datasets.read_manifest(tmp_path / "m.csv", Path("animals"), ["bee", "ant"])
    assert back == replace(ANIMALS, class_names=("bee", "ant"))


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    datasets.write_manifest(ANIMALS, tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "m.csv").read_bytes().replace(b"\n", b"\r\n"))
    assert datasets.read_manifest(tmp_path / "m.csv", Path("animals")) == ANIMALS


HEAD = b"path,label,split,group,sha256,width,height,format\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "path, label, split, .* not found"),
        (b"path,label\na.png,ant\n", "split, group, sha256, width, height, format not found"),
        (HEAD + b"a.png,ant\n", "line 2: not a manifest's row .expected 8 fields"),
        (HEAD + b"a.png,ant,,,,1,1,PNG\n,ant,,,,1,1,PNG\n", "line 3: .*beginning with a path"),
        (HEAD + b"a.png,ant,,,,wide,1,PNG\n", "line 2: .*'wide'"),
        (HEAD + b"a.png,ant,holdout,,,1,1,PNG\n", "line 2: .*'holdout'"),
        (HEAD + b"a\rb.png,ant,,,,1,1,PNG\n", "line 2"),
        (HEAD + b"x" * 200_000 + b",ant,,,,1,1,PNG\n", "field larger than"),
    ],
)
def test_a_damaged_manifest_is_an_error_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        datasets.read_manifest(tmp_path / "m.csv", tmp_path)


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the manifest cannot be read"):
        datasets.read_manifest(tmp_path / "none.csv", tmp_path)


def test_a_dataset_is_shown_in_one_line_however_many_images_it_has() -> None:
    samples = [Sample(f"a/{number}.jpg", "a", TRAIN if number else "") for number in range(2000)]
    shown = repr(Dataset(Path("data"), tuple(samples), ("a", "b")))
    assert shown == "<Dataset 'data': 2,000 images (1 without a split, 1,999 train) of 2 classes, 0 files skipped>"
