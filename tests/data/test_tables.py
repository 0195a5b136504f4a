"""Tables of paths and labels: CSV, TSV, Parquet; what is recognized, and every fault that a table can have."""

import csv
import logging
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import imgclf
from imgclf.data import collection, tables
from imgclf.data import dataset as datasets
from imgclf.data.dataset import TEST, TRAIN, UNASSIGNED, VALIDATION
from imgclf.errors import DatasetError, MissingError, UsageError
from imgclf.settings import DataConfig, ReadConfig

Factory = Callable[..., Path]


@pytest.fixture
def flat(image_folder: Factory) -> Path:
    """A folder with the images 000.png to 007.png directly in it."""
    folder = image_folder(classes=("x",), count=8, size_px=8, name="flat")
    for path in (folder / "x").iterdir():
        path.rename(folder / path.name)
    (folder / "x").rmdir()
    return folder


def labels(dataset: datasets.Dataset) -> dict[str, str]:
    return {s.path: s.label for s in dataset.samples}


def reasons(dataset: datasets.Dataset, kind: str) -> dict[str, str]:
    return {s.path: s.reason for s in dataset.skipped if s.kind == kind}


TWO = "path,label\n000.png,ant\n001.png,bee\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", TWO),
        ("labels.tsv", TWO.replace(",", "\t")),
        ("german.csv", TWO.replace(",", ";")),
        ("windows.csv", "\ufeff" + TWO.replace("\n", "\r\n")),
        ("old-mac.csv", TWO.replace("\n", "\r")),
        ("quoted.csv", '"Image" , "Class Name"\n"000.png", "ant"\n\n"001.png", "bee"\n'),
        ("metadata.csv", "file_name,extra,label\n000.png,1,ant\n001.png,2,bee\n"),
        ("stems.csv", "id,breed\n000,ant\n001,bee\n"),
        ("folders.csv", "filepath,category\n./000.png,ant\nx/../001.png,bee\n"),
    ],
)
def test_a_flat_folder_with_a_table(flat: Path, name: str, text: str) -> None:
    (flat / name).write_bytes(text.encode())
    dataset = collection.collect(flat)
    assert labels(dataset) == {"000.png": "ant", "001.png": "bee"}
    assert reasons(dataset, "unlisted") == {f"00{i}.png": "not in the table" for i in range(2, 8)}
    assert name not in {s.path for s in dataset.skipped}
    assert labels(collection.collect(flat / name)) == labels(dataset)


def test_utf16_as_spreadsheets_write_it(flat: Path) -> None:
    (flat / "labels.tsv").write_bytes("path\tlabel\n000.png\tgröße\n001.png\t猫\n".encode("utf-16"))
    assert collection.collect(flat).class_names == ("größe", "猫")
    (flat / "labels.tsv").write_bytes((flat / "labels.tsv").read_bytes()[:-3])
    with pytest.raises(DatasetError, match=r"not a row of a table .*utf-16.*truncated"):
        collection.collect(flat / "labels.tsv")


def test_split_and_group_columns(flat: Path) -> None:
    rows = "000.png,ant,Train,p1\n001.png,bee,val,p1\n002.png,ant,TEST,p2\n003.png,bee,,\n"
    (flat / "labels.csv").write_text("path,label,split,patient_id\n" + rows)
    samples = collection.collect(flat).samples
    assert [s.split for s in samples] == [TRAIN, VALIDATION, TEST, UNASSIGNED]
    assert [s.group for s in samples] == ["p1", "p1", "p2", ""]
    assert samples[0].width == 8


def test_group_by_names_a_column(flat: Path) -> None:
    (flat / "labels.csv").write_text("path,label,patient,site\n000,ant,1,a\n001,bee,2,b\n002,bee,3,b\n003,ant,4,a\n")
    usual, by_site = DataConfig(), DataConfig(group_by="site")
    assert [s.group for s in collection.collect(flat, usual).samples] == ["1", "2", "3", "4"]
    dataset = imgclf.read(flat, by_site)
    assert [s.group for s in dataset.samples] == ["a", "b", "b", "a"]
    assert not [note for note in dataset.notes if note.startswith("--group-by")]
    strange = DataConfig(group_by="sight")
    with pytest.raises(UsageError, match=r"matches none of the paths, such as 000.png. Nor is it a column"):
        imgclf.read(flat, strange)


def test_columns_can_be_named(flat: Path) -> None:
    (flat / "labels.csv").write_text("bild,art,teil,ort,label\n000,ant,train,a,0\n001,bee,test,b,1\n")
    named = ReadConfig(path_column="bild", label_column="art", split_column="teil", group_column="ort")
    dataset = collection.collect(flat, named)
    assert [(s.label, s.split, s.group) for s in dataset.samples] == [("ant", TRAIN, "a"), ("bee", TEST, "b")]


def test_a_metadata_table_in_every_folder_of_a_split(image_folder: Factory) -> None:
    folder = image_folder(classes=("train", "test"), count=2)
    for side, text in (("train", "000.png,ant\n001.png,bee\n"), ("test", "000.png,bee\n001.png,ant\n")):
        (folder / side / "metadata.csv").write_text("file_name,label\n" + text)
    samples = collection.collect(folder).samples
    assert [(s.path, s.label, s.split) for s in samples] == [
        ("test/000.png", "bee", TEST),
        ("test/001.png", "ant", TEST),
        ("train/000.png", "ant", TRAIN),
        ("train/001.png", "bee", TRAIN),
    ]


def test_one_table_for_each_side(flat: Path) -> None:
    (flat / "train.csv").write_text(TWO)
    (flat / "test_labels.csv").write_text("path,label\n002.png,ant\n")
    assert [(s.path, s.split) for s in collection.collect(flat).samples] == [
        ("000.png", TRAIN),
        ("001.png", TRAIN),
        ("002.png", TEST),
    ]


def test_several_tables_are_an_error_that_names_them(flat: Path) -> None:
    (flat / "a.csv").write_text(TWO)
    (flat / "b.csv").write_text(TWO)
    with pytest.raises(DatasetError, match=r"several tables with paths and labels \(a\.csv, b\.csv\)\. Name the one"):
        collection.collect(flat)
    assert len(collection.collect(flat / "b.csv")) == 2


def test_a_table_stands_above_class_folders_and_says_so(
    image_folder: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    folder = image_folder(classes=("part 1", "part 2"), count=1)
    (folder / "labels.csv").write_text("image,label\n000,?\n")
    assert collection.collect(folder).class_names == ("part 1", "part 2")  # which of the two 000.png?
    (folder / "labels.csv").write_text("image,label\npart 1/000,ant\npart 2/000,bee\n")
    with caplog.at_level(logging.INFO, "imgclf"):
        assert collection.collect(folder).class_names == ("ant", "bee")
    assert "read as --layout table (labels.csv)" in caplog.text
    assert collection.collect(folder, ReadConfig(layout="folders")).class_names == ("part 1", "part 2")


def test_our_own_manifest_in_the_folder_changes_nothing(image_folder: Factory) -> None:
    folder = image_folder(count=2)
    before = collection.collect(folder)
    datasets.write_manifest(before.with_splits([TRAIN] * 4), folder / "manifest.csv")
    assert collection.collect(folder).samples == before.samples
    assert {s.split for s in collection.collect(folder, ReadConfig(layout="table")).samples} == {TRAIN}
    assert {s.split for s in collection.collect(folder / "manifest.csv").samples} == {TRAIN}


def test_tables_about_something_else_are_no_labels(image_folder: Factory) -> None:
    folder = image_folder(count=1)
    (folder / "prices.csv").write_text("name,price\nx,1\n")
    (folder / "classes.tsv").write_text("n1\tant\n")
    (folder / "elsewhere.csv").write_text("path,label\nnot/here.png,x\n")
    (folder / "empty.csv").touch()
    (folder / "corrections.csv").write_text("path,label,exclude\nant/000.png,bee,\n")
    (folder / "predictions.csv").write_text("path,label,confidence,error\nant/000.png,bee,0.9,\n")
    (folder / "evaluated.csv").write_text("path,label,predicted,confidence,p_ant\nant/000.png,bee,ant,0.9,0.9\n")
    (folder / "X.PARQUET").touch()
    assert collection.collect(folder).class_names == ("ant", "bee")


def test_a_table_given_itself_may_point_anywhere(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "labels.csv"
    table.write_text(f"path,label\n../flat/000.png,ant\n{flat / '001.png'},bee\n")
    dataset = collection.collect(table)
    assert labels(dataset) == {"../flat/000.png": "ant", "../flat/001.png": "bee"}
    assert all(path.is_file() for path in dataset.paths)
    assert (dataset.root, dataset.source, dataset.name) == (table.parent, table, "labels")
    assert collection.locate(table) == table.parent


def test_a_table_in_a_folder_reaches_nothing_outside(flat: Path, image_folder: Factory) -> None:
    secret = image_folder(name="secret", classes=("secret",), count=1) / "secret" / "s.png"
    (secret.parent / "000.png").rename(secret)
    (flat / "labels.csv").write_text(TWO + f"../secret/secret/s.png,cat\n{secret},cat\n")
    dataset = collection.collect(flat)
    assert dataset.class_names == ("ant", "bee")
    assert len(reasons(dataset, "unreadable")) == 2


def test_a_missing_file_is_named_with_its_line(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO.replace("000.png,ant", "gone.png,ant\n000.png,ant"))
    assert reasons(collection.collect(flat), "unreadable") == {"gone.png": "no such file (line 2)"}


def test_no_file_at_all_is_an_error(flat: Path) -> None:
    (flat / "labels.csv").write_text("path,label\nx.png,ant\ny.png,bee\n")
    with pytest.raises(DatasetError, match=r"not one of its paths leads to an image, such as x\.png \(no such file\)"):
        collection.collect(flat / "labels.csv")


@pytest.mark.parametrize("option", ["path_column", "label_column", "split_column", "group_column"])
def test_an_unknown_column_is_an_error_that_names_the_columns(flat: Path, option: str) -> None:
    (flat / "labels.csv").write_text(TWO)
    name = option.replace("_", "-")
    with pytest.raises(UsageError, match=rf"--{name} x: expected one column .* found 0; the columns are path, label"):
        collection.collect(flat / "labels.csv", ReadConfig(**{option: "x"}))


def test_no_column_of_labels_is_an_error_that_names_the_option(flat: Path) -> None:
    (flat / "labels.csv").write_text("path,price\n000.png,3\n")
    with pytest.raises(
        DatasetError, match=r"expected a column of labels, found the columns path, price\..*--label-col"
    ):
        collection.collect(flat / "labels.csv")
    with pytest.raises(DatasetError, match="expected a column of labels"):
        collection.collect(flat, ReadConfig(layout="table"))
    with pytest.raises(UsageError, match="--label-column none: expected one column"):
        collection.collect(flat, ReadConfig(label_column="none"))
    (flat / "prices.csv").write_text("path,price\n000.png,3\n")
    with pytest.raises(DatasetError, match=r"found none that names an image there \(labels\.csv, prices\.csv\)"):
        collection.collect(flat, ReadConfig(layout="table"))
    (flat / "prices.csv").unlink()
    (flat / "labels.csv").unlink()
    with pytest.raises(DatasetError, match=r"expected a table \(\.csv, .* found none\. Name the table itself"):
        collection.collect(flat, ReadConfig(layout="table"))


def test_a_path_twice_with_one_label_counts_once(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + "./000.png,ant\n")
    dataset = collection.collect(flat)
    assert len(dataset) == 2
    assert reasons(dataset, "duplicate") == {"000.png": "line 4 names it again, after line 2"}


def test_a_path_with_two_labels_is_an_error_with_both_lines(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + "000.png,bee\n")
    with pytest.raises(DatasetError, match=r"line 4: 000\.png is 'bee' here and 'ant' in line 2"):
        collection.collect(flat)


def test_rows_without_a_label_or_a_path_are_left_out_and_named(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + "002.png,\n003.png\n,ant\n004.png,  \n")
    assert reasons(collection.collect(flat), "unlabelled") == {
        "002.png": "no label in line 4",
        "003.png": "no label in line 5",
        "line 6": "no path in line 6",
        "004.png": "no label in line 7",
    }


def test_a_label_in_another_encoding_is_an_error_with_its_line(flat: Path) -> None:
    (flat / "labels.csv").write_bytes((TWO + "002.png,größe\n").encode("latin-1"))
    with pytest.raises(DatasetError, match=r"line 4: the class name b'gr\\xf6\\xdfe' is not UTF-8.*save the file as"):
        collection.collect(flat)


def test_a_path_in_another_encoding_is_found(flat: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (flat / "002.png").rename(flat / name)
    (flat / "labels.csv").write_bytes(os.fsencode(TWO + f"{name},ant\n"))
    assert name in labels(collection.collect(flat))


def test_a_path_in_the_other_unicode_form_is_found(flat: Path) -> None:
    (flat / "002.png").rename(flat / "cafe\u0301.png")
    (flat / "labels.csv").write_text(TWO + "caf\u00e9.png,ant\n", encoding="utf-8")
    assert "cafe\u0301.png" in labels(collection.collect(flat))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + "002.png,ant,extra\n", "line 4: expected 2 fields as in the first line, found 3"),
        ("path,label,split\n000.png,ant,fold 3\n", "line 2: expected train, validation, test or nothing"),
        ("path,label\n", "found no path with a label"),
        ("", "expected a column of paths"),
        (TWO + "x" * 200_000 + ",ant\n", "line 4: not a row of a table"),
        (TWO + '"open,ant\n002.png,bee\n', "line 4: not a row of a table .a quote opens in it and is never closed"),
        (TWO + '002.png,"open\n003.png,bee', "line 4: not a row of a table .a quote opens in it"),
    ],
)
def test_a_damaged_table_is_an_error(flat: Path, text: str, message: str) -> None:
    (flat / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        collection.collect(flat / "labels.csv")


def test_labels_with_line_breaks_and_quotes_are_read(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + '002.png,"two\nlines"\n003.png,"12"" disc\n"\n004.png,12"\n')
    assert collection.collect(flat / "labels.csv").class_names == ('12"', '12" disc', "ant", "bee", "two\nlines")


def test_a_path_longer_than_paths_can_be_is_named(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + "x" * 300 + ".png,ant\n")
    for data in (flat, flat / "labels.csv"):
        assert list(reasons(collection.collect(data), "unreadable").values()) == ["no such file (line 4)"]


def test_a_table_that_cannot_be_read_is_an_error(flat: Path) -> None:
    (flat / "labels.csv").mkdir()
    with pytest.raises(DatasetError, match="the table cannot be read"):
        tables.open_table(flat / "labels.csv")


def test_an_unreadable_image_of_a_table_is_named(flat: Path) -> None:
    (flat / "labels.csv").write_text(TWO + "002.png,ant\n")
    (flat / "002.png").write_bytes(b"")
    assert reasons(collection.collect(flat), "unreadable") == {"002.png": "an empty file"}


def test_parquet_without_pyarrow_says_what_to_install(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgclf.environment.has_package", lambda name: False)
    (flat / "labels.parquet").touch()
    with pytest.raises(MissingError, match=r"pip install 'imgclf\[parquet\]'"):
        collection.collect(flat / "labels.parquet")


def test_parquet_is_read_as_csv_is(flat: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"path": ["000.png", "001.png", "002.png"], "label": [3, 4, None], "split": ["train", None, "test"]}
    parquet.write_table(pyarrow.table(columns), flat / "labels.parquet")
    dataset = collection.collect(flat)
    assert [(s.path, s.label, s.split) for s in dataset.samples] == [("000.png", "3", TRAIN), ("001.png", "4", "")]
    assert reasons(dataset, "unlabelled") == {"002.png": "no label in line 4"}
    (flat / "labels.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(DatasetError, match="not a Parquet file, or a damaged one"):
        collection.collect(flat / "labels.parquet")


LETTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\")
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda text: text == text.strip() and text[0] != ".")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=8, unique_by=lambda row: row[0].casefold()))
def test_a_table_reads_back_what_was_written_in_any_order(flat: Path, rows: list[tuple[str, str]]) -> None:
    folder = flat.parent / "any"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, _ in rows:
        shutil.copyfile(flat / "000.png", folder / f"{name}.png")
    found = []
    for order in (rows, rows[::-1]):
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *((f"{name}.png", text) for name, text in order)])
        found.append(collection.collect(folder / "labels.csv", min_classes=1))
    assert found[0].samples == found[1].samples
    assert {(s.path, s.label) for s in found[0].samples} == {
        (f"{name}.png", unicodedata.normalize("NFC", text)) for name, text in rows
    }


@pytest.fixture
def placed(image_folder: Factory) -> Path:
    """A folder with ants/000.png and 001.png, and bees/000.png and 001.png."""
    return image_folder(classes=("ants", "bees"), count=2, size_px=8, name="placed")


FOUR = [("ants/000.png", "a"), ("ants/001.png", "a"), ("bees/000.png", "b"), ("bees/001.png", "b")]


@pytest.mark.parametrize(
    "written",
    [
        r"C:\Users\me\photos\{}",
        r"\\server\share\photos\{}",
        "/content/drive/MyDrive/photos/{}",
        "~/photos/{}",
        "https://example.org/photos/{}?X-Amz-Signature=1#top",
        "gs://bucket/photos/{}",
        "file:///somewhere/else/{}",
        "/data/local-files/?d=photos/{}",
        "photos-of-last-year/{}",
        "./photos/{}",
    ],
)
def test_paths_of_other_machines_are_matched_by_their_last_parts(
    placed: Path, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    slash = "\\" if "\\" in written else "/"
    rows = [f"{written.format(path.replace('/', slash))},{name}\n" for path, name in FOUR]
    (placed / "labels.csv").write_text("path,label\n" + "".join(rows))
    with caplog.at_level(logging.INFO, "imgclf"):
        assert labels(collection.collect(placed)) == dict(FOUR)
    assert "4 of 4 paths matched by their last parts, such as" in caplog.text
    assert labels(collection.collect(placed / "labels.csv")) == dict(FOUR)


def test_uploads_of_label_studio_are_found_by_their_names(flat: Path) -> None:
    rows = "/data/upload/1/3f2a1b4c-000.png,ant\n/data/upload/2/001.png,bee\n/data/upload/2/00%32.png,bee\n"
    (flat / "export.csv").write_text("image,choice\n" + rows)
    for columns in (ReadConfig(label_column="choice"), ReadConfig()):
        dataset = collection.collect(flat, columns)
        assert labels(dataset) == {"000.png": "ant", "001.png": "bee", "002.png": "bee"}


def test_a_file_address_is_a_path(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        f"path,label\n{(flat / '000.png').as_uri()},ant\n{flat.as_uri()}/001.png,bee\n"
    )
    assert labels(collection.collect(tmp_path / "labels.csv")) == {"flat/000.png": "ant", "flat/001.png": "bee"}


def test_a_missing_file_is_not_replaced_by_a_namesake_of_another_folder(placed: Path) -> None:
    (placed / "ants/000.png").unlink()
    rows = "".join(f"/content/{path},{name}\n" for path, name in FOUR)
    (placed / "labels.csv").write_text("path,label\n" + rows)
    dataset = collection.collect(placed)
    assert labels(dataset) == dict(FOUR[1:])
    assert reasons(dataset, "unreadable") == {"/content/ants/000.png": "no such file (line 2)"}
    (placed / "labels.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in FOUR))
    assert labels(collection.collect(placed)) == dict(FOUR[1:])


def test_names_that_several_files_have_are_not_guessed(placed: Path) -> None:
    (placed / "labels.csv").write_text("path,label\n/content/000.png,a\n/content/001.png,b\n")
    with pytest.raises(DatasetError, match=r"not one of its paths leads to an image, such as /content/000\.png"):
        collection.collect(placed / "labels.csv")


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npath;label\n000.png;a,nt\n001.png;bee\n",
        '"sep=|"\r\npath|label\r\n000.png|a,nt\r\n001.png|bee\r\n',
        "\ufeffSEP=\t\npath\tlabel\n000.png\ta,nt\n001.png\tbee\n",
        '000.png,"a,nt"\n001.png,bee\n',
        '"a,nt";000.png\nbee;001.png\n',
        "\ufeff000.png\ta,nt\r\n001.png\tbee\r\n",
    ],
)
def test_a_line_that_names_the_separator_or_no_header(flat: Path, text: str) -> None:
    (flat / "labels.csv").write_bytes(text.encode())
    assert labels(collection.collect(flat)) == {"000.png": "a,nt", "001.png": "bee"}
    (flat / "labels.csv").write_bytes(text.removeprefix("\ufeff").encode("utf-16-le"))  # without its mark
    assert labels(collection.collect(flat)) == {"000.png": "a,nt", "001.png": "bee"}


def test_columns_without_a_header_have_numbers(flat: Path) -> None:
    (flat / "labels.csv").write_text("1,000.png,ant\n2,001.png,bee\n")
    with pytest.raises(DatasetError, match=r"found the columns 1, path, 3 .numbered, .* Name it with --label-column"):
        collection.collect(flat / "labels.csv")
    assert labels(collection.collect(flat, ReadConfig(label_column="3"))) == {"000.png": "ant", "001.png": "bee"}


def test_a_one_hot_table_is_an_error_that_names_both_ways(flat: Path) -> None:
    (flat / "_classes.csv").write_text("filename, ant, bee, wasp\n000.png,1,0,0\n001.png, 0, 1, 1\n")
    for data in (flat, flat / "_classes.csv"):
        with pytest.raises(DatasetError, match=r"each of ant, bee, wasp.*--task multilabel.*--label-column"):
            collection.collect(data)


def test_an_unusable_table_is_named_with_its_reason(placed: Path, flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    (flat / "notes.csv").write_text("path,remark\n000.png,blurred\n")
    with pytest.raises(
        DatasetError, match=r"no class folders.*cannot be used.*notes\.csv: expected a column of labels"
    ):
        collection.collect(flat)
    (placed / "labels.csv").write_text("path,label\nelsewhere/x.png,ant\n")
    with caplog.at_level(logging.INFO, "imgclf"):
        assert collection.collect(placed).class_names == ("ants", "bees")
    assert "Not used as a table of labels:" in caplog.text
    assert "not one of its first 1 paths leads to an image in the folder, such as elsewhere/x.png" in caplog.text


def test_split_names_give_words_of_a_table_their_meaning(flat: Path) -> None:
    rows = "000.png,ant,trn\n001.png,bee,Test set\n002.png,ant,junk\n003.png,bee,?\n"
    (flat / "labels.csv").write_text("path,label,split\n" + rows)
    with pytest.raises(DatasetError, match=r"line 2: .* found 'trn'\. Say what it means with --split-names trn=train"):
        collection.collect(flat)
    dataset = collection.collect(flat, ReadConfig(split_names="trn=train,junk=none,?=any"))
    assert {s.path: s.split for s in dataset.samples} == {"000.png": TRAIN, "001.png": TEST, "003.png": UNASSIGNED}
    assert reasons(dataset, "excluded") == {"002.png": "left out by --split-names"}


def test_a_manifest_is_not_read_with_other_images_of_the_same_names(placed: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    datasets.write_manifest(collection.collect(placed), manifest)
    assert len(collection.collect(manifest)) == 4  # found by the ends of their paths
    shutil.copyfile(placed / "bees/000.png", placed / "ants/000.png")
    with pytest.raises(DatasetError, match=r"by their SHA-256, found other content in 1 of 4 files: placed/ants/000"):
        collection.collect(manifest)


NAMES_OF_OURS = [
    " dog",
    "dog",
    "dog ",
    "=1+1",
    "'=1+1",
    "-1",
    'a,b"c',
    "a;b",
    "two\nlines",
    "\ttab",
    "ca\rr",
    "'quoted'",
    "é",
]


def test_every_class_name_survives_our_own_tables(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=tuple(NAMES_OF_OURS), count=2, size_px=8)
    shutil.copyfile(folder / " dog/000.png", folder / " dog/copy of 000.png")
    found = imgclf.ingest(folder, output=tmp_path / "m.csv", quarantine=tmp_path / "q.csv")
    known = {s.path: s.label for s in found.dataset.samples}
    assert set(known.values()) == set(NAMES_OF_OURS)
    assert {s.path: s.label for s in datasets.read_manifest(tmp_path / "m.csv", folder).samples} == known
    assert sorted(labels(collection.collect(tmp_path / "m.csv")).values()) == sorted(known.values())
    kept = imgclf.read(folder, DataConfig(exclude=str(tmp_path / "q.csv")))
    assert len(kept) == len(known) - 1
    for name in NAMES_OF_OURS:
        one = '"' + name.replace('"', '""') + '"'
        only = imgclf.read(folder, DataConfig(classes=one), split=False)
        assert {s.label for s in only.samples} == {name}
        with (tmp_path / "fix.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), (f"{name}/000.png", "dog "), ("é/001.png", name)])
        fixed = labels(imgclf.read(folder, DataConfig(labels=str(tmp_path / "fix.csv"))))
        assert fixed["é/001.png"] == name
        assert name == "é" or fixed[f"{name}/000.png"] == "dog "
