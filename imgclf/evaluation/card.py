"""A run's model card: Markdown with the metadata that Hugging Face reads, from the same facts as the report."""

import json
from pathlib import Path
from typing import Any

from imgclf import runs
from imgclf.errors import RunError
from imgclf.evaluation import outputs, report
from imgclf.evaluation.report import markdown
from imgclf.runs import Run

NAME = "README.md"


def write(run: Run, path: Path | None = None) -> Path:
    """Write the card, by default as `README.md` in the run, where Hugging Face looks for it.

    Raises:
        RunError: if the run has no scores, or the card cannot be written.
    """
    path = path or run.path / NAME
    facts = report.collect(run, run.path, outputs.read_predictions(run.predictions))
    try:
        runs.write_atomic(path, text(facts).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunError(f"{path}: the card cannot be written ({error.strerror}). Choose another -o.") from None
    return path


def text(facts: dict[str, Any]) -> str:
    """The card's text.

    Args:
        facts: what `report.collect` returns.
    """
    scores, settings, data = facts["scores"], facts["settings"], facts["data"]
    name, names = facts["title"], scores["confusion_matrix"]["labels"]
    values = [
        (key, scores[key])
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
        if scores[key] is not None
    ]
    head = ["---", "library_name: imgclf", "pipeline_tag: image-classification", "tags:", "- image-classification"]
    head += ["- imgclf", "model-index:", f"- name: {_yaml(name)}", "  results:", "  - task:"]
    head += ["      type: image-classification", "    dataset:", f"      name: {_yaml(Path(data['path']).name)}"]
    head += [f"      type: {_yaml(Path(data['path']).name)}", "      split: test", "    metrics:"]
    for key, value in values:
        head += [f"    - type: {key}", f"      value: {_decimal(value)}"]
    lines = [*head, "---", "", f"# {markdown(name)}", ""]
    backbone, method = (str(settings.get(key, "unknown")) for key in ("backbone", "method"))
    lines += [
        f"Tells {len(names)} classes of images apart: {', '.join(markdown(n) for n in names[:30])}"
        + (f" and {len(names) - 30} more." if len(names) > 30 else "."),
        "",
        f"Backbone {markdown(backbone)}, method {markdown(method)}, {settings.get('image_size')} px; made with "
        f"imgclf {facts['imgclf']}.",
        "",
        "## How good it is",
        "",
        f"On {scores['n']} test images that it was not trained on:",
        "",
    ]
    body = report.to_markdown(facts).split("\n")
    table = body[2 : body.index("## Classes")]
    lines += [*table, *body[body.index("## Classes") : body.index("## Worst mistakes")]]
    lines += ["## Training data", ""]
    if data["sides"]:
        parts = ", ".join(f"{n} for {side}" for side, n in data["sides"].items())
        lines += [f"{data['images']} images: {parts}.", ""]
    lines += [f"SHA-256 of images, labels and split: `{data['sha256']}`.", ""]
    lines += [
        "## Limits",
        "",
        "The scores hold for images like those of the test part: of the same places, cameras and times. "
        + _refusals(facts),
        "",
        "## How to use",
        "",
        "```bash",
        "pip install imgclf",
        "imgclf predict . photo.jpg",
        "```",
        "",
        "## How to reproduce",
        "",
        "```bash",
        *(report.visible(line) for line in facts["reproduce"]),
        "```",
        "",
    ]
    return "\n".join(lines)


def _refusals(facts: dict[str, Any]) -> str:
    """What becomes of images that show none of the classes, by the rules of the run."""
    rules = facts["calibration"] or {}
    reasons = []
    if rules.get("outlier_above") is not None:
        reasons.append("is unlike all training images")
    if rules.get("reject_below"):
        reasons.append(f"has a confidence below {rules['reject_below']:.3g}")
    if not reasons:
        return "Every image gets one of the classes above, also one that shows none of them."
    found = f'An image that {" or ".join(reasons)} is answered "unknown"'
    measured = facts["scores"].get("decision")
    if measured:
        found += f"; of the test images, {1 - measured['answered']:.1%} are"
    return f"{found}. Others get one of the classes above, also where they show none of them."


def _decimal(value: float) -> str:
    """A number for YAML, which takes 1e-05 for a text."""
    text = f"{value:.6g}"
    return f"{value:.12f}" if "e" in text else text


def _yaml(value: str) -> str:
    """A text for YAML, of which JSON's strings are a part."""
    return json.dumps(report.visible(value), ensure_ascii=False)  # YAML knows no pairs of surrogates
