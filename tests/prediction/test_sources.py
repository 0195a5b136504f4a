import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from imgclf.errors import DatasetError
from imgclf.prediction import sources


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Finds what the names mean in a folder with photographs, a text and what is hidden."""
    files = (
        "a.jpg",
        "b [1].PNG",
        "notes.txt",
        ".hidden.jpg",
        "sub/d.webp",
        "sub/deep/c.jpeg",
        ".cache/e.jpg",
        "empty/x.txt",
    )
    for name in files:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return lambda *names, listed=(): [Path(path).as_posix() for path in sources.find(names, listed)]


def test_a_folder_means_the_images_at_any_depth_without_hidden_ones(found):
    expected = ["photos/a.jpg", "photos/b [1].PNG", "photos/sub/d.webp", "photos/sub/deep/c.jpeg"]
    assert found("photos") == expected
    assert found("./photos/") == expected
    assert found(".") == expected


def test_a_link_to_a_folder_is_followed_and_a_circle_is_not(found):
    Path("photos/sub/up").symlink_to(Path("photos").absolute())
    Path("linked").symlink_to(Path("photos/sub").absolute())
    assert found("linked") == ["linked/d.webp", "linked/deep/c.jpeg", "linked/up/a.jpg", "linked/up/b [1].PNG"]


def test_files_come_in_the_order_in_which_they_are_named(found):
    assert found("photos/sub", "photos/notes.txt", "photos/a.jpg") == [
        "photos/sub/d.webp",
        "photos/sub/deep/c.jpeg",
        "photos/notes.txt",
        "photos/a.jpg",
    ]


def test_a_pattern_means_its_sorted_matches(found):
    assert found("photos/*.jpg") == ["photos/a.jpg"]
    assert found("photos/**/*.jp*g") == ["photos/a.jpg", "photos/sub/deep/c.jpeg"]
    assert found("photos/s*") == found("photos/sub")


def test_an_existing_name_is_not_read_as_a_pattern(found):
    assert found("photos/b [1].PNG") == ["photos/b [1].PNG"]


def test_a_dash_means_the_listed_files_and_folders(found):
    lines = [b"photos/a.jpg\n", b"\n", b"photos/sub\r\n", b"photos/*.jpg\n", b"caf\xe9.jpg"]
    assert found("-", listed=lines) == [
        "photos/a.jpg",
        "photos/sub/d.webp",
        "photos/sub/deep/c.jpeg",
        "photos/*.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
    ]


def test_a_list_is_read_no_further_than_needed():
    lines = (b"%d.jpg\n" % number for number in iter(int, 1))
    assert list(islice(sources.find(["-"], lines), 2)) == ["0.jpg", "0.jpg"]


def test_what_is_missing_is_given_as_it_is(found):
    assert found("none.jpg") == ["none.jpg"]
    assert found("photos/a.jpg", "none.jpg") == ["photos/a.jpg", "none.jpg"]


def test_a_pattern_without_a_match_gives_nothing_and_is_logged(found, caplog):
    assert found("photos/a.jpg", "none/*.jpg") == ["photos/a.jpg"]
    assert "none/*.jpg: nothing matches this pattern" in caplog.text


@pytest.mark.parametrize("names", [["none/*.jpg", "photos/*.tif"], ["photos/empty"], ["-"]])
def test_nothing_at_all_is_a_dataset_error_that_repeats_the_names(found, names):
    with pytest.raises(DatasetError, match="expected images") as caught:
        found(*names)
    assert str(caught.value).endswith(", ".join(names) + ".")


def test_a_folder_that_cannot_be_searched_is_logged(found, caplog, monkeypatch):
    real = os.scandir

    def scandir(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found("photos/sub") == ["photos/sub/d.webp"]
    assert "deep: the folder cannot be read (Permission denied)" in caplog.text
