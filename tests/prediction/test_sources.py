import io
import os
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from imgclf.errors import DatasetError, UsageError
from imgclf.prediction import sources
from imgclf.prediction.classifier import Named


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


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


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


@pytest.mark.parametrize(
    "pattern",
    [
        "photos [2020]/*.jpg",
        "photos [2020]/**/*.jpg",
        "*/photos [2020]/*.jpg",
        "./photos [2020]/[a]*.jpg",
        "**/x [y].jpg",
    ],
)
def test_a_part_of_a_pattern_that_exists_means_what_it_says(found, tmp_path, pattern):
    for name in ("photos [2020]/a.jpg", "photos 2/a.jpg", "deep/photos [2020]/a.jpg", "x [y].jpg", "x y.jpg"):
        write(tmp_path / name, b"")
    expected = {
        "*/photos [2020]/*.jpg": ["deep/photos [2020]/a.jpg"],
        "**/x [y].jpg": ["x [y].jpg", "x y.jpg"],
    }
    assert found(pattern) == expected.get(pattern, ["photos [2020]/a.jpg"])
    absolute = [str(tmp_path / path) for path in found(pattern)]
    assert found(str(tmp_path / pattern.removeprefix("./"))) == absolute


PATHS = ["photos/a.jpg", "photos/sub/d.webp", "photos/gr\u00f6\u00dfe.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(PATHS).encode(),
        "\ufeff".encode() + "\r\n".join(PATHS).encode(),
        "\n".join(PATHS).encode("utf-16"),
        "\r\n".join(PATHS).encode("utf-16-le"),
        ("\ufeff" + "\r\n".join(PATHS)).encode("utf-16-be"),
        "".join(f"{path}\0" for path in PATHS).encode(),
        "\ufeff".encode() + "\0".join(PATHS).encode(),
        "".join(f"  {path}\t \n" for path in PATHS).encode(),
        "".join(f'"{path}"\n' for path in PATHS).encode(),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_list_is_read_in_every_encoding_however_it_arrives(found, tmp_path, content, chunk):
    write(tmp_path / "photos/gr\u00f6\u00dfe.jpg", b"")

    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(chunk)

    assert found("-", listed=sources.lines(Trickle(content))) == PATHS


def test_names_with_spaces_at_their_ends_and_line_breaks_are_taken_as_they_are(found, tmp_path):
    for name in ("a .jpg ", "a.jpg", "two\nlines.jpg", "'q'"):
        write(tmp_path / name, b"")
    assert found("-", listed=sources.lines(io.BytesIO(b"a .jpg \na.jpg \n'q'"))) == ["a .jpg ", "a.jpg", "'q'"]
    assert found("-", listed=sources.lines(io.BytesIO(b"two\nlines.jpg\0a.jpg"))) == ["two\nlines.jpg", "a.jpg"]


def test_output_of_imgclf_in_a_folder_is_left_out_with_a_note(found, tmp_path, caplog):
    write(tmp_path / "photos/run/learning_curve.png", b"")
    write(tmp_path / "photos/run/artifact.json", b"{}")
    caplog.set_level("INFO", logger="imgclf")
    assert not [path for path in found("photos") if "run" in path]
    assert "photos/run: left out, as output of imgclf." in caplog.text


def test_the_first_line_of_a_list_is_read_before_the_second_is_there():
    asked = []

    class Live(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(size)
            return b"a\n" if len(asked) == 1 else b""

    assert next(sources.lines(Live())) == b"a"
    assert len(asked) == 1


def test_a_dash_means_the_listed_files_and_folders(found):
    lines = [b"photos/a.jpg\n", b"\n", b"photos/sub\r\n", b"photos/*.jpg\n", b"caf\xe9.jpg"]
    assert found("-", listed=lines) == [
        "photos/a.jpg",
        "photos/sub/d.webp",
        "photos/sub/deep/c.jpeg",
        "photos/*.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
    ]


def test_an_image_that_several_names_mean_is_given_once_and_one_of_a_list_each_time(found):
    names = [
        "photos/a.jpg",
        "photos/*.jpg",
        "./photos/../photos/a.jpg",
        "photos/sub",
        "photos",
        str(Path.cwd() / "photos"),
    ]
    once = found(*names)
    assert once[0] == "photos/a.jpg" and sorted({Path(path).name for path in once}) == sorted(
        Path(p).name for p in once
    )
    assert len(once) == len(found("photos"))
    assert found("-", "photos/a.jpg", listed=[b"photos/a.jpg", b"photos/a.jpg"]) == ["photos/a.jpg"] * 3


def test_a_list_is_read_no_further_than_needed():
    lines = (b"%d.jpg\n" % number for number in iter(int, 1))
    assert list(islice(sources.find(["-"], lines), 2)) == ["0.jpg", "0.jpg"]


def test_what_is_missing_is_given_as_it_is(found):
    assert found("none.jpg") == ["none.jpg"]
    assert found("photos/a.jpg", "none.jpg") == ["photos/a.jpg", "none.jpg"]


def test_a_pattern_without_a_match_gives_nothing_and_is_logged(found, caplog):
    assert found("photos/a.jpg", "none/*.jpg") == ["photos/a.jpg"]
    assert "none/*.jpg: no file matches this pattern" in caplog.text


@pytest.mark.parametrize("names", [["none/*.jpg", "photos/*.tif"], ["photos/empty"], ["-"]])
def test_nothing_at_all_is_a_dataset_error_that_repeats_the_names(found, names):
    with pytest.raises(DatasetError, match="expected images") as caught:
        found(*names)
    assert str(caught.value).startswith(", ".join(names) + ": ")


def test_a_folder_that_cannot_be_searched_is_logged(found, caplog, monkeypatch):
    real = os.scandir

    def scandir(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found("photos/sub") == ["photos/sub/d.webp"]
    assert "deep: the folder cannot be read (Permission denied)" in caplog.text


def test_an_archive_means_the_images_in_it_under_its_own_name(tmp_path):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("a/1.jpg", "b/2.png", "b/notes.txt"):
            packed.writestr(name, name)
    for names, listed in (([str(archive)], ()), (["-"], [os.fsencode(archive)]), ([f"{tmp_path}/*.zip"], ())):
        found = list(sources.find(names, listed))
        assert [item.name for item in found] == [f"{archive}/a/1.jpg", f"{archive}/b/2.png"]
        assert [Path(item.path).read_text() for item in found] == ["a/1.jpg", "b/2.png"]


def test_a_broken_archive_is_given_as_it_is_and_costs_no_other_its_answer(tmp_path, caplog):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a/1.jpg", bytes(100))
    broken = bytearray(archive.read_bytes())
    broken[40] ^= 1  # in the image, whose checksum is then wrong
    archive.write_bytes(broken)
    assert list(sources.find([str(archive), "a.jpg"], ())) == [str(archive), "a.jpg"]
    assert "photos.zip" in caplog.text


def test_lines_come_as_they_are_typed():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as typed:
        lines = sources.lines(stream)
        typed.write(b"a.jpg\nb.")
        assert next(lines) == b"a.jpg"
        typed.write(b"jpg\nlast")
        assert next(lines) == b"b.jpg"
        typed.close()
        assert list(lines) == [b"last"]


def test_lines_of_any_length_come_back():
    text = b"x" * 200_000 + b"\n\n" + b"y\n"
    assert list(sources.lines(io.BytesIO(text))) == [b"x" * 200_000, b"", b"y"]


def test_a_list_that_cannot_be_read_is_a_usage_error():
    class Unreadable(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(21, "Is a directory")

    with pytest.raises(UsageError, match="which is closed"):
        next(sources.lines(None))
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        next(sources.lines(Unreadable()))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_the_shards_hold_each_image_once_wherever_it_lies(tmp_path, parts):
    contents = [os.urandom(100) * (1 + number % 3) for number in range(60)]
    here = [write(tmp_path / "here" / f"{number}.jpg", content) for number, content in enumerate(contents)]
    there = [write(tmp_path / "there" / f"x{number}.png", content) for number, content in enumerate(contents)]
    missing = [str(tmp_path / f"none{number}.jpg") for number in range(9)]
    shares = [list(sources.shard([*here, *missing], part, parts)) for part in range(1, parts + 1)]
    assert sorted(path for share in shares for path in share) == sorted([*here, *missing])
    if parts > 1:
        assert all(share for share in shares)
    for part, share in enumerate(shares, start=1):
        places = [here.index(path) for path in share if path in here]
        assert list(sources.shard(there, part, parts)) == [there[place] for place in places]


def test_a_packed_image_is_in_the_shard_of_its_content(tmp_path):
    path = write(tmp_path / "a.jpg", b"content")
    part = next(part for part in (1, 2) if list(sources.shard([path], part, 2)))
    packed = Named("photos.zip/a.jpg", path)
    assert list(sources.shard([packed], part, 2)) == [packed]


def test_a_pipe_is_an_error_of_its_own_for_a_pattern_and_a_shard(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    found = list(sources.find([f"{tmp_path}/*.png"], []))
    assert [Path(path).name for path in found] == ["a.png", "b.png"]
    parts = [list(sources.shard(found, part, 2)) for part in (1, 2)]
    assert sorted(parts[0] + parts[1]) == found
