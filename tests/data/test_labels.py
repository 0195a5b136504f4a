"""Corrected labels, renamed and merged classes: other labels, the same files."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data import labels
from imgclf.data.dataset import Dataset, Sample, Skipped
from imgclf.errors import DatasetError

SAMPLES = tuple(Sample(f"{name}/{i}.png", name, sha256=f"{name}{i}") for name in ("ant", "bee", "cat") for i in (1, 2))
ANIMALS = Dataset(Path("animals"), SAMPLES, ("ant", "bee", "cat"), (Skipped("bee/bad.png", "unreadable", "empty"),))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def label_of(dataset: Dataset) -> dict[str, str]:
    return {s.path: s.label for s in dataset.samples}


def test_a_table_corrects_labels_and_leaves_images_out(table: Path) -> None:
    table.write_text("path,label,exclude\nant/1.png, bee ,\nbee/2.png,,1\ncat/1.png,cat,no\nbee/bad.png,bee,\n")
    result, notes = labels.correct(ANIMALS, table)
    expected = {s.path: s.label for s in SAMPLES if s.path != "bee/2.png"} | {"ant/1.png": "bee"}
    assert label_of(result) == expected
    assert result.class_names == ("ant", "bee", "cat")
    assert [(s.path, s.kind) for s in result.skipped] == [("bee/2.png", "excluded"), ("bee/bad.png", "unreadable")]
    assert notes == [f"{table}: labels changed: 1; images left out: 1."]
    assert [s.sha256 for s in result.samples] == [s.sha256 for s in SAMPLES if s.path != "bee/2.png"]


def test_a_table_may_have_tabs_other_columns_and_another_order(table: Path) -> None:
    table.write_text("note\tlabel\tpath\nblurred, but clear\tbee\tant/1.png\n")
    assert label_of(labels.correct(ANIMALS, table)[0])["ant/1.png"] == "bee"


def test_a_table_may_be_as_spreadsheets_write_it_and_name_any_path(table: Path) -> None:
    table.write_text("path;label\r\nant/1.png;bee\r\n;\r\n")
    assert label_of(labels.correct(ANIMALS, table)[0])["ant/1.png"] == "bee"
    odd = replace(ANIMALS, samples=(*SAMPLES, Sample(os.fsdecode(b"ant/caf\xe9.png"), "ant")))
    table.write_bytes(b"path,label\nant/caf\xe9.png,bee\n")
    assert label_of(labels.correct(odd, table)[0])[os.fsdecode(b"ant/caf\xe9.png")] == "bee"


def test_new_classes_and_emptied_ones_are_reported(table: Path) -> None:
    table.write_text("path,label\nant/1.png,wasp\ncat/1.png,bee\ncat/2.png,bee\n")
    result, notes = labels.correct(ANIMALS, table)
    assert result.class_names == ("ant", "bee", "wasp")
    assert notes[1:] == ["New classes: wasp.", "Classes without images now: cat."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns path and label, found no path, label"),
        (b"path,class\n", "found no label"),
        (b"path,label\nant/9.png,ant\n", "line 2: .* below animals, such as ant/1.png, found 'ant/9.png'"),
        (b"path,label\nant/1.png,ant\n\nant/1.png,bee\n", "line 4: 'ant/1.png' is listed in an earlier line, too"),
        (b"path,label\nant/1.png,\n", "line 2: expected a label for 'ant/1.png', found none"),
        (b"path,label\nant/1.png\n", "line 2: expected a label for 'ant/1.png', found none"),
        (
            b"path,label,exclude\nant/1.png,ant,maybe\n",
            "line 2: expected 1, true, yes, x, or 0, false, no or nothing for exclude, found 'maybe'",
        ),
        ("path,label\nant/1.png,größe\n".encode("latin-1"), "line 2: the class name .* is not UTF-8.*save the file as"),
        (b'path,label\n"ant/1.png,ant\nant/2.png,bee\n', "line 2: not a row of a table .a quote opens in it and"),
        (b"path,label\nant/1.png,worker, old\n", "line 2: expected 2 fields as in the first line, found 3"),
    ],
)
def test_a_wrong_table_is_an_error_with_its_line(table: Path, content: bytes, message: str) -> None:
    table.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        labels.correct(ANIMALS, table)


def test_a_missing_table_is_an_error(table: Path) -> None:
    with pytest.raises(DatasetError, match="the table cannot be read"):
        labels.correct(ANIMALS, table)


def test_classes_are_renamed_all_at_once() -> None:
    result, notes = labels.rename(ANIMALS, {"ant": "bee", "bee": "ant", "cat": "dog"})
    assert result.class_names == ("ant", "bee", "dog")
    assert label_of(result)["ant/1.png"] == "bee"
    assert label_of(result)["bee/1.png"] == "ant"
    assert labels.rename(result, {"ant": "bee", "bee": "ant", "dog": "cat"}) == (ANIMALS, [])
    assert notes == []


@pytest.mark.parametrize("names", [{"ant": "bee"}, {"ant": "x", "bee": "x"}])
def test_classes_that_get_one_name_are_merged_with_a_note(names: dict[str, str]) -> None:
    result, notes = labels.rename(ANIMALS, names)
    new = next(iter(names.values()))
    counts = ANIMALS.counts()
    assert result.counts() == {"cat": counts["cat"], new: counts["ant"] + counts["bee"]}
    assert notes == [f"Merged into {new!r}: ant, bee."]


def test_names_in_an_order_of_their_own_keep_it() -> None:
    numbers = replace(ANIMALS, class_names=("cat", "ant", "bee"))
    assert labels.rename(numbers, {"ant": "zebra"})[0].class_names == ("cat", "zebra", "bee")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"dog": "cat"}, "no class 'dog'; the classes are ant, bee, cat"),
        ({"ant": "caf\udce9"}, "--rename: the class name b'caf.*' is not UTF-8"),
    ],
)
def test_an_impossible_renaming_is_an_error(names: dict[str, str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        labels.rename(ANIMALS, names)


@pytest.mark.parametrize(
    "content", ["old,new\nant,insect\nbee,insect\ndog,pet\n", "ant\tinsect\nbee\tinsect\ndog\tpet"]
)
def test_a_table_merges_classes(table: Path, content: str) -> None:
    table.write_text(content)
    result, notes = labels.merge(ANIMALS, table)
    assert result.class_names == ("cat", "insect")
    assert result.counts() == {"cat": 2, "insect": 4}
    assert notes == [f"{table}: 3 classes became 2.", f"{table}: no such classes here: dog."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ant,insect,x\n", "line 1: expected an old and a new name, found 'ant,insect,x'"),
        ("old,new\nant,\n", "line 2: expected an old and a new name"),
        ("ant,a\nant,b\n", "line 2: 'ant' has another new name in an earlier line"),
        ("dog,pet\n", "expected names of the classes .ant, bee, cat., found dog"),
        ("old,new\n", "found none"),
    ],
)
def test_a_wrong_map_is_an_error(table: Path, content: str, message: str) -> None:
    table.write_text(content)
    with pytest.raises(DatasetError, match=message):
        labels.merge(ANIMALS, table)


@given(st.dictionaries(st.sampled_from(["ant", "bee", "cat"]), st.sampled_from(["ant", "bee", "x", "y"]), min_size=1))
@settings(deadline=None)
def test_merging_maps_every_label_and_leaves_the_rest(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, str]
) -> None:
    table = tmp_path_factory.mktemp("map") / "map.csv"
    table.write_text("".join(f"{old},{new}\n" for old, new in names.items()))
    result, _ = labels.merge(ANIMALS, table)
    assert [s.label for s in result.samples] == [names.get(s.label, s.label) for s in SAMPLES]
    assert [replace(s, label="") for s in result.samples] == [replace(s, label="") for s in SAMPLES]
    assert result.class_names == tuple(sorted({s.label for s in result.samples}))
