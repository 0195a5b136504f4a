"""Zip and tar archives: what comes out, and what is refused."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from imgclf import environment, storage
from imgclf.data import collection, unpacking
from imgclf.data.layouts import archives
from imgclf.errors import DatasetError
from imgclf.settings import ReadConfig

Factory = Callable[..., Path]


def packed(folder: Path, archive: Path, inside: str = "") -> Path:
    """The content of a folder as a zip or a tar, by the suffix, below the folder `inside`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, f"{inside}{path.relative_to(folder)}")
    else:
        mode = archive.suffix[1:].replace("tar", "")
        with tarfile.open(archive, f"w:{mode}") as file:
            for path in files:
                file.add(path, f"{inside}{path.relative_to(folder)}")
    return archive


@pytest.fixture
def zipped(image_folder: Factory, tmp_path: Path) -> Path:
    """A good zip, to which bad entries can be added."""
    return packed(image_folder(count=1), tmp_path / "images.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("inside", ["", "photos/", "./photos/2024/"])
def test_an_archive_is_read_as_its_folder_is(image_folder: Factory, tmp_path: Path, name: str, inside: str) -> None:
    folder = image_folder(name="data/train", count=3).parent
    image_folder(name="data/val", count=2, seed=1)
    (folder / ".DS_Store").touch()
    expected, found = collection.collect(folder), collection.collect(packed(folder, tmp_path / name, inside))
    assert found.samples == expected.samples
    assert found.digest() == expected.digest()
    assert found.source == tmp_path / name
    assert all(path.is_file() for path in found.paths)


def test_an_archive_is_known_by_its_content(zipped: Path, tmp_path: Path) -> None:
    zipped.rename(tmp_path / "data.bin")
    assert len(collection.collect(tmp_path / "data.bin")) == 2


def test_a_single_class_folder_is_no_wrapping(image_folder: Factory, tmp_path: Path) -> None:
    archive = packed(image_folder(classes=("ant",), count=2), tmp_path / "a.zip")
    assert collection.collect(archive, min_classes=1).class_names == ("ant",)


def test_a_second_reading_unpacks_nothing(zipped: Path) -> None:
    first = collection.collect(zipped)
    (first.root / "mark").touch()
    assert collection.collect(zipped).samples == first.samples
    assert (first.root / "mark").is_file()


def test_a_changed_archive_is_unpacked_again(image_folder: Factory, zipped: Path) -> None:
    before = collection.collect(zipped)
    packed(image_folder(name="other", classes=("cat", "dog"), count=2), zipped)
    assert collection.collect(zipped).class_names == ("cat", "dog")
    assert before.class_names == ("ant", "bee")


def test_the_images_are_found_again_in_an_emptied_cache(zipped: Path) -> None:
    dataset = collection.collect(zipped)
    for path in dataset.paths:
        path.unlink()
    os.rename(dataset.root, dataset.root.with_name("gone"))  # noqa: PTH104
    assert collection.locate(zipped) == dataset.root
    assert all(path.is_file() for path in dataset.paths)


def test_a_crash_while_unpacking_leaves_nothing(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(done: int, total: int) -> None:
        if done > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(unpacking, "VERSION", "crash")
    with pytest.raises(KeyboardInterrupt):
        archives.unpack(zipped, crash)
    store = collection.collect(zipped).root.parent
    assert not list(store.glob(f"*{storage.STAGE}"))


def test_a_full_disk_is_an_error_that_names_the_cache(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DatasetError, match=r"unpacked.*No space left on device.*XDG_CACHE_HOME"):
        collection.collect(zipped)


def test_what_does_not_fit_is_refused_before_it_is_written(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DatasetError, match="does not fit on the disk"):
        collection.collect(zipped)


@pytest.mark.parametrize("name", ["../evil.png", "ant/../../evil.png", "/tmp/evil.png", "C:/evil.png", "..\\evil.png"])
def test_a_zip_whose_paths_lead_out_is_refused(zipped: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(zipped, "a") as file:
        entry = zipfile.ZipInfo("x")
        entry.filename, entry.create_system = name, 0 if "\\" in name else 3
        file.writestr(entry, b"evil")
    with pytest.raises(DatasetError, match="refused, since it contains a path that leads out of it"):
        collection.collect(zipped)
    assert not list(tmp_path.rglob("evil.png"))


def tar_of(archive: Path, *entries: tuple[tarfile.TarInfo, bytes], folder: Path) -> Path:
    with tarfile.open(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.add(path, str(path.relative_to(folder)))
        for entry, data in entries:
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return archive


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/imgclf-evil.png", "ant/../../evil.png"])
def test_a_tar_whose_paths_lead_out_is_refused(image_folder: Factory, tmp_path: Path, name: str) -> None:
    archive = tar_of(tmp_path / "a.tar", (entry(name), b"evil"), folder=image_folder(count=1))
    with pytest.raises(DatasetError, match="leads out of it"):
        collection.collect(archive)
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "nowhere.png", "ant"])
def test_a_tar_with_a_link_to_anything_but_a_file_in_it_is_refused(
    image_folder: Factory, tmp_path: Path, kind: bytes, target: str
) -> None:
    archive = tar_of(tmp_path / "a.tar", (entry("link.png", kind, target), b""), folder=image_folder(count=1))
    with pytest.raises(DatasetError, match=r"refused, since it contains a link, 'link\.png', to something"):
        collection.collect(archive)


def test_a_file_written_through_a_linked_folder_stays_inside(image_folder: Factory, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link, file = entry("ant/out", tarfile.SYMTYPE, str(tmp_path / "outside")), (entry("ant/out/evil.png"), b"evil")
    archive = tar_of(tmp_path / "a.tar", (link, b""), file, folder=image_folder(count=1))
    with pytest.raises(DatasetError, match="refused"):
        collection.collect(archive)
    assert not list((tmp_path / "outside").iterdir())


def test_links_to_files_in_the_archive_become_these_files(image_folder: Factory, tmp_path: Path) -> None:
    links = [
        (entry("bee/hard.png", tarfile.LNKTYPE, "ant/000.png"), b""),
        (entry("bee/soft.png", tarfile.SYMTYPE, "../ant/000.png"), b""),
        (entry("bee/again.png", tarfile.SYMTYPE, "soft.png"), b""),
    ]
    folder = image_folder(count=1)
    dataset = collection.collect(tar_of(tmp_path / "a.tar", *links, folder=folder))
    content = (folder / "ant/000.png").read_bytes()
    assert [(dataset.root / f"bee/{n}.png").read_bytes() == content for n in ("hard", "soft", "again")] == [True] * 3
    assert not any(path.is_symlink() for path in dataset.paths)


def test_links_in_a_circle_are_refused(image_folder: Factory, tmp_path: Path) -> None:
    circle = [(entry(f"ant/{a}.png", tarfile.SYMTYPE, f"{b}.png"), b"") for a, b in ("xy", "yx")]
    with pytest.raises(DatasetError, match="contains a link"):
        collection.collect(tar_of(tmp_path / "a.tar", *circle, folder=image_folder(count=1)))


def test_a_link_in_a_zip_is_judged_as_one_in_a_tar(zipped: Path) -> None:
    link = zipfile.ZipInfo("bee/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DatasetError, match="contains a link"):
        collection.collect(zipped)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_device_in_a_tar_is_refused(image_folder: Factory, tmp_path: Path, kind: bytes) -> None:
    archive = tar_of(tmp_path / "a.tar", (entry("ant/null.png", kind), b""), folder=image_folder(count=1))
    with pytest.raises(DatasetError, match="neither a file nor a folder"):
        collection.collect(archive)


def test_a_damaged_archive_is_an_error(zipped: Path, image_folder: Factory, tmp_path: Path) -> None:
    data = bytearray(zipped.read_bytes())
    data[60:200] = b"\xff" * 140
    zipped.write_bytes(data)
    with pytest.raises(DatasetError, match="the archive is damaged"):
        collection.collect(zipped)
    archive = packed(image_folder(name="more", count=5, size_px=64), tmp_path / "a.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match="the archive is damaged"):
        collection.collect(archive)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.9])
def test_an_archive_that_ends_early_is_an_error(
    image_folder: Factory, tmp_path: Path, suffix: str, share: float
) -> None:
    archive = packed(image_folder(count=8, size_px=64), tmp_path / f"a.{suffix}")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"damaged archive|the archive is damaged"):
        collection.collect(archive)


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_an_archive_that_is_damaged_in_the_middle_is_an_error(
    image_folder: Factory, tmp_path: Path, suffix: str, at: float
) -> None:
    archive = packed(image_folder(count=8, size_px=64), tmp_path / f"a.{suffix}")
    data = bytearray(archive.read_bytes())
    start = int(len(data) * at)
    data[start : start + 50] = bytes(50)
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match=r"damaged archive|the archive is damaged"):
        collection.collect(archive)


def test_a_damaged_header_in_a_tar_is_an_error_and_not_its_end(image_folder: Factory, tmp_path: Path) -> None:
    archive = packed(image_folder(count=4, size_px=64), tmp_path / "a.tar")
    data = bytearray(archive.read_bytes())
    at = data.index(b"bee/003.png")
    data[at : at + 100] = b"x" * 100
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match=r"the archive is damaged.*bad checksum"):
        collection.collect(archive)


def test_a_packed_tar_with_a_wrong_checksum_is_an_error(image_folder: Factory, tmp_path: Path) -> None:
    archive = packed(image_folder(count=2), tmp_path / "a.tar")
    content = bytearray(gzip.compress(archive.read_bytes(), compresslevel=0))
    content[content.index(b"IDAT") + 9] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"the archive is damaged.*CRC"):
        collection.collect(tmp_path / "a.tar.gz")


def test_copies_for_links_need_room_too(image_folder: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image_folder(count=1)
    links = [(entry(f"bee/{i}.png", tarfile.LNKTYPE, "ant/000.png"), b"") for i in range(99)]
    archive = tar_of(tmp_path / "a.tar", *links, folder=folder)
    size = (folder / "ant/000.png").stat().st_size
    usage = shutil.disk_usage(tmp_path)
    free = archives.SPARE_BYTES + 50 * size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(DatasetError, match="does not fit on the disk"):
        collection.collect(archive)


def test_folders_with_backslashes_are_folders(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(count=1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("ant\\", "bee\\", "ant\\0.png", "bee\\0.png"):
            item = zipfile.ZipInfo(name)
            item.create_system = 0
            file.writestr(item, b"" if name.endswith("\\") else (folder / name[:3] / "000.png").read_bytes())
    assert collection.collect(tmp_path / "a.zip").counts() == {"ant": 1, "bee": 1}


def test_an_encrypted_zip_is_an_error(zipped: Path) -> None:
    data = bytearray(zipped.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(mark, at + 1)
    zipped.write_bytes(data)
    with pytest.raises(DatasetError, match="encrypted"):
        collection.collect(zipped)


def test_finders_own_notes_are_left_out(zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as file:
        file.writestr("__MACOSX/ant/._000.png", b"note")
    dataset = collection.collect(zipped)
    assert dataset.skipped == ()


def test_names_in_utf8_without_a_flag_and_with_backslashes_are_read(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("größe", "猫"), count=1)
    names = {}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path, letter in zip(sorted(folder.rglob("*.png")), "xy", strict=True):
            name = f"data\\{path.parent.name}\\{path.name}".encode()
            item = zipfile.ZipInfo(letter * len(name))
            item.create_system = 0
            file.writestr(item, path.read_bytes())
            names[item.filename.encode()] = name
    data = (tmp_path / "a.zip").read_bytes()
    for placeholder, name in names.items():
        data = data.replace(placeholder, name)
    (tmp_path / "a.zip").write_bytes(data)
    assert collection.collect(tmp_path / "a.zip").class_names == ("größe", "猫")


def test_an_archive_of_a_table_is_read(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("all",), count=2)
    (folder / "labels.csv").write_text("path,label\nall/000.png,ant\nall/001.png,bee\n")
    dataset = collection.collect(packed(folder, tmp_path / "a.zip", "deep/"), ReadConfig())
    assert [(s.path, s.label) for s in dataset.samples] == [("all/000.png", "ant"), ("all/001.png", "bee")]


def test_a_table_in_an_archive_reaches_nothing_outside(image_folder: Factory, tmp_path: Path) -> None:
    folder = image_folder(classes=("all",), count=2)
    secret = image_folder(name="secret", count=1) / "ant/000.png"
    (folder / "labels.csv").write_text(f"path,label\nall/000.png,ant\nall/001.png,bee\n{secret},cat\n../x.png,cat\n")
    dataset = collection.collect(packed(folder, tmp_path / "a.zip"))
    assert dataset.class_names == ("ant", "bee")
    reasons = [s.reason for s in dataset.skipped if s.kind == "unreadable"]
    assert sorted(reasons) == ["no such file (line 4)", "no such file (line 5)"]


@pytest.mark.real
@pytest.mark.parametrize("name", ["ants-bees", "sign-digits"])
def test_a_real_zip_and_its_folder_are_the_same_dataset(real_data: Path, name: str) -> None:
    archive = Path(os.environ["IMGCLF_TEST_DATA"]) / f"{name}.zip"
    packed_up, folder = collection.collect(archive), collection.collect(real_data / name)
    assert packed_up.counts() == folder.counts()
    assert packed_up.digest() == folder.digest()
    assert packed_up.skipped == folder.skipped


def made_tar(tmp_path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = tmp_path / "made.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for entry, data in entries:
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def test_a_chain_of_links_takes_a_time_that_grows_with_its_length_alone(tmp_path: Path) -> None:
    links = 3000
    chain = [(link(f"{n:05}.jpg", f"{n - 1:05}.jpg"), b"") for n in range(links, 0, -1)]
    path = made_tar(tmp_path, *chain, (tarfile.TarInfo("00000.jpg"), b"pixels"))
    begin = time.process_time()
    folder = archives.unpack(path)
    taken = time.process_time() - begin
    assert {file.read_bytes() for file in folder.iterdir()} == {b"pixels"}
    assert len(list(folder.iterdir())) == links + 1
    assert taken < 5  # rounds over all that is left, one for each link, took a minute


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_to_many_times_its_size_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1_000_000)
    path = tmp_path / f"bomb.{kind}"
    zeros = bytes(3_000_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(3):
                file.writestr(f"ant/{number}.bmp", zeros)
        monkeypatch.setattr(shutil, "copyfileobj", lambda *_: pytest.fail("written before it was refused"))
    else:
        with tarfile.open(path, "w:gz") as file:
            for number in range(3):
                entry = tarfile.TarInfo(f"ant/{number}.bmp")
                entry.size = len(zeros)
                file.addfile(entry, io.BytesIO(zeros))
    unpacked = environment.cache_root() / "unpacked"
    before = {path for path in unpacked.glob("*") if path.is_dir()}  # beside them are locks
    with pytest.raises(DatasetError, match="200 times its size"):
        archives.unpack(path)
    assert {path for path in unpacked.glob("*") if path.is_dir()} == before


def test_copies_by_links_count_for_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1_000_000)
    many = [(link(f"{n}.jpg", "a.jpg"), b"") for n in range(100)]
    with pytest.raises(DatasetError, match="200 times its size"):
        archives.unpack(made_tar(tmp_path, (tarfile.TarInfo("a.jpg"), bytes(20_000)), *many))


def test_an_archive_of_too_many_entries_is_refused(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 1)
    with pytest.raises(DatasetError, match="more than 1 entries"):
        archives.unpack(zipped)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_a_tar_with_a_name_of_megabytes_is_no_archive_and_not_read_into_the_memory(kind: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a")
    entry.type = kind
    path = made_tar(tmp_path, (entry, bytes(20_000_000)))
    tracemalloc.start()
    try:
        assert not archives.is_archive(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
