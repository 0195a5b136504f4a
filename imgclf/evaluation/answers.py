"""The latest answer to each question about a run, kept in the run for its report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgclf import documents, runs, storage
from imgclf.evaluation.scorers import Table
from imgclf.runs import Run

FOLDER = "answers"
"""In a run: `NAME.json` for each question, the name of its command, and perhaps `NAME.png`."""

_TEXTS = documents.list_of(documents.text)
_TABLE = documents.fields({"title": documents.text, "columns": _TEXTS, "rows": documents.list_of(_TEXTS)})
SHAPE = documents.fields(
    {
        **dict.fromkeys(("question", "asked", "about", "text"), documents.text),
        "tables": documents.list_of(_TABLE),
    }
)
"""The shape of an answer's file."""


@dataclass(frozen=True)
class Answer:
    """The answer to a question, as the report shows it.

    Args:
        text: some sentences.
        about: the images that it was asked about, where they are not the run's own.
        picture: a PNG file.
    """

    question: str
    text: str
    tables: Sequence[Table]
    about: str = ""
    picture: bytes = b""


def write(run: Run, name: str, answer: Answer) -> Path:
    """Keep an answer, in place of a former one to the same question; the caller holds the lock of the run.

    Returns:
        Its file.

    Raises:
        OSError: if it cannot be written.
    """
    path = run.path / FOLDER / f"{name}.json"
    if answer.picture:
        storage.write_atomic(path.with_suffix(".png"), answer.picture)
    facts = {
        "question": answer.question,
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
        "about": answer.about,
        "text": answer.text,
        "tables": [
            {"title": title, "columns": list(columns), "rows": [[str(cell) for cell in row] for row in rows]}
            for title, columns, rows in answer.tables
        ],
    }
    storage.write_json(path, facts)
    return path


def read(run: Run) -> list[dict[str, Any]]:
    """Return what is kept, by name: `name`, `question`, `asked` (ISO 8601), `about`, `text`, and `tables`, each with
    `title`, `columns` and `rows`.

    Raises:
        RunError: if a file is damaged.
    """
    files = sorted((run.path / FOLDER).glob("*.json"))
    return [{"name": file.stem, **runs.read_json(file, SHAPE)} for file in files]


def picture(run: Run, name: str) -> bytes | None:
    """Return the picture of an answer, a PNG file, if it has one."""
    file = run.path / FOLDER / f"{name}.png"
    return file.read_bytes() if file.is_file() else None


_NUMBER = re.compile(r"([<>] )?[-+]?[\d.,]*(e[-+]\d+)?%?( to [\d.,]+)?")


def kinds(table: dict[str, Any]) -> list[str]:
    """Return the class of each column in HTML: `n` for numbers, `name` for text."""
    columns = zip(*table["rows"], strict=False)
    found = ["n" if all(map(_NUMBER.fullmatch, column)) else "name" for column in columns]
    return found + ["name"] * (len(table["columns"]) - len(found))


def asked(answer: dict[str, Any]) -> str:
    """Return when a question was asked, and about which images."""
    about = f" about {answer['about']}" if answer["about"] else ""
    return f"Asked on {answer['asked'][:16].replace('T', ' at ')} UTC{about}."
