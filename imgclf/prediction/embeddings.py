"""Write feature vectors to a file, few at a time."""

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from imgclf import environment
from imgclf.errors import UsageError
from imgclf.prediction import output_files, outputs
from imgclf.prediction.forms import Answer

SUFFIXES = (".npz", ".parquet")
ROWS = 1000
"""Rows written at once."""


@contextlib.contextmanager
def create(path: Path) -> Iterator[Callable[[Answer], None]]:
    """Create a file with one row for each image that could be read.

    A `.npz` contains the arrays `paths`, text (n,), and `embeddings`, float32 (n, d); numpy reads it without pickle. A
    `.parquet` contains the columns `path` and `embedding`, a list of d float32.

    Yields:
        A function that takes predictions with their embeddings.

    Raises:
        UsageError: if the extension is another, or the file exists or cannot be created.
        MissingError: if pyarrow is needed and not installed.
        ImgclfError: if writing fails; the file then does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--embeddings {path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    write = _npz if path.suffix.lower() == ".npz" else _parquet
    with output_files.new(path, "--embeddings") as part, write(part) as add:
        yield add


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Callable[[Answer], None]]:
    """Rows go to two temporary files first: an array begins with their number, which is known last."""
    with tempfile.TemporaryFile(dir=path.parent) as vectors, tempfile.TemporaryFile("w+", dir=path.parent) as names:
        count = length = width = 0

        def add(prediction: Answer) -> None:
            nonlocal count, length, width
            if prediction.embedding is not None:
                vectors.write(prediction.embedding.astype("<f4").tobytes())
                names.write(json.dumps(prediction.path or "") + "\n")
                count, width = count + 1, len(prediction.embedding)
                length = max(length, len(prediction.path or ""))

        try:
            yield add
        finally:  # also when interrupted, to keep what is finished
            vectors.seek(0)
            names.seek(0)
            with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
                with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                    _header(member, "<f4", (count, width))
                    while chunk := vectors.read(1 << 20):
                        member.write(chunk)
                with archive.open("paths.npy", "w", force_zip64=True) as member:
                    _header(member, f"<U{max(length, 1)}", (count,))
                    while rows := [json.loads(line) for line in islice(names, ROWS)]:
                        member.write(np.array(rows, dtype=f"<U{max(length, 1)}").tobytes())


def _header(file: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Answer], None]]:
    environment.require("pyarrow", "'imgclf[parquet]'")
    import pyarrow

    kinds = {"path": pyarrow.string(), "embedding": pyarrow.list_(pyarrow.float32())}
    with outputs.parquet_rows(path, kinds) as write:

        def add(prediction: Answer) -> None:
            if prediction.embedding is not None:
                values: dict[str, Any] = {"path": prediction.path, "embedding": prediction.embedding}
                write(values)

        yield add
