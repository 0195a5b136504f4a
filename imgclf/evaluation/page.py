"""The report of a task other than multi-class, from blocks that its scorer makes: `report.html`, Markdown or JSON.

What a person typed (class names, paths, settings) is escaped in every format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgclf.evaluation import facts as facts_of
from imgclf.evaluation import plots, report, thumbnails
from imgclf.runs import Run

Headline = tuple[str, str, float | None, Sequence[float] | None]
"""A score: its name, what it is, its value and its 95% interval."""


@dataclass(frozen=True)
class Block:
    """One section of a report.

    Args:
        text: a sentence or two.
        columns: of the table, of which the first column is text and the others numbers.
        plot: a PNG file.
        images: paths of images with their captions.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    plot: bytes = b""
    images: Sequence[tuple[str, str]] = field(default=())


def write(
    run: Run,
    folder: Path,
    headlines: Sequence[Headline],
    blocks: Sequence[Block],
    *,
    files: Mapping[str, Path] | None,
    formats: Sequence[str],
    stage: Path | None = None,
) -> list[Path]:
    """Write the report on the scores in a folder.

    Args:
        headlines: the scores; the first four are shown large.
        files: where the images in the blocks lie; by default, where the run found them.
        formats: some of `html`, `md` and `json`.
        stage: where the files of the folder lie as long as they are not complete.

    Returns:
        The files, one per format.

    Raises:
        RunError: if the scores are missing or damaged, or the report cannot be written.
        UsageError: if a format is unknown.
    """
    facts = facts_of.about(run, folder, stage)
    blocks = [*_folds(facts["folds"]), *blocks]
    known = report.run_files(run) if files is None else files
    texts = {
        "html": lambda: _to_html(facts, headlines, blocks, known),
        "md": lambda: to_markdown(facts, headlines, blocks),
    }
    return report.write_formats(stage or folder, facts, texts, formats)


def _folds(found: dict[str, Any] | None) -> list[Block]:
    """Return the scores of the folds of a cross-validation, if it is one."""
    if not found:
        return []
    rows = [(row["fold"], row["n"], *(report.number(row[key]) for key in found["keys"])) for row in found["rows"]]
    columns = ("fold", "images", *(key.replace("_", " ") for key in found["keys"]))
    return [Block("Folds", found["sentence"], columns, rows)]


def _to_html(
    facts: dict[str, Any], headlines: Sequence[Headline], blocks: Sequence[Block], files: Mapping[str, Path]
) -> str:
    decoding = report.decoding(facts["settings"])
    shown = list(dict.fromkeys(path for block in blocks for path, _ in block.images if path in files))
    drawn = dict(zip(shown, thumbnails.draw_all([files[path] for path in shown], decoding), strict=True))
    history = plots.history(facts["history"])
    return str(
        report.environment()
        .get_template("page.html")
        .render(
            **facts,
            headlines=headlines,
            blocks=blocks,
            pictures=[thumbnails.data_uri(block.plot, "image/png") if block.plot else None for block in blocks],
            thumbs={path: uri for path, uri in drawn.items() if uri},
            curve=thumbnails.data_uri(history, "image/png") if history else None,
        )
    )


def to_markdown(facts: dict[str, Any], headlines: Sequence[Headline], blocks: Sequence[Block]) -> str:
    """Return the report as Markdown: the same numbers, without plots."""
    title = f"{facts['title']} on {facts['part']}" if facts["part"] else facts["title"]
    rows = [(name, report.number(value), report.interval(ends)) for name, _, value, ends in headlines]
    lines = [f"# {report.markdown(title)}", "", *report.table(("score", "value", "95% interval"), rows)]
    lines += [f"n = {facts['scores']['n']}.", ""]
    lines += [f"- {report.markdown(warning)}" for warning in facts["warnings"]] + [""] * bool(facts["warnings"])
    lines += [report.markdown(facts["preprocessing"]), ""] * bool(facts["preprocessing"])
    for block in blocks:
        lines += [f"## {block.title}", ""]
        lines += [report.markdown(block.text), ""] if block.text else []
        lines += report.table(block.columns, block.rows) if block.rows else []
        lines += report.table(("image", ""), block.images) if block.images else []
    lines += ["## How to reproduce", "", "```bash", *map(report.visible, facts["reproduce"]), "```", ""]
    return "\n".join(lines)
