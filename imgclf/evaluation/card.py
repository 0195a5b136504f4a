"""A run's model card: Markdown with metadata for Hugging Face, from the same facts as the report."""

import json
from pathlib import Path
from typing import Any

from imgclf import storage, tasks
from imgclf.errors import RunError
from imgclf.evaluation import facts as facts_of
from imgclf.evaluation import outputs, report, scorers
from imgclf.evaluation.report import markdown
from imgclf.runs import Run

NAME = "README.md"


def write(run: Run, path: Path | None = None) -> Path:
    """Write the card, by default as `README.md` in the run, where Hugging Face looks for it.

    Raises:
        RunError: if the run has no scores, or the card cannot be written.
    """
    tasks.refuse(scorers.task_of(run), "card")
    path = path or run.path / NAME
    facts = facts_of.collect(run, run.path, outputs.read_predictions(run.predictions))
    try:
        storage.write_atomic(path, text(facts).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunError(f"{path}: the card cannot be written ({error.strerror}). Choose another -o.") from None
    return path


MODEL = ("model", "backbone", "method")
"""The settings that say which model it is."""


def text(facts: dict[str, Any]) -> str:
    """Return the card's text.

    Args:
        facts: what `facts.collect` returned.
    """
    scores, settings, data = facts["scores"], facts["settings"], facts["data"]
    names = scores["confusion_matrix"]["labels"]
    made = ", ".join(f"{key} {markdown(str(settings[key]))}" for key in MODEL if key in settings)
    lines = [*_metadata(facts), "", f"# {markdown(facts['title'])}", ""]
    lines += [
        f"Classifies images into {len(names)} classes: {', '.join(markdown(n) for n in names[:30])}"
        + (f" and {len(names) - 30} more." if len(names) > 30 else "."),
        "",
        f"{made[:1].upper()}{made[1:]}, {settings.get('image_size')} px; made with imgclf {facts['imgclf']}.",
        "",
        "## How good it is",
        "",
        f"On {scores['n']} test images, none of them used in training:",
        "",
    ]
    body = report.to_markdown(facts).split("\n")
    classes = body.index("## Classes")
    lines += [*body[2:classes], *body[classes : body.index("## Worst mistakes")]]
    lines += ["## Training data", ""]
    if data["splits"]:
        parts = ", ".join(f"{n} for {split}" for split, n in data["splits"].items())
        lines += [f"{data['images']} images: {parts}.", ""]
    lines += [f"SHA-256 of images, labels and split: `{data['sha256']}`.", "", "## Limits", ""]
    lines += ["The scores hold for images like those of the test part: from the same places, cameras and times. "]
    lines[-1] += _rejection(facts)
    lines += ["", "## How to use", "", "```bash", "pip install imgclf", "imgclf predict . photo.jpg", "```", ""]
    lines += ["## How to reproduce", "", "```bash", *map(report.visible, facts["reproduce"]), "```", ""]
    return "\n".join(lines)


def _metadata(facts: dict[str, Any]) -> list[str]:
    """The lines of YAML that Hugging Face reads."""
    scores, data = facts["scores"], _yaml(Path(facts["data"]["path"]).name)
    keys = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    head = ["---", "library_name: imgclf", "pipeline_tag: image-classification", "tags:", "- image-classification"]
    head += ["- imgclf", "model-index:", f"- name: {_yaml(facts['title'])}", "  results:", "  - task:"]
    head += ["      type: image-classification", "    dataset:", f"      name: {data}"]
    head += [f"      type: {data}", "      split: test", "    metrics:"]
    for key in keys:
        if scores[key] is not None:
            head += [f"    - type: {key}", f"      value: {_decimal(scores[key])}"]
    return [*head, "---"]


def _rejection(facts: dict[str, Any]) -> str:
    """Tell what the rules of the run make of images that show none of the classes."""
    rules = facts["calibration"] or {}
    reasons = []
    if rules.get("outlier_above") is not None:
        reasons.append("is unlike the training images")
    if rules.get("reject_below"):
        reasons.append(f"has a confidence below {rules['reject_below']:.3g}")
    if not reasons:
        return "Every image gets one of the classes above, including images that show none of them."
    found = f'An image that {" or ".join(reasons)} is rejected as "unknown"'
    if decided := facts["scores"].get("decision"):
        found += f": {1 - decided['answered']:.1%} of the test images"
    return f"{found}. All others get one of the classes above, including images that show none of them."


def _decimal(value: float) -> str:
    """Format a number for YAML, which reads 1e-05 as text."""
    text = f"{value:.6g}"
    return f"{value:.12f}" if "e" in text else text


def _yaml(value: str) -> str:
    """Quote text for YAML, which includes JSON's strings."""
    return json.dumps(report.visible(value), ensure_ascii=False)  # YAML rejects surrogates
