"""Where answers go: pages in the style of the report, tables to fill in with a page of thumbnails, and the report."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from imgclf import storage
from imgclf.data import cells
from imgclf.errors import RunError, UsageError
from imgclf.evaluation import answers, report
from imgclf.evaluation.answers import Answer
from imgclf.runs import Run

log = logging.getLogger("imgclf")

SUFFIX = ".csv"

SHOWN = 10
"""Rows of each table in the terminal and in the report, at most."""


def render(template: str, **values: Any) -> bytes:
    """Fill in a template of this package."""
    from jinja2 import ChoiceLoader, PackageLoader

    environment = report.environment()
    environment.loader = ChoiceLoader([PackageLoader("imgclf.questions"), environment.loader])
    text: str = environment.get_template(template).render(**values)
    return text.encode("utf-8", "backslashreplace")


def check_name(table: Path) -> Path:
    """Return the name of the page beside a table.

    Raises:
        UsageError: if the name of the table does not end in .csv, or one of both exists.
    """
    storage.refuse_suffix(table, SUFFIX)
    page = table.with_suffix(".html")
    for file in (table, page):
        if file.exists():
            raise UsageError(f"{file}: the file exists, perhaps with your marks. Choose another -o, or remove it.")
    return page


def write(table: Path, rows: Iterable[Sequence[object]], template: str, **values: Any) -> list[Path]:
    """Write a table to fill in, and its page beside it; return both paths.

    Args:
        rows: the first is the header.
        values: of the template, which also gets `table`, the table's name.

    Raises:
        UsageError: as `check_name`, or if a file cannot be written.
    """
    page = check_name(table)
    storage.write_named(table, "".join(map(cells.line, rows)))
    storage.write_named(page, render(template, table=table.name, **values))
    return [table, page]


def keep(run: Run, name: str, answer: Answer) -> None:
    """Keep an answer in its run and show it in the reports there. A run that cannot be written is left as it is.

    Args:
        name: of the command.
    """
    try:
        with run.lock():
            file = answers.write(run, name, answer)
            shown = report.show_answers(run)
    except (OSError, RunError) as error:
        log.warning("This answer is not kept in the run (%s).", error)
        return
    if shown:
        log.info("%s shows this answer.", " and ".join(map(str, shown)))
    else:
        log.info("Wrote %s, which the next report shows.", file)
