"""The end of a training or an evaluation in plain words: how good, how sure, what to look at, what to do next."""

import shlex
from pathlib import Path
from typing import Any

from imgclf.data.dataset import listed
from imgclf.evaluation import report, scorers
from imgclf.evaluation.metrics import FEW_GROUPS
from imgclf.runs import Run
from imgclf.settings import DataConfig

WIDE = 0.1
"""From this width on, an interval is called wide, with the reason and a remedy."""

RARE = 5
"""A class with fewer than 1/RARE of the training images of the largest is called rare."""

GOOD = 0.95
"""From this balanced accuracy on, the next step is to use the model rather than to improve it."""


def lines(run: Run, folder: Path, scores: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
    """Return the result and its interval in plain words, where the report is, and the two most useful commands.

    Args:
        folder: where the scores and the report are.
        scores: the content of `metrics.json`.
        train_counts: training images of each class; empty if unknown.
    """
    found = [_result(scores), *pages(folder)]
    untested = [name for name, row in scores["per_class"].items() if not row["support"]]
    if untested:
        found.insert(1, f"Not tested, as the test images contain none of it: {listed(map(repr, untested))}.")
    first, second = _commands(run, scores, train_counts)[:2]
    return [*found, f"Next: {first}", f"  or: {second}"]


def pages(folder: Path) -> list[str]:
    """Where the report of a folder is, if there is one."""
    page = folder / f"{report.NAME}.html"
    return [f"Look at the mistakes and the curves: open {short(page)}"] if page.is_file() else []


def _result(scores: dict[str, Any]) -> str:
    low, high = (f"{100 * end:.0f}" for end in scores["intervals"]["accuracy"])
    text = (
        f"About {100 * scores['accuracy']:.0f} of 100 images like these are classified correctly; with "
        f"{scores['n']:,} test images, the true figure probably lies between {low} and {high}."
    )
    groups = scores.get("groups", 0)
    if 0 < groups < FEW_GROUPS:
        return f"{text} They come from {groups} group{'s' * (groups > 1)} only; more groups would make it surer."
    if _is_wide(scores):
        return f"{text} 4 times as many test images would halve this range."
    return text


def _is_wide(scores: dict[str, Any]) -> bool:
    low, high = scores["intervals"]["accuracy"]
    return bool(high - low > WIDE)


def short(path: str | Path) -> str:
    """Return a path as a person would type it here."""
    place = Path(path).absolute()
    return shlex.quote(str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else path))


def _commands(run: Run, scores: dict[str, Any], train_counts: dict[str, int]) -> list[str]:
    """Commands with their purpose, the most useful first."""
    config = run.read_config()
    settings, folder = config["config"], short(run.path)
    train, found = " ".join(["imgclf train", short(config["data"]), *_read_as(settings)]), []
    most = max(train_counts.values(), default=0)
    model = scores.get("argmax", {})  # a rejected image is no mistake that weights would mend
    model = model if "per_class" in model else scores
    tested = [name for name, row in scores["per_class"].items() if row["support"]]
    recalls = {name: model["per_class"][name]["recall"] for name in tested}
    rare = [name for name, count in train_counts.items() if count * RARE < most and name in recalls]
    missed = [f"{name!r}, recall {recalls[name]:.2f}" for name in rare if recalls[name] < model["accuracy"]]
    if missed and settings.get("balance") == "none":
        found.append(f"{train} --balance weights (rare, and missed more often than others: {'; '.join(missed[:3])})")
    if _is_wide(scores):
        found.append(f"imgclf evaluate {folder} --kfold 5 (tests every image once)")
    is_probe = settings.get("method") == "probe" and settings.get("model", "network") == "network"
    if is_probe and scores["balanced_accuracy"] < GOOD:
        found.append(f"{train} --method finetune (trains upper layers, too)")
    found.append(f"imgclf predict {folder} IMAGES (classifies new images)")
    found.append(f"imgclf calibrate {folder} --reject-below auto (rejects unsure images)")
    return found


def _read_as(settings: dict[str, Any]) -> list[str]:
    """Return the options without which the same data would be read, or split, in another way."""
    found = []
    for name, usual in DataConfig().to_dict().items():
        value = settings.get(name, usual)
        if value != usual:
            option = f"--{name.replace('_', '-')}"
            found.append(option if value is True else f"{option} {shlex.quote(str(value))}")
    return found


def of_run(run: Run, folder: Path | None = None) -> list[str]:
    """Return the lines for the scores in a folder, by default the run, as its task says; none where nothing was scored.

    Raises:
        RunError: if a file of the run is damaged.
    """
    from imgclf.data import run_data
    from imgclf.data.dataset import TRAIN

    folder = folder or run.path
    metrics = folder / run.metrics.name
    if not metrics.is_file():
        return []
    counts = run_data.read(run, splits=(TRAIN,), verify=False).counts(TRAIN) if run.manifest.is_file() else {}
    return scorers.of(run).conclude(run, folder, scorers.read_scores(run, folder), counts)
