"""The checkpoint of a training: facts and arrays in one file, which is written whole or not at all."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents
from imgclf.errors import RunError
from imgclf.storage import write_atomic


def write(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a checkpoint.

    Args:
        facts: JSON values.
        arrays: lists of arrays by name, such as the weights of a model.
    """
    content = {f"{name}/{place}": array for name, several in arrays.items() for place, array in enumerate(several)}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **content)
    write_atomic(path, file.getvalue(), parents=False)


def read(path: Path, training: str) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Read what `write` wrote.

    Args:
        training: what the fact of this name must be.

    Raises:
        RunError: if the file is damaged, or of another training.
    """
    try:
        content = documents.arrays(path)
        facts = documents.parse(content.pop("facts").tobytes())
        documents.fields({})(facts, "facts")
        arrays: dict[str, list[np.ndarray]] = {}
        for name, array in content.items():
            arrays.setdefault(name.split("/")[0], []).append(array)
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}). Train again.") from None
    if facts.get("training") != training:
        raise RunError(f"{path}: this checkpoint is of a training with other settings.")
    return facts, arrays
