"""A run's report: everything known about how good it is on one page, `report.html`, or as Markdown or JSON.

What a person typed (class names, paths, settings) is escaped in every format.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, runs, storage
from imgclf.data import relocate, run_data
from imgclf.data.dataset import listed
from imgclf.errors import ArtifactError, ImgclfError, MissingError, RunError, UsageError
from imgclf.evaluation import answers, decisions, learned, metrics, outputs, plots, robustness, slices, thumbnails
from imgclf.evaluation import facts as facts_of
from imgclf.evaluation.outputs import Predictions
from imgclf.evaluation.sums import REJECTED
from imgclf.prediction import heatmaps
from imgclf.runs import Run
from imgclf.settings import REPORT_FORMATS, Decoding

log = logging.getLogger(__name__)

NAME = "report"
DASH = "\N{EN DASH}"

MOST_IMAGES = 500
"""Thumbnails on a page, at most: about 2.5 MB."""

MOST_IN_CELL = 60
"""Images listed for one cell of the confusion matrix, at most."""

MOST_EVIDENCE = 8
"""Mistakes whose class activation maps are drawn, at most."""

MOST_CLASSES = 120
"""With more classes, the confusion matrix is a plot instead of a table."""

HEADLINES = {
    "accuracy": ("Accuracy", "share of correct predictions"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall over the classes"),
    "macro_f1": ("Macro F1", "mean over the classes"),
    "weighted_f1": ("Weighted F1", "mean over the classes, weighted by their images"),
    "macro_precision": ("Macro precision", "mean over the classes"),
    "macro_specificity": ("Macro specificity", "mean over the classes"),
    "cohen_kappa": ("Cohen's kappa", "agreement beyond chance"),
    "matthews": ("Matthews correlation", "-1 to 1, 0 is chance"),
    "macro_roc_auc": ("ROC AUC", "mean over the classes, each against the rest"),
    "macro_average_precision": ("Average precision", "mean over the classes, each against the rest"),
    "log_loss": ("Log loss", "nats, lower is better"),
    "brier": ("Brier score", "0 to 2, lower is better"),
}
"""The scores of the summary: their names, and what they are."""


def write(
    run: Run,
    folder: Path | None = None,
    *,
    files: Mapping[str, Path] | None = None,
    formats: Sequence[str] = ("html",),
    stage: Path | None = None,
) -> list[Path]:
    """Write the report on the scores in a folder.

    Args:
        folder: where `metrics.json` and `predictions.csv` are, and where the report goes; by default the run.
        files: where the images in `predictions.csv` lie; by default, where the run found them.
        formats: some of `html`, `md` and `json`.
        stage: where the files of the folder lie as long as they are not complete.

    Returns:
        The files, one per format.

    Raises:
        RunError: if the scores are missing or damaged, or the report cannot be written.
        UsageError: if a format is unknown.
    """
    folder = folder or run.path
    predictions = outputs.read_predictions((stage or folder) / run.predictions.name)
    facts = facts_of.collect(run, folder, predictions, stage)
    known = run_files(run, predictions.paths) if files is None else files
    place = stage or folder
    texts = {"html": lambda: _to_html(run, facts, predictions, known, place), "md": lambda: to_markdown(facts)}
    return write_formats(stage or folder, facts, texts, formats)


def write_formats(
    place: Path, facts: dict[str, Any], texts: Mapping[str, Callable[[], str]], formats: Sequence[str]
) -> list[Path]:
    """Write a report in some formats.

    Args:
        texts: for `html` and `md`, what makes the text.

    Raises:
        RunError: if a file cannot be written.
        UsageError: if a format is unknown.
    """
    unknown = [name for name in formats if name not in REPORT_FORMATS]
    if unknown:
        raise UsageError(f"--format: expected some of {', '.join(REPORT_FORMATS)}, found {', '.join(unknown)}.")
    written = []
    for name in formats:
        path = place / f"{NAME}.{name}"
        text = texts[name]() if name in texts else json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        try:
            storage.write_atomic(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise RunError(f"{path}: the report cannot be written ({error.strerror}).") from None
        written.append(path)
    return written


def run_files(run: Run, paths: Collection[str] | None = None) -> dict[str, Path]:
    """Where images of a run lie (all, or those of some paths), without those that have changed since training.

    Empty for a folder of scores alone.
    """
    try:
        dataset = run_data.read(run, verify=False)
    except ImgclfError:
        return {}
    if paths is not None:
        wanted = set(paths)
        dataset = replace(dataset, samples=tuple(s for s in dataset.samples if s.path in wanted))
    changed = relocate.changes(dataset)
    if changed:
        log.warning("Not shown, since they have changed since training: %s.", listed(changed))
    return {path: file for path, file in dataset.files.items() if path not in changed}


def decoding(settings: dict[str, Any]) -> Decoding:
    """How the images of a run become pixels, by its settings."""
    return Decoding(window=settings.get("window"), allow_truncated=settings.get("allow_truncated", False))


def _to_html(run: Run, facts: dict[str, Any], predictions: Predictions, files: Mapping[str, Path], place: Path) -> str:
    shown = {
        "reliability": plots.reliability(facts["scores"]),
        "curves": plots.curves(predictions),
        "history": plots.history(facts["history"]),
    }
    cells, wanted = _cells(predictions, [r["row"] for key in ("mistakes", "unsure") for r in facts[key]])
    wanted = [row for row in wanted if predictions.paths[row] in files]
    paths = [files[predictions.paths[row]] for row in wanted]
    drawn = dict(zip(wanted, thumbnails.draw_all(paths, decoding(facts["settings"])), strict=True))
    names = facts["scores"]["confusion_matrix"]["labels"]
    large = len(names) > MOST_CLASSES
    return (
        environment()
        .get_template("report.html")
        .render(
            **facts,
            headlines=_headlines(facts["scores"]),
            matrix=None if large else _matrix(facts["scores"]),
            matrix_plot=_png(plots.to_png(plots.draw_confusion_matrix(facts["scores"]))) if large else None,
            names=names,
            columns=metrics.outcomes(facts["scores"])[1],
            cells=cells,
            thumbs={row: uri for row, uri in drawn.items() if uri},
            drawn_depth=learned.DRAWN_DEPTH,
            tree=_image(learned.draw_tree(run, predictions.class_names)),
            support=_support(facts, run),
            evidence=_evidence(run, facts["mistakes"], files),
            coverage=decisions.describe(facts["scores"]),
            plots={name: _image(content) for name, content in shown.items()},
            corrupted=_corrupted(place, facts["robustness"]),
            slice_table=slices.table(facts["slices"]) if facts["slices"] else (),
            slice_columns=slices.COLUMNS,
            trials=facts_of.trials(facts["tune"]) if facts["tune"] else None,
            answered=_answered_html(run, facts["answers"]),
        )
    )


_BEGIN, _END = "<!-- answers -->", "<!-- end of answers -->"
"""Lines around the answers, in HTML and in Markdown. What a person typed cannot make such a line: it is escaped."""

_ANSWERED = re.compile(f"^{_BEGIN}\n.*?^{_END}$".encode(), re.DOTALL | re.MULTILINE)


def show_answers(run: Run) -> list[Path]:
    """Show the latest answers in the reports of a run. The rest of each stays as it is, which takes no image and no
    model; a report of an older version, without a place for answers, is left alone.

    Returns:
        The reports that show them.

    Raises:
        RunError: if an answer is damaged.
        OSError: if a report cannot be written.
    """
    found, shown = answers.read(run), []
    for name in ("html", "md"):
        path = run.path / f"{NAME}.{name}"
        before = path.read_bytes() if path.is_file() else b""
        if place := _ANSWERED.search(before):
            text: str = _answered_html(run, found) if name == "html" else _answered_markdown(found)
            answered = text.encode("utf-8", "backslashreplace")
            storage.write_atomic(path, before[: place.start()] + answered + before[place.end() :])
            shown.append(path)
    path = run.path / f"{NAME}.json"
    if path.is_file():
        facts = runs.read_json(path, documents.map_of(documents.anything)) | {"answers": found}
        storage.write_json(path, facts)
        shown.append(path)
    return shown


def _answered_html(run: Run, found: Sequence[dict[str, Any]]) -> Any:
    from markupsafe import Markup

    pictures = [_image(answers.picture(run, answer["name"])) for answer in found]
    template = environment().get_template("answers.html")
    body = template.render(answers=found, pictures=pictures, kinds_of=answers.kinds, asked=answers.asked)
    return Markup(f"{_BEGIN}\n{body}\n{_END}")  # the template escapes what it is given


def _answered_markdown(found: Sequence[dict[str, Any]]) -> str:
    lines = [_BEGIN]
    for answer in found:
        texts = markdown(answer["text"]), "", markdown(answers.asked(answer))
        lines += [f"## {markdown(answer['question'])}", "", *texts]
        for each in answer["tables"]:
            columns = [markdown(name) for name in each["columns"]]
            lines += ["", f"### {markdown(each['title'])}", "", *table(columns, each["rows"])[:-1]]
        lines.append("")
    return "\n".join([*lines, _END])


def _corrupted(place: Path, found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the section on robustness shows besides its sentences."""
    if found is None:
        return None
    sheet = place / robustness.SHEET
    return {
        "plot": _png(robustness.draw(found)),
        "sheet": _png(sheet.read_bytes()) if sheet.is_file() else None,
        "columns": robustness.COLUMNS,
        "rows": robustness.table(found),
    }


def _evidence(run: Run, mistakes: Sequence[dict[str, Any]], files: Mapping[str, Path]) -> dict[int, tuple[str, ...]]:
    """Draw class activation maps of the worst mistakes, by row: for the predicted class, and for the true one.

    Empty where the run has no exported model with a feature map.
    """
    shown = [row for row in mistakes if row["predicted"] is not None and row["path"] in files][:MOST_EVIDENCE]
    try:
        found = heatmaps.strips(
            run.path, [(files[row["path"]], row["predicted"], row["label"]) for row in shown], thumbnails.SIDE_PX
        )
    except (ArtifactError, MissingError, UsageError) as error:
        log.debug("%s: no class activation maps in the report (%s)", run.path, error)
        return {}
    return {row["row"]: tuple(map(thumbnails.to_uri, pair)) for row, pair in zip(shown, found, strict=True) if pair}


def _support(facts: dict[str, Any], run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Return the thumbnails of an SVM's support vectors and what is known of them, as far as the images are here."""
    shown = ((facts["learned"] or {}).get("support_vectors") or {}).get("largest", [])
    files = run_files(run, [row["path"] for row in shown]) if shown else {}
    here = [row for row in shown if row["path"] in files]
    drawn = thumbnails.draw_all([files[row["path"]] for row in here], decoding(facts["settings"]))
    return [(uri, row) for uri, row in zip(drawn, here, strict=True) if uri]


def _image(content: bytes | None) -> str | None:
    return _png(content) if content else None


def _png(content: bytes) -> str:
    return thumbnails.data_uri(content, "image/png")


def _headlines(scores: dict[str, Any]) -> list[tuple[str, str, float | None, list[float] | None]]:
    rows = [(name, what, scores[key], scores["intervals"].get(key)) for key, (name, what) in HEADLINES.items()]
    for k, share in scores["top_k"].items():
        if k != "1":
            what = f"share of images whose true class is among the {k} most probable"
            rows.append((f"Top-{k} accuracy", what, share, scores["intervals"].get(f"top_{k}")))
    return rows


def _matrix(scores: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the confusion matrix as cells: `n`, and its share of its row and of its column."""
    counts, _ = metrics.outcomes(scores)
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    of_column = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    return [
        [
            {"n": int(n), "row": float(of_row[i, j]), "column": float(of_column[i, j])}
            for j, n in enumerate(line.tolist())
        ]
        for i, line in enumerate(counts)
    ]


def _cells(predictions: Predictions, first: Sequence[int]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the cells of the confusion matrix with images: `true` and `column` (indices), `n`, and `images` to list.

    Returns:
        The cells, and the rows whose thumbnails are drawn: those in `first`, then the most confident of each cell of
        mistakes in turn, then correct predictions.
    """
    last = len(predictions.class_names)  # the column of rejected images
    columns = np.where(predictions.predicted == REJECTED, last, predictions.predicted)
    found: dict[tuple[int, int], list[int]] = {}
    for row in np.argsort(-predictions.confidence, kind="stable").tolist():
        found.setdefault((int(predictions.labels[row]), int(columns[row])), []).append(row)
    wanted = list(dict.fromkeys(first))
    for incorrect in (True, False):
        listed = [rows[:MOST_IN_CELL] for place, rows in sorted(found.items()) if (place[0] != place[1]) == incorrect]
        for rank in range(MOST_IN_CELL):
            wanted += [rows[rank] for rows in listed if rank < len(rows)]
    cells = [
        {
            "true": true,
            "column": column,
            "n": len(rows),
            "images": [facts_of.describe(predictions, row) for row in rows[:MOST_IN_CELL]],
        }
        for (true, column), rows in sorted(found.items())
    ]
    return cells, list(dict.fromkeys(wanted))[:MOST_IMAGES]


def environment() -> Any:
    """Jinja2 with everything escaped, and filters for numbers."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("imgclf.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "percent": _percent, "visible": visible, "ends": interval}
    return found


def number(value: float | None, digits: int = 3) -> str:
    """Show a number, or a dash for none."""
    return DASH if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.1%}"


def interval(ends: Sequence[float] | None) -> str:
    """Show the ends of an interval."""
    return DASH if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def visible(text: object) -> str:
    """Escape unprintable characters, such as those that change the direction of text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def to_markdown(facts: dict[str, Any]) -> str:
    """Return the report as Markdown: the same numbers, without plots."""
    scores = facts["scores"]
    title = f"{facts['title']} on {facts['part']}" if facts["part"] else facts["title"]
    lines = [f"# {markdown(title)}", ""]
    lines += table(
        ("score", "value", "95% interval"),
        [(name, number(value), interval(ends)) for name, _, value, ends in _headlines(scores)],
    )
    lines += [f"n = {scores['n']}. Expected calibration error {scores['calibration']['ece']:.3f}.", ""]
    covered = decisions.describe(scores)
    lines += [covered, ""] if covered else []
    lines += [f"- {markdown(warning)}" for warning in facts["warnings"]] + [""] * bool(facts["warnings"])
    lines += [markdown(facts["preprocessing"]), ""] * bool(facts["preprocessing"])
    lines += ["## Classes", ""]
    rows = [
        (name, *(number(row[key]) for key in ("precision", "recall", "f1")), interval(row["intervals"]["recall"]),
         number(row["roc_auc"]), row["support"])
        for name, row in scores["per_class"].items()
    ]  # fmt: skip
    lines += table(("class", "precision", "recall", "F1", "recall, 95% interval", "ROC AUC", "images"), rows)
    if scores["most_confused"]:
        lines += ["## Most confused", ""]
        pairs = [(*pair["classes"], *pair["counts"]) for pair in scores["most_confused"]]
        lines += table(("class", "and class", "first as second", "second as first"), pairs)
    lines += _learned(facts["learned"])
    if facts["folds"]:
        lines += ["## Folds", ""]
        rows = [(r["fold"], r["n"], *(number(r[k]) for k in facts["folds"]["keys"])) for r in facts["folds"]["rows"]]
        lines += table(("fold", "images", *facts["folds"]["keys"]), rows)
    if facts["robustness"]:
        lines += ["## Robustness", "", *(markdown(facts["robustness"][key]) for key in ("worst", "translation")), ""]
        lines += table(robustness.COLUMNS, robustness.table(facts["robustness"]))
    if facts["slices"]:
        lines += ["## Slices", "", markdown(facts["slices"]["sentence"]), ""]
        lines += table(slices.COLUMNS, slices.table(facts["slices"]))
    if facts["tune"]:
        lines += ["## Search for these settings", "", markdown(facts["tune"]["sentence"]), ""]
        lines += table(*facts_of.trials(facts["tune"]))
    lines += [_answered_markdown(facts["answers"]), ""]
    lines += ["## Worst mistakes", ""]
    lines += table(
        ("image", "true", "predicted", "confidence"),
        [(row["path"], row["label"], row["predicted"], _percent(row["confidence"])) for row in facts["mistakes"]],
    )
    lines += ["## How to reproduce", "", "```bash", *map(visible, facts["reproduce"]), "```", ""]
    return "\n".join(lines)


def _learned(found: dict[str, Any] | None) -> list[str]:
    """Return what a classical model learned, as lines of Markdown."""
    if found is None:
        return []
    if "tree" in found:
        rules = "\n".join(visible(line).replace("`", "'") for line in found["tree"].splitlines())
        return ["## Tree", "", f"{found['nodes']} nodes, depth {found['depth']}.", "", "```", rules, "```", ""]
    support = found["support_vectors"]
    lines = ["## Support vectors", "", f"{support['count']} of {support['of']} training images.", ""]
    return lines + table(("image", "class", "coefficient"), [tuple(row.values()) for row in support["largest"]])


def named(names: Sequence[str], most: int = 30) -> str:
    """Return names in Markdown, separated by commas, with a full stop."""
    shown = ", ".join(markdown(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more." if len(names) > most else f"{shown}."


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a table of Markdown, and an empty line."""
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(markdown(str(cell)) for cell in row)} |" for row in rows), ""]


def summary(headline: str, tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]]) -> list[str]:
    """Return a headline and tables, each its title, columns and rows, as lines of Markdown."""
    lines = [f"{headline[:1].upper()}{headline[1:]}.", ""]
    for title, columns, rows in tables:
        lines += [f"## {title}", "", *table(columns, rows)]
    return lines


def markdown(text: str) -> str:
    """Escape text so that Markdown shows it as it is, on one line."""
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in plain)
