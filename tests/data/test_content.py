"""Only regular files are read."""

import os
import socket
from pathlib import Path

import pytest

from imgclf.data import content, images
from imgclf.errors import ImageError


def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))
        for name in ("pipe.jpg", "zero.jpg", "null.jpg", "s.jpg"):
            with pytest.raises(ImageError, match=f"^{content.NO_FILE}$"):
                images.load(tmp_path / name, 32)
            with pytest.raises(ImageError, match=f"^{content.NO_FILE}$"):
                content.read(tmp_path / name)


def test_other_reasons_are_said(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, reason in (("none.jpg", "no such file"), ("", "a folder, not a file"), ("loop.jpg", "it cannot be read")):
        with pytest.raises(ImageError, match=reason):
            content.read(tmp_path / name)
    with pytest.raises(ImageError, match="it cannot be read"):
        content.read("a\0b.jpg")


def test_large_files_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 100
    (tmp_path / "a.bin").write_bytes(data)
    assert content.read(tmp_path / "a.bin") == data
    monkeypatch.setattr("imgclf.data.memory.LARGE_FILE_BYTES", 1000)
    with content.of(tmp_path / "a.bin") as read:
        assert read == data
