"""Documents that someone may have changed end with the value or with one exception."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imgclf import documents, policies, runs
from imgclf.errors import ImgclfError, RunError, UsageError
from imgclf.prediction.decision import Outliers
from imgclf.training import checkpoint

HOSTILE = [
    "[" * 200_000,
    '{"a":' * 100_000,
    '{"n": ' + "9" * 5000 + "}",
    "NaN",
    "-Infinity",
    "null",
    '"text"',
    "12",
    "[]",
    "{",
    "\0\1",
    "",
    '{"data": {"a": 1}, "config": 7, "schema": [], "n": "x"}',
    '{"data": "x", "config": {"epochs": ' + "9" * 400 + '}, "n": 1e999}',
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_json_is_one_error_for_every_reader(text: str, tmp_path: Path) -> None:
    for name in ("config.json", "metrics.json", "artifact.json", "policy.json"):
        (tmp_path / name).write_text(text)
    run = runs.Run(tmp_path)
    readers = [
        run.read_config,
        lambda: run.scores,
        lambda: runs.read_settings(tmp_path),
        lambda: policies.find(str(tmp_path / "policy.json")),
    ]
    for reader in readers:
        if reader == run.read_config and "9" * 400 in text:
            continue  # the settings themselves are checked where they become settings
        with pytest.raises((RunError, UsageError)) as error:
            reader()
        assert len(str(error.value)) < 600 and "\0" not in str(error.value)


def test_the_message_names_the_place_what_was_expected_and_found() -> None:
    shape = documents.fields(
        {"files": documents.map_of(documents.fields({"bytes": documents.number(0, 10, whole=True)}))},
        {"labels": documents.list_of(documents.text, least=1, distinct=True), "share": documents.number(0, 1)},
    )
    good = {"files": {"m": {"bytes": 3}}, "labels": ["a", "b"], "share": 0.5, "later": None}
    shape(good, "")
    wrong = {
        "files.m.bytes: expected a whole number from 0 to 10, found 3.5": good | {"files": {"m": {"bytes": 3.5}}},
        "files.m.bytes: expected a whole number from 0 to 10, found 11": good | {"files": {"m": {"bytes": 11}}},
        "files.m.bytes: expected a whole number from 0 to 10, found True": good | {"files": {"m": {"bytes": True}}},
        "files.m.bytes: expected a value, found none": good | {"files": {"m": {}}},
        "files: expected an object, found a list of 2": good | {"files": [1, 2]},
        r"labels\[1\]: expected each value once, found 'a'": good | {"labels": ["a", "a"]},
        r"labels\[0\]: expected a string, found an object of 0": good | {"labels": [{}]},
        "labels: expected a list of at least 1, found a list of 0": good | {"labels": []},
        "share: expected a number from 0 to 1, found nan": good | {"share": float("nan")},
        "share: expected a number from 0 to 1, found inf": good | {"share": float("inf")},
        "share: expected a number from 0 to 1, found a huge number": good | {"share": 10**5000},
    }
    for message, value in wrong.items():
        with pytest.raises(ValueError, match=f"^{message}$"):
            shape(value, "")


def test_a_document_of_any_size_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1000)
    (tmp_path / "a.json").write_text(json.dumps("x" * 998))
    assert documents.read(tmp_path / "a.json") == "x" * 998
    (tmp_path / "a.json").write_text(json.dumps("x" * 999))
    with pytest.raises(ValueError, match="more than"):
        documents.read(tmp_path / "a.json")


def npy(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, known=np.array([{}], object))
    return file.getvalue()


DAMAGED_NPZ = {
    "empty": b"",
    "no archive": b"PK\3\4" + bytes(100),
    "huge shape": npz(known=npy("(99999999999, 1024)")),
    "negative shape": npz(known=npy("(-1, -4)")),
    "text shape": npz(known=npy("('a',)")),
    "code in header": npz(known=npy("__import__('os').getcwd()")),
    "deep header": npz(known=npy("(" * 50)),
    "fewer bytes": npz(known=npy("(3, 4)", data=bytes(40))),
    "objects": npz(known=npy("(1,)", "'|O'", bytes(8))),
    "pickled": pickled(),
    "no array": npz(known=b"hello"),
    "another name": npz(other=npy("(1, 1)", data=bytes(4))),
    "one dimension": npz(known=npy("(4,)", data=bytes(16))),
    "three dimensions": npz(known=npy("(1, 2, 2)", data=bytes(16))),
    "no rows": npz(known=npy("(0, 4)")),
    "text": npz(known=npy("(1, 1)", "'<U4'", bytes(16))),
    "infinite": npz(known=npy("(1, 1)", data=struct.pack("<f", float("inf")))),
}


@pytest.mark.parametrize("name", DAMAGED_NPZ)
def test_damaged_arrays_are_one_error_for_every_reader(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(DAMAGED_NPZ[name])
    for reader in (Outliers.read, lambda path: checkpoint.read(path, "any")):
        with pytest.raises(ImgclfError, match="damaged"):
            reader(path)


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    wanted = {
        "floats": np.arange(12, dtype=np.float16).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(12, dtype="<i8").reshape(3, 4)),
        "scalar": np.float64(3),
        "none": np.zeros((0, 4)),
    }
    np.savez_compressed(tmp_path / "a.npz", **wanted)
    found = documents.arrays(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as theirs:
        assert list(found) == theirs.files
        for name in found:
            np.testing.assert_array_equal(found[name], theirs[name])
            assert found[name].dtype == theirs[name].dtype


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    bomb = npz(known=npy("(1000, 1000)", data=bytes(4_000_000)))
    assert len(bomb) < 10_000
    with pytest.raises(ValueError, match="arrays of"):
        documents.arrays(bomb, most_bytes=1_000_000)


def test_features_of_another_model_are_an_error(tmp_path: Path) -> None:
    outliers = Outliers(np.eye(4, dtype=np.float32))
    with pytest.raises(ImgclfError, match="expected features of 5 numbers"):
        outliers.scores(np.ones((2, 5), np.float32))
