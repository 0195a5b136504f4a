"""A run's model card: Markdown with metadata for Hugging Face, from the same facts as the report."""

import json
from pathlib import Path
from typing import Any

from imgclf import storage
from imgclf.errors import RunError
from imgclf.evaluation import facts as facts_of
from imgclf.evaluation import report, scorers
from imgclf.evaluation.report import markdown
from imgclf.evaluation.scorers import Described
from imgclf.runs import Run

NAME = "README.md"


def write(run: Run, path: Path | None = None) -> Path:
    """Write the card, by default as `README.md` in the run, where Hugging Face looks for it.

    Raises:
        RunError: if the run has no scores, or the card cannot be written.
    """
    path, scorer = path or run.path / NAME, scorers.of(run)
    scorer.read(run.predictions)  # a run that was scored has them
    facts = facts_of.about(run, run.path)
    content = text(facts, scorer.described(facts))
    try:
        storage.write_atomic(path, content.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunError(f"{path}: the card cannot be written ({error.strerror}). Choose another -o.") from None
    return path


MODEL = ("model", "backbone", "method")
"""The settings that say which model it is."""

METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "log_loss"),
    *("mean_average_precision", "subset_accuracy", "r2", "mae", "rmse", "spearman"),
)
"""The scores in the metadata, as far as the task has them."""


def text(facts: dict[str, Any], described: Described) -> str:
    """Return the card's text.

    Args:
        facts: what `facts.about` returned.
        described: what the scorer of the task says of them.
    """
    scores, settings, data = facts["scores"], facts["settings"], facts["data"]
    made = ", ".join(f"{key} {markdown(str(settings[key]))}" for key in MODEL if key in settings)
    lines = [*_metadata(facts, described.kind), "", f"# {markdown(facts['title'])}", "", described.purpose, ""]
    lines += [
        f"{made[:1].upper()}{made[1:]}, {settings.get('image_size')} px; made with imgclf {facts['imgclf']}.",
        *([markdown(facts["preprocessing"])] if facts["preprocessing"] else []),
        "",
        "## How good it is",
        "",
        f"On {scores['n']} test images, none of them used in training:",
        "",
        *described.scores,
    ]
    lines += ["## Training data", ""]
    if data["splits"]:
        parts = ", ".join(f"{n} for {split}" for split, n in data["splits"].items())
        lines += [f"{data['images']} images: {parts}.", ""]
    lines += [f"SHA-256 of images, labels and split: `{data['sha256']}`.", "", "## Limits", ""]
    lines += ["The scores hold for images like those of the test part: from the same places, cameras and times. "]
    lines[-1] += described.limits
    lines += ["", "## How to use", "", "```bash", "pip install imgclf", "imgclf predict . photo.jpg", "```", ""]
    lines += ["## How to reproduce", "", "```bash", *map(report.visible, facts["reproduce"]), "```", ""]
    return "\n".join(lines)


def _metadata(facts: dict[str, Any], kind: str) -> list[str]:
    """Return the lines of YAML that Hugging Face reads."""
    scores, data = facts["scores"], _yaml(Path(facts["data"]["path"]).name)
    head = ["---", "library_name: imgclf", f"pipeline_tag: {kind}", "tags:", f"- {kind}", "- imgclf"]
    head += ["model-index:", f"- name: {_yaml(facts['title'])}", "  results:", "  - task:", f"      type: {kind}"]
    head += ["    dataset:", f"      name: {data}", f"      type: {data}", "      split: test", "    metrics:"]
    for key in METRICS:
        if scores.get(key) is not None:
            head += [f"    - type: {key}", f"      value: {_decimal(scores[key])}"]
    return [*head, "---"]


def _decimal(value: float) -> str:
    """Format a number for YAML, which reads 1e-05 as text."""
    text = f"{value:.6g}"
    return f"{value:.12f}" if "e" in text else text


def _yaml(value: str) -> str:
    """Quote text for YAML, which includes JSON's strings."""
    return json.dumps(report.visible(value), ensure_ascii=False)  # YAML rejects surrogates
