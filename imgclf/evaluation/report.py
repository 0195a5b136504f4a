"""A run's report: everything known of how good it is on one page, `report.html`, or as Markdown or JSON.

What a person typed (class names, paths, settings) is escaped in every format.
"""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import __version__, runs
from imgclf.data import run_data
from imgclf.data.dataset import SPLITS, TEST
from imgclf.errors import ArtifactError, ImgclfError, RunError, UsageError
from imgclf.evaluation import outputs, plots, thumbnails
from imgclf.evaluation.outputs import Predictions
from imgclf.prediction import artifact
from imgclf.runs import Run
from imgclf.settings import REPORT_FORMATS, Decoding, TrainConfig

NAME = "report"
DASH = "\N{EN DASH}"

SHOWN = 24
"""So many of the worst mistakes and of the least certain answers are shown."""

MOST_IMAGES = 500
"""So many thumbnails a page holds at most: about 2.5 MB."""

MOST_IN_CELL = 60
"""So many images of one cell of the confusion matrix are listed."""

MOST_CLASSES = 120
"""Above so many classes the confusion matrix is a picture instead of a table."""

HEADLINES = {
    "accuracy": ("Accuracy", "share of right answers"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes"),
    "macro_f1": ("Macro F1", "mean over the classes"),
    "weighted_f1": ("Weighted F1", "mean over the classes by their images"),
    "macro_precision": ("Macro precision", "mean over the classes"),
    "macro_specificity": ("Macro specificity", "mean over the classes"),
    "cohen_kappa": ("Cohen's kappa", "agreement beyond chance"),
    "matthews": ("Matthews correlation", "-1 to 1, 0 is chance"),
    "macro_roc_auc": ("ROC area", "mean over the classes, each against the rest"),
    "macro_average_precision": ("Average precision", "mean over the classes, each against the rest"),
    "log_loss": ("Log loss", "nats, lower is better"),
    "brier": ("Brier score", "0 to 2, lower is better"),
}
"""The scores of the summary: what they are called, and what they are."""


def write(
    run: Run, folder: Path | None = None, *, files: Mapping[str, Path] | None = None, formats: Sequence[str] = ("html",)
) -> list[Path]:
    """Write the report on the scores that lie in a folder.

    Args:
        folder: where `metrics.json` and `predictions.csv` are, and where the report goes; by default the run.
        files: where the images that `predictions.csv` names lie; by default where the run found them.
        formats: some of `html`, `md` and `json`.

    Returns:
        The files, one for each format.

    Raises:
        RunError: if the scores are missing or damaged, or the report cannot be written.
        UsageError: if there is no such format.
    """
    unknown = [name for name in formats if name not in REPORT_FORMATS]
    if unknown:
        raise UsageError(f"--format: expected some of {', '.join(REPORT_FORMATS)}, found {', '.join(unknown)}.")
    folder = folder or run.path
    predictions = outputs.read_predictions(folder / run.predictions.name)
    facts = collect(run, folder, predictions)
    written = []
    for name in formats:
        path = folder / f"{NAME}.{name}"
        if name == "html":
            text = _to_html(facts, predictions, _files(run) if files is None else files)
        elif name == "md":
            text = to_markdown(facts)
        else:
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        try:
            runs.write_atomic(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise RunError(f"{path}: the report cannot be written ({error.strerror}).") from None
        written.append(path)
    return written


def collect(run: Run, folder: Path, predictions: Predictions) -> dict[str, Any]:
    """Everything that the report tells, ready for JSON.

    Returns:
        `title`, `imgclf`, `scores` (the content of `metrics.json`), `data`, `history`, `calibration`, `settings`,
        `defaults` (the names of settings that were left alone), `environment`, `reproduce` (commands), `mistakes` and
        `unsure` (rows of `predictions.csv`, worst first), and `folds` where there are some.
    """
    config = run.read_config()
    settings = config["config"]
    scores = runs.read_json(folder / run.metrics.name)
    if not isinstance(scores, dict) or "calibration" not in scores:
        raise RunError(
            f"{folder / run.metrics.name}: expected all scores of this version of imgclf, found those of an older one. "
            "imgclf evaluate writes them anew."
        )
    return {
        "title": run.path.resolve().name,
        "part": "" if folder == run.path else folder.name,
        "imgclf": __version__,
        "created": config.get("created", ""),
        "scores": scores,
        "data": _data(run, config),
        "history": _history(run.history),
        "calibration": _calibration(run),
        "settings": settings,
        "defaults": sorted(k for k, value in settings.items() if getattr(TrainConfig, k, None) == value),
        "environment": {**config.get("versions", {}), **config.get("hardware", {})},
        "reproduce": _commands(run, config),
        **_rankings(predictions),
        "folds": runs.read_json(folder / "folds.json") if (folder / "folds.json").is_file() else None,
    }


def _data(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"path": config["data"], "sha256": config.get("data_sha256", ""), "sides": {}, "groups": 0}
    try:
        dataset = run_data.read(run, verify=False)
    except RunError:  # a folder of scores alone
        return found
    sides = (TEST,) if "kfold" in config else SPLITS  # folds test every image
    counts = {side: dataset.counts(side) for side in sides}
    return found | {
        "images": len(dataset),
        "classes": {name: {side: counts[side][name] for side in sides} for name in dataset.class_names},
        "sides": {side: sum(counts[side].values()) for side in sides},
        "groups": len({s.group for s in dataset.samples if s.group}),
    }


def _history(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, csv.Error, ValueError):
        return []


def _calibration(run: Run) -> dict[str, Any] | None:
    try:
        facts = artifact.read(run.path)
    except ArtifactError:
        return None
    return {"temperature": facts.temperature, "reject_below": facts.reject_below, **asdict(facts.decision)}


def _commands(run: Run, config: dict[str, Any]) -> list[str]:
    folder, data = run.path, Path(config["data"])
    again = folder.with_name(f"{folder.name}-again")
    command = ["imgclf", "train", str(data), "--config", str(run.config), "-o", str(again)]
    if folds := config.get("kfold"):
        if Run(folder.parent).config.is_file():
            command = ["imgclf", "evaluate", str(folder.parent), "--kfold", str(folds["folds"])]
        else:
            counts = [part for name, n in folds.items() for part in (f"--{name}", str(n))]
            command = ["imgclf", "kfold", str(data), *counts, *_options(config["config"]), "-o", str(again)]
    return [f"pip install imgclf=={config.get('imgclf', __version__)}", shlex.join(command)]


def _options(settings: dict[str, Any]) -> list[str]:
    """The options of `imgclf kfold` that say what differs from the defaults; folds are never exported."""
    found = []
    for name, value in settings.items():
        if name != "export" and value != getattr(TrainConfig, name, value):
            found += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return found


def _rankings(predictions: Predictions) -> dict[str, list[dict[str, Any]]]:
    """The mistakes that the model was surest of, and the answers that were least certain."""
    if not len(predictions.paths):
        return {"mistakes": [], "unsure": []}
    probabilities = predictions.probabilities
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    second = np.sort(probabilities, axis=1)[:, -2]
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")]
    unsure = np.argsort(confidence - second, kind="stable")
    return {
        "mistakes": [_row(predictions, int(row)) for row in mistakes[:SHOWN]],
        "unsure": [_row(predictions, int(row)) for row in unsure[:SHOWN]],
    }


def _row(predictions: Predictions, row: int) -> dict[str, Any]:
    chances, names = predictions.probabilities[row], predictions.class_names
    second, best = np.argsort(chances, kind="stable")[-2:]
    best = int(chances.argmax())
    return {
        "row": row,
        "path": predictions.paths[row],
        "label": names[predictions.labels[row]],
        "predicted": names[best],
        "confidence": round(float(chances[best]), 6),
        "of_label": round(float(chances[predictions.labels[row]]), 6),
        "second": names[int(second)] if int(second) != best else names[int(np.argsort(-chances, kind="stable")[1])],
    }


def _files(run: Run) -> dict[str, Path]:
    try:
        return run_data.read(run, verify=False).files
    except ImgclfError:  # a folder of scores alone
        return {}


def _decoding(settings: dict[str, Any]) -> Decoding:
    return Decoding(window=settings.get("window"), allow_truncated=settings.get("allow_truncated", False))


def _to_html(facts: dict[str, Any], predictions: Predictions, files: Mapping[str, Path]) -> str:
    pictures = {
        "reliability": plots.reliability(facts["scores"]),
        "curves": plots.curves(predictions),
        "history": plots.history(facts["history"]),
    }
    cells, wanted = _cells(predictions, [r["row"] for key in ("mistakes", "unsure") for r in facts[key]])
    wanted = [row for row in wanted if predictions.paths[row] in files]
    paths = [files[predictions.paths[row]] for row in wanted]
    drawn = dict(zip(wanted, thumbnails.draw_all(paths, _decoding(facts["settings"])), strict=True))
    names = facts["scores"]["confusion_matrix"]["labels"]
    return (
        _environment()
        .get_template("report.html")
        .render(
            **facts,
            headlines=_headlines(facts["scores"]),
            matrix=_matrix(facts["scores"]) if len(names) <= MOST_CLASSES else None,
            matrix_picture=None
            if len(names) <= MOST_CLASSES
            else _png(plots.to_png(plots.draw_confusion_matrix(facts["scores"]))),
            names=names,
            cells=cells,
            thumbs={row: uri for row, uri in drawn.items() if uri},
            pictures={name: _png(content) if content else None for name, content in pictures.items()},
        )
    )


def _png(content: bytes) -> str:
    return thumbnails.data_uri(content, "image/png")


def _headlines(scores: dict[str, Any]) -> list[tuple[str, str, float | None, list[float] | None]]:
    rows = [(name, what, scores[key], scores["intervals"].get(key)) for key, (name, what) in HEADLINES.items()]
    for k, share in scores["top_k"].items():
        if k != "1":
            what = f"how often the true class is among the {k} most probable"
            rows.append((f"Top-{k} accuracy", what, share, scores["intervals"].get(f"top_{k}")))
    return rows


def _matrix(scores: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The confusion matrix as cells: `n`, and its share of its row and of its column."""
    counts = np.array(scores["confusion_matrix"]["counts"])
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
    """The cells of the confusion matrix that hold images: `true`, `predicted` (places), `n`, and `rows` to list.

    Returns:
        The cells, and the rows of which thumbnails are drawn: those in `first`, then of every mistake cell in turn its
        surest, then right answers.
    """
    predicted = predictions.probabilities.argmax(axis=1)
    confidence = predictions.probabilities.max(axis=1)
    found: dict[tuple[int, int], list[int]] = {}
    for row in np.argsort(-confidence, kind="stable").tolist():
        found.setdefault((int(predictions.labels[row]), int(predicted[row])), []).append(row)
    wanted = list(dict.fromkeys(first))
    for wrong in (True, False):
        listed = [rows[:MOST_IN_CELL] for place, rows in sorted(found.items()) if (place[0] != place[1]) == wrong]
        for rank in range(MOST_IN_CELL):
            wanted += [rows[rank] for rows in listed if rank < len(rows)]
    cells = [
        {
            "true": true,
            "predicted": said,
            "n": len(rows),
            "images": [_row(predictions, row) for row in rows[:MOST_IN_CELL]],
        }
        for (true, said), rows in sorted(found.items())
    ]
    return cells, list(dict.fromkeys(wanted))[:MOST_IMAGES]


def _environment() -> Any:
    """Jinja2 with everything escaped, and numbers as people read them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("imgclf.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "visible": visible, "ends": _ends}
    return environment


def _number(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.1%}"


def _ends(ends: Sequence[float] | None) -> str:
    return DASH if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def visible(text: object) -> str:
    """Text without characters that have no shape, such as those that turn its direction; they become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def to_markdown(facts: dict[str, Any]) -> str:
    """The report as Markdown: the same numbers, without pictures."""
    scores = facts["scores"]
    title = f"{facts['title']} on {facts['part']}" if facts["part"] else facts["title"]
    lines = [f"# {markdown(title)}", ""]
    lines += _table(
        ("score", "value", "95 % interval"),
        [(name, _number(value), _ends(ends)) for name, _, value, ends in _headlines(scores)],
    )
    lines += [f"n = {scores['n']}. Expected calibration error {scores['calibration']['ece']:.3f}.", ""]
    lines += [f"- {markdown(warning)}" for warning in scores["warnings"]] + [""] * bool(scores["warnings"])
    lines += ["## Classes", ""]
    rows = [
        (name, *(_number(row[key]) for key in ("precision", "recall", "f1")), _ends(row["intervals"]["recall"]),
         _number(row["roc_auc"]), row["support"])
        for name, row in scores["per_class"].items()
    ]  # fmt: skip
    lines += _table(("class", "precision", "recall", "F1", "recall, 95 %", "ROC area", "images"), rows)
    if scores["most_confused"]:
        lines += ["## Most confused", ""]
        pairs = [(*pair["classes"], *pair["counts"]) for pair in scores["most_confused"]]
        lines += _table(("class", "and class", "first taken for second", "second for first"), pairs)
    if facts["folds"]:
        lines += ["## Folds", ""]
        rows = [(r["fold"], r["n"], *(_number(r[k]) for k in facts["folds"]["keys"])) for r in facts["folds"]["rows"]]
        lines += _table(("fold", "images", *facts["folds"]["keys"]), rows)
    lines += ["## Worst mistakes", ""]
    lines += _table(
        ("image", "true", "predicted", "confidence"),
        [(row["path"], row["label"], row["predicted"], _percent(row["confidence"])) for row in facts["mistakes"]],
    )
    lines += ["## How to reproduce", "", "```bash", *map(visible, facts["reproduce"]), "```", ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(markdown(str(cell)) for cell in row)} |" for row in rows), ""]


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: on one line, with HTML and marks escaped."""
    plain = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in plain)
