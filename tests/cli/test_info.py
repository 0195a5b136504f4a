"""imgclf info and imgclf cache: what is installed, what is kept, and getting rid of it."""

import json
import sys
from pathlib import Path

import pytest

import imgclf
from imgclf.cli.cache import cache
from imgclf.cli.info import info
from imgclf.errors import ImgclfError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with 2.5 MB of weights, a loose file, and a link to a folder outside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "imgclf"
    (root / "keras" / "models").mkdir(parents=True)
    (root / "keras" / "models" / "net.h5").write_bytes(bytes(2_500_000))
    (root / "loose").write_bytes(bytes(7))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.txt").write_text("keep me")
    (root / "link").symlink_to(tmp_path / "outside")
    return root


def test_info_shows_versions_device_and_cache(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info(json=False)
    shown = capsys.readouterr().out
    for part in ("numpy", "cpus", "device", str(root), "2.5"):
        assert part in shown


def test_info_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info(json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cache"]["root"] == str(root)
    assert found["cache"]["bytes"]["keras"] == 2_500_000
    assert found["hardware"]["cpus"] >= 1
    assert found["versions"]["imgclf"] == imgclf.__version__
    assert found["devices"][0] == "CPU"
    assert all(name.startswith("GPU:") for name in found["devices"][1:])


def test_info_without_tensorflow_says_so_and_goes_on(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    info(json=True)
    assert "pip install imgclf" in json.loads(capsys.readouterr().out)["devices"][0]


def test_cache_lists_what_it_holds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache(clear=False, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["root"] == str(root)
    assert found["bytes"]["keras"] == 2_500_000
    assert found["bytes"]["loose"] == 7
    cache(clear=False, json=False)
    assert [line.split()[1::2] for line in capsys.readouterr().out.splitlines() if "all" in line] == [["all", "2.5"]]
    assert (root / "loose").exists()


def test_clearing_deletes_all_but_what_links_lead_to(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache(clear=True, json=False)
    assert "2.5 MB deleted" in capsys.readouterr().out
    assert list(root.iterdir()) == []
    assert (root.parent / "outside" / "mine.txt").read_text() == "keep me"


def test_a_cache_that_is_not_there_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    cache(clear=True, json=True)
    assert json.loads(capsys.readouterr().out)["bytes"] == {}


def test_what_cannot_be_deleted_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(ImgclfError, match=r"keras.models: cannot be deleted \(Permission denied\)"):
        cache(clear=True, json=False)
