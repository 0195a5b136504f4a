import os
from dataclasses import replace
from pathlib import Path

import killing
import numpy as np
import pytest

from imgclf import storage
from imgclf.data import file_listing
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction import Prediction, sorting, sources
from imgclf.prediction.decision import Decision

LABELS = ("ants", "bees/wild")
BEES = Prediction(None, np.array([0.2, 0.8], np.float32), LABELS)


def image(path: Path, content: str) -> Prediction:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return replace(BEES, path=str(path), file=str(path))


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("links", [True, False])
def test_images_are_put_into_their_classes_and_nothing_is_overwritten(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    out = tmp_path / "out"
    sorter = sorting.Sorter(out, LABELS)
    first, second = image(tmp_path / "a" / "1.jpg", "one"), image(tmp_path / "b" / "1.jpg", "another")
    unsure = replace(image(tmp_path / "a" / "2.jpg", "unsure"), rules=Decision(reject_below=0.9))
    for _ in range(2):  # the second time finds all in its place
        for prediction in (first, second, unsure, replace(first, error="broken", probabilities=None), BEES):
            sorter.place(prediction)
    assert contents(out) == {"bees/wild/1.jpg": "one", "bees/wild/1-1.jpg": "another", "_rejected/2.jpg": "unsure"}
    assert Path(str(first.file)).samefile(out / "bees" / "wild" / "1.jpg") == links


def test_a_folder_in_the_folder_that_is_sorted_is_marked_and_its_images_left_out(tmp_path):
    inbox = tmp_path / "inbox"
    sorter = sorting.Sorter(inbox / "sorted", LABELS, [inbox])
    sorter.place(image(inbox / "1.jpg", "one"))
    assert file_listing.scan(inbox).files == ["1.jpg"]
    named = [str(inbox / "1.jpg"), str(inbox / "sorted/bees/wild/1.jpg")]
    assert list(sources.outside(named, inbox / "sorted")) == named[:1]
    sorting.Sorter(tmp_path / "other", LABELS, [inbox]).place(image(inbox / "1.jpg", "one"))
    assert file_listing.scan(tmp_path / "other").files == ["bees/wild/1.jpg"]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["bees"]


def test_of_a_link_the_file_is_taken(tmp_path):
    real = image(tmp_path / "real.jpg", "one")
    (tmp_path / "linked.jpg").symlink_to("real.jpg")
    sorting.Sorter(tmp_path / "out", LABELS).place(replace(real, file=str(tmp_path / "linked.jpg")))
    assert not (tmp_path / "out" / "bees" / "wild" / "real.jpg").is_symlink()
    assert contents(tmp_path / "out") == {"bees/wild/real.jpg": "one"}


@pytest.mark.parametrize("label", ["..", "a/../b", "", ".hidden", "_rejected"])
def test_a_class_that_cannot_be_a_folder_is_a_usage_error(tmp_path, label):
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        sorting.Sorter(tmp_path / "out", ("ants", label))
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot be created"):
        sorting.Sorter(tmp_path / "out", LABELS)
    sorter = sorting.Sorter(tmp_path / "folder", LABELS)
    (tmp_path / "folder" / "bees").write_text("a file")
    with pytest.raises(ImgclfError, match="cannot be added"):
        sorter.place(image(tmp_path / "1.jpg", "one"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_killed_at_any_operation_no_half_copy_has_a_final_name(tmp_path, monkeypatch):
    link = os.link

    def between_disks(source, target):
        if Path(source).parent == tmp_path:
            raise OSError(18, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", between_disks)
    out, content = tmp_path / "out", "whole" * 1000
    prediction = image(tmp_path / "1.jpg", content)
    seen = set()
    for _ in killing.at_each_operation(lambda: sorting.Sorter(out, LABELS).place(prediction)):
        found = contents(out)
        seen.add(found.get("bees/wild/1.jpg"))
        for path in out.glob(f"*{storage.STAGE}"):  # old enough to be known as left
            os.utime(path, (0, 0))
        sorting.Sorter(out, LABELS).place(prediction)
        assert contents(out) == {"bees/wild/1.jpg": content}
        (out / "bees/wild/1.jpg").unlink()
    assert seen == {None, content}
