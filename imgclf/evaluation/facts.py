"""The facts of a report: everything known about how good a run is, ready for HTML, Markdown and JSON."""

import csv
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import __version__, documents, runs
from imgclf.data import run_data
from imgclf.data.dataset import SPLITS, TEST
from imgclf.errors import ArtifactError, RunError
from imgclf.evaluation import answers, learned, robustness, scorers, slices
from imgclf.evaluation.outputs import Predictions
from imgclf.evaluation.sums import REJECTED
from imgclf.prediction import artifact
from imgclf.runs import Run
from imgclf.settings import TrainConfig, preprocessing

SHOWN = 24
"""How many of the worst mistakes and of the least certain predictions are shown."""

_FOLDS = documents.fields(
    {
        "keys": documents.list_of(documents.text),
        "rows": documents.list_of(documents.fields({"fold": documents.text, "n": runs.COUNT})),
        "summary": documents.map_of(
            documents.fields({"mean": runs.SCORE, "deviation": runs.SCORE, "interval": runs.INTERVAL})
        ),
        "sentence": documents.text,
    }
)


TUNE = "tune.json"
"""In a run with the best settings of a search: how they were found."""

TRIALS = 20
"""Trials in the report, at most."""

_TUNE = documents.fields(
    {
        "sentence": documents.text,
        "importance": documents.map_of(documents.number(0, 1)),
        "trials": documents.list_of(
            documents.fields(
                {"number": runs.COUNT, "state": documents.text, "score": runs.SCORE, "settings": runs.SETTINGS}
            )
        ),
    }
)


def _folds(value: Any, where: str) -> None:
    """Check what a report relies on in a `folds.json`."""
    _FOLDS(value, where)
    for row in value["rows"]:
        documents.fields(dict.fromkeys(value["keys"], runs.SCORE))(row, "rows")
    documents.fields(dict.fromkeys(value["keys"], documents.anything))(value["summary"], "summary")


CHANGED = "The rules have changed since these scores were computed: imgclf evaluate recomputes them."


def collect(run: Run, folder: Path, predictions: Predictions, stage: Path | None = None) -> dict[str, Any]:
    """Collect everything that the report tells, ready for JSON.

    Args:
        folder: the run, or where other scores of it belong.
        stage: where the files of the folder lie as long as they are not complete.

    Returns:
        `title`, `imgclf`, `scores` (the content of `metrics.json`), `warnings` (sentences), `data`,
        `preprocessing` (a sentence on the steps before the model, empty without any), `history`,
        `calibration` (temperature and rules), `settings`, `defaults` (the names of settings at their defaults),
        `environment`, `reproduce` (commands), `mistakes` and `unsure` (rows of `predictions.csv`, worst first),
        `robustness` and `slices` where they were asked for, `answers` as `answers.read` returns them,
        `folds` for cross-validation, and `learned`, what `learned.collect` says of a classical model.

    Raises:
        RunError: if the scores are missing or damaged, or were written by an older version.
    """
    found = learned.collect(run, predictions.class_names)
    return about(run, folder, stage) | _rankings(predictions) | {"learned": found}


def about(run: Run, folder: Path, stage: Path | None = None) -> dict[str, Any]:
    """Collect what the report of any task tells: what `collect` returns, without predictions.

    Args:
        folder, stage: as for `collect`.

    Raises:
        RunError: if the scores are missing or damaged, or were written by an older version.
    """
    config = run.read_config()
    settings = config["config"]
    place = stage or folder
    scores = scorers.read_scores(run, place)
    rules = _calibration(run)
    return {
        "title": run.path.resolve().name,
        "part": "" if folder == run.path else folder.name,
        "imgclf": __version__,
        "created": config.get("created", ""),
        "scores": scores,
        "warnings": [*scores.get("warnings", []), *([CHANGED] if _changed(scores, rules) else [])],
        "data": _data(run, config),
        "preprocessing": preprocessing.told(settings.get("preprocess")),
        "history": _history(run.history_file),
        "calibration": rules,
        "settings": settings,
        "defaults": sorted(k for k, value in settings.items() if getattr(TrainConfig, k, None) == value),
        "environment": {**config.get("versions", {}), **config.get("hardware", {})},
        "reproduce": _commands(run, config),
        "folds": runs.read_json(place / "folds.json", _folds) if (place / "folds.json").is_file() else None,
        "robustness": _optional(place / robustness.FILE, robustness.SHAPE),
        "slices": _optional(place / slices.FILE, slices.SHAPE),
        "tune": _optional(run.path / TUNE, _TUNE),
        "answers": answers.read(run) if folder == run.path else [],
    }


def _optional(path: Path, shape: documents.Shape) -> Any:
    return runs.read_json(path, shape) if path.is_file() else None


def trials(found: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the best trials of a search as columns and rows."""
    names = list(dict.fromkeys(name for row in found["trials"] for name in row["settings"]))
    rows = []
    for row in found["trials"][:TRIALS]:
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        rows.append((str(row["number"]), *(str(row["settings"].get(name, "")) for name in names), score, row["state"]))
    return ("trial", *names, "accuracy", "state"), rows


def _data(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"path": config["data"], "sha256": config.get("data_sha256", ""), "splits": {}, "groups": 0}
    try:
        dataset = run_data.read(run, verify=False)
    except RunError:  # a folder of scores alone
        return found
    splits = (TEST,) if "kfold" in config else SPLITS  # folds test every image
    counts = {split: dataset.counts(split) for split in splits}
    return found | {
        "images": len(dataset),
        "classes": {name: {split: counts[split][name] for split in splits} for name in dataset.class_names},
        "splits": {split: sum(counts[split].values()) for split in splits},
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
    return {"temperature": facts.temperature, **asdict(facts.decision)}


def _changed(scores: dict[str, Any], rules: dict[str, Any] | None) -> bool:
    """Whether the scores were computed under other rules than those that the run has now."""
    used = scores.get("decision", {}).get("rules")
    if used is None or rules is None:
        return False
    return used != {key: value for key, value in rules.items() if value is not None and key != "temperature"}


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
    """Return the options of `imgclf kfold` for settings that are not the defaults; folds are never exported."""
    found = []
    for name, value in settings.items():
        if name != "export" and value != getattr(TrainConfig, name, value):
            found += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return found


def _rankings(predictions: Predictions) -> dict[str, list[dict[str, Any]]]:
    """Return the most confident mistakes, and the least certain predictions. Rejected images are not mistakes."""
    if not len(predictions.paths):
        return {"mistakes": [], "unsure": []}
    confidence, wrong = predictions.confidence, predictions.predicted != predictions.labels
    wrong = np.flatnonzero(wrong & (predictions.predicted != REJECTED))
    ordered = np.sort(predictions.probabilities, axis=1)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")]
    unsure = np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")
    return {
        "mistakes": [describe(predictions, int(row)) for row in mistakes[:SHOWN]],
        "unsure": [describe(predictions, int(row)) for row in unsure[:SHOWN]],
    }


def describe(predictions: Predictions, row: int) -> dict[str, Any]:
    """One prediction: `row`, `path`, `label`, `predicted` (None if rejected), `confidence`, `of_label` (the probability
    of the true class) and `second`, the most probable other class."""
    chances, names = predictions.probabilities[row], predictions.class_names
    predicted = int(predictions.predicted[row])
    shown = int(chances.argmax()) if predicted == REJECTED else predicted
    order = np.argsort(-chances, kind="stable")
    return {
        "row": row,
        "path": predictions.paths[row],
        "label": names[predictions.labels[row]],
        "predicted": None if predicted == REJECTED else names[predicted],
        "confidence": round(float(predictions.confidence[row]), 6),
        "of_label": round(float(chances[predictions.labels[row]]), 6),
        "second": names[int(order[order != shown][0])],
    }
