"""imgclf ingest, run as the command line runs it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imgclf.cli import app
from imgclf.data import collection, images, splitting
from imgclf.data import dataset as datasets
from imgclf.settings import TrainConfig

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `imgclf ingest` with arguments and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["imgclf", "ingest", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_it_prints_classes_counts_sizes_and_formats(ingest: Run, image_folder: Callable[..., Path]) -> None:
    code, out, err = ingest(image_folder(count=30, size_px=20))
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [row[:2] for row in rows] == [["ant", "30"], ["bee", "30"], ["all", "60"]]
    assert all(sum(map(int, row[2:])) == int(row[1]) for row in rows)
    assert "sizes: smallest 20 x 20, median 20 x 20, largest 20 x 20 px" in out
    assert "formats: PNG 60" in out
    assert "skipped" not in out
    assert err.startswith("Images: ")


def test_it_names_what_cannot_be_read(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=3)
    (folder / "ant/.DS_Store").touch()
    (folder / "ant/notes.txt").touch()
    (folder / "ant/[red]zero[bold].jpg").touch()
    (folder / "bee/new\nline.jpg").write_text("404")
    (folder / "cat").mkdir()
    code, out, _ = ingest(folder)
    assert code == 0
    assert "left out besides: hidden 1\n" in out  # what the findings name, they count
    assert "error: empty 1, left out: ant/[red]zero[bold].jpg" in out
    assert r"error: not-an-image 1, left out: 'bee/new\nline.jpg'" in out
    assert "warning: empty-class 1, left out: cat" in out
    assert "note: other-file 1, left out: ant/notes.txt" in out


def test_many_findings_are_one_line_in_print_and_whole_in_json(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=3)
    for number in range(25):
        (folder / f"ant/zero{number:02}.jpg").touch()
    _, out, _ = ingest(folder)
    assert "error: empty 25, left out: ant/zero00.jpg, ant/zero01.jpg and 23 more" in out
    _, out, _ = ingest(folder, "--json")
    found = json.loads(out)
    assert len(found["unreadable"]) == 25
    empty = [finding for finding in found["doctor"]["findings"] if finding["kind"] == "empty"]
    assert [finding["paths"] for finding in empty] == [[f"ant/zero{number:02}.jpg"] for number in range(25)]


def test_the_summary_has_at_most_25_lines(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(classes=tuple(f"class {n:02}" for n in range(30)), count=2)
    (folder / "Class 01").mkdir()
    for number, name in enumerate(("a.webp", "b.gif", "c.JPG", "d.bmp")):
        Image.new("RGB", (3 + number, 200), (number, 0, 0)).save(folder / "class 01" / name)
    Image.new("RGB", (40, 40)).save(folder / "Class 01/blank.png")
    (folder / "class 02/broken.png").write_bytes((folder / "class 02/000.png").read_bytes()[:200])
    (folder / "class 02/empty.png").touch()
    (folder / "class 02/no.png").write_text("no")
    (folder / "class 03/copy.png").write_bytes((folder / "class 02/001.png").read_bytes())
    (folder / "class 04/copy.jpg").write_bytes((folder / "class 04/001.png").read_bytes())
    code, out, _ = ingest(folder)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 25)
    assert "24 more" in out
    assert "error: conflict 2, the same image in two classes; one label must be wrong; used in one split only: " in out
    assert "more kinds of findings; --json and --report list all" in lines[-1]


def test_fail_on_ends_with_6_after_everything_is_printed(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=12)
    assert ingest(folder, "--fail-on", "unreadable,error")[0] == 0
    (folder / "ant/empty.png").touch()
    code, out, err = ingest(folder, "--fail-on", "error", "--quarantine", tmp_path / "out.csv")
    assert (code, "Error: --fail-on: found empty 1." in err) == (6, True)
    assert "error: empty 1" in out
    assert (tmp_path / "out.csv").read_text() == "path,kind\nant/empty.png,empty\n"
    code, _, err = ingest(folder, "--fail-on", "leakage,rust")
    assert (code, "found 'rust'" in err) == (2, True)


def test_exclude_leaves_out_what_quarantine_wrote(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=12)
    for name in ("ant/copy.png", "bee/copy.png"):
        (folder / name).write_bytes((folder / "ant/000.png").read_bytes())
    (folder / "bee/again.png").write_bytes((folder / "bee/001.png").read_bytes())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.png")}
    _, out, _ = ingest(folder, "--quarantine", tmp_path / "out.csv")
    assert "error: conflict 3" in out
    _, out, err = ingest(folder, "--exclude", tmp_path / "out.csv", "--json")
    found = json.loads(out)
    assert "images left out: 4" in err
    assert found["images"] == 27 - 4
    assert {kind["kind"] for kind in found["doctor"]["kinds"]} == set()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.png")} == before


def test_thresholds_are_settable_stated_and_checked(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=12)
    _, out, _ = ingest(folder, "--json", "--thresholds", "small-px=33, aspect=5")
    found = json.loads(out)["doctor"]
    assert (found["thresholds"]["small_px"], found["thresholds"]["aspect"]) == (33, 5)
    assert [(kind["kind"], kind["files"]) for kind in found["kinds"]] == [("very-small", 24)]
    assert found["findings"][0]["text"] == "32 x 32 px, below 33"
    code, _, err = ingest(folder, "--thresholds", "blury=1")
    assert (code, "names such as blurry" in err) == (2, True)
    assert ingest(folder, "--thresholds", "dark=-1")[0] == ingest(folder, "--thresholds", "dark=x")[0] == 2


def test_a_report_that_cannot_be_written_is_an_error(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=12)
    (tmp_path / "file").touch()
    code, _, err = ingest(folder, "--report", tmp_path / "file/report.html")
    assert (code, "the report cannot be written" in err) == (2, True)
    assert ingest(folder, "--report", tmp_path / "file")[0] == 2


def test_a_folder_of_broken_files_alone_is_an_error(ingest: Run, tmp_path: Path) -> None:
    for name in ("ant/a.png", "ant/b.jpg", "bee/c.png"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / name).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    code, out, err = ingest(tmp_path / "bad")
    assert (code, out) == (3, "")
    assert "3 images cannot be read, such as ant/a.png" in err


def test_json_is_the_summary_of_the_split_dataset(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=20)
    code, out, err = ingest(folder, "--json", "--quiet", "--seed", 5)
    assert (code, err) == (0, "")
    expected, _ = splitting.split(
        collection.collect(folder),
        validation_fraction=TrainConfig.validation_fraction,
        test_fraction=TrainConfig.test_fraction,
        seed=5,
    )
    found = json.loads(out)
    assert found.pop("doctor")["findings"] == []
    assert found == expected.summary()


def test_the_manifest_holds_the_split_of_train(ingest: Run, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(count=20)
    code, _, err = ingest(folder, "-o", tmp_path / "made/manifest.csv")
    assert code == 0
    assert f"{tmp_path / 'made/manifest.csv'}: wrote the manifest" in err.replace("\n", "")
    expected, _ = splitting.split(
        collection.collect(folder),
        validation_fraction=TrainConfig.validation_fraction,
        test_fraction=TrainConfig.test_fraction,
        seed=TrainConfig.seed,
    )
    assert datasets.read_manifest(tmp_path / "made/manifest.csv", folder) == expected


def test_val_as_is_passed_on(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(name="data/train", count=20).parent
    image_folder(name="data/val", count=10, seed=1)
    _, out, err = ingest(folder, "--json")
    assert json.loads(out)["classes"]["ant"]["test"] == 10
    assert "val/ is used as the test split" in err
    _, out, _ = ingest(folder, "--json", "--val-as", "validation")
    assert json.loads(out)["classes"]["ant"]["validation"] == 10


def test_odd_names_are_printed_as_they_are(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(classes=("[cats]", "größe 猫"), count=3)
    _, out, _ = ingest(folder)
    assert "[cats]" in out
    assert "größe 猫" in out


@pytest.mark.parametrize(("arguments", "expected"), [(["none"], 3), ([".", "--val-as", "x"], 2), ([], 2)])
def test_mistakes_have_their_exit_codes(ingest: Run, arguments: list[str], expected: int) -> None:
    code, out, err = ingest(*arguments)
    assert code == expected
    assert out == ""
    assert "Traceback" not in err


def test_a_file_that_exists_is_not_overwritten(ingest: Run, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    code, out, err = ingest(image_folder(count=3), "-o", tmp_path / "mine.csv")
    assert (code, out) == (2, "")
    assert "expected a new file" in err
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_an_output_that_cannot_be_written_is_an_error(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, _, err = ingest(image_folder(count=3), "-o", tmp_path / "file" / "manifest.csv")
    assert code == 2
    assert "manifest.csv: cannot be written" in err


def test_to_makes_a_copy_of_class_folders(ingest: Run, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(count=20)
    code, out, err = ingest(folder, "--to", tmp_path / "copy", "--json", "--rename", "ant=emmet")
    assert code == 0
    assert "40 files linked, 0 copied" in err
    assert collection.collect(tmp_path / "copy").counts() == {"bee": 20, "emmet": 20}
    assert json.loads(out)["classes"]["emmet"]["images"] == 20
    assert {s.split for s in collection.collect(tmp_path / "copy").samples} == {""}


def test_to_with_split_makes_the_folders_of_the_split(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    _, out, _ = ingest(image_folder(count=20), "--to", tmp_path / "copy", "--with-split", "--json", "--seed", 3)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["test", "train", "validation"]
    assert collection.collect(tmp_path / "copy").digest() == json.loads(out)["sha256"]


def test_to_keeps_a_given_split_as_it_is(ingest: Run, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(name="data/train", count=20).parent
    image_folder(name="data/val", count=10, seed=1)
    ingest(folder, "--to", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["train", "validation"]
    assert collection.collect(tmp_path / "copy").digest() == collection.collect(folder).digest()


def test_to_overwrites_nothing_and_with_split_needs_it(ingest: Run, image_folder: Callable[..., Path]) -> None:
    folder = image_folder(count=3)
    code, out, err = ingest(folder, "--to", folder)
    assert (code, out) == (2, "")
    assert "expected a new or empty folder" in err
    code, _, err = ingest(folder, "--with-split")
    assert (code, "--with-split: expected --to beside it" in err) == (2, True)


def test_a_table_is_read_with_the_columns_asked_for(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(count=3)
    (folder / "labels.csv").write_text("bild,art\nant/000.png,x\nant/001.png,y\nbee/000.png,x\n")
    options = ("--path-column", "bild", "--label-column", "art", "--json")
    code, out, err = ingest(folder, *options)
    assert (code, list(json.loads(out)["classes"])) == (0, ["x", "y"])
    assert "read as --layout table (labels.csv)" in err
    code, _, err = ingest(folder / "labels.csv", "--path-column", "none")
    assert code == 2
    assert "the columns are bild, art" in err


def test_an_archive_is_looked_at(ingest: Run, image_folder: Callable[..., Path], tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", image_folder(count=3))
    code, out, _ = ingest(archive, "--json")
    assert (code, json.loads(out)["images"]) == (0, 6)


def test_quick_decodes_nothing_and_makes_the_same_manifest(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder(count=30, size_px=20)
    shutil.copy(next((folder / "ant").iterdir()), folder / "bee/copy.png")
    (folder / "ant/empty.png").touch()
    assert ingest(folder, "-o", tmp_path / "whole.csv")[0] == 0
    monkeypatch.setattr(images, "look", None)  # whatever decodes fails
    code, out, err = ingest(folder, "--quick", "-o", tmp_path / "quick.csv")
    assert code == 0
    assert "conflict 2" in out
    assert "empty 1" in out
    assert "Skipped the pixel checks" in err
    assert (tmp_path / "quick.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


HOSTILE = ("\x1b[2J\x1b]0;t\x07", "\u202eevil\u202c", "new\nline", "c1\x9b31m", "zero\u200bwidth", "=1+1")


def test_nothing_that_a_name_contains_reaches_the_terminal_raw(
    ingest: Run, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = image_folder(classes=HOSTILE, count=4, size_px=20, name="images\x1b[31m")
    (folder / HOSTILE[0] / "000.png").write_bytes(b"")
    (folder / "no\x1b[2Jtable.csv").write_text("path,label\n\x1b[2J.png,x\n")
    shown = ""
    for more in ([], ["--json"], ["-o", tmp_path / "m\x1b.csv", "--quarantine", tmp_path / "q\u202e.csv"]):
        code, out, err = ingest(folder, *more)
        assert code == 0
        assert json.loads(out)["classes"].keys() == set(HOSTILE) if more == ["--json"] else True
        shown += out + err
    code, out, err = ingest(tmp_path / "gone\x1b[2J")
    assert code == 3
    shown += out + err
    code, out, err = ingest(folder, "--exclude", tmp_path / "q\u202e.csv", "--classes", "\x1bnone")
    assert code == 3
    shown += out + err
    assert not set(shown) & set("\x1b\x07\x9b\u202e\u202c\u200b")
    for escaped in ("\\x1b[2J\\x1b]0;t\\x07", "\\u202eevil", "new\\nline", "c1\\x9b31m", "zero\\u200bwidth"):
        assert escaped in shown
