"""Write the doctor's findings as one HTML file with thumbnails."""

import base64
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgclf.data import content, doctor, images
from imgclf.data.dataset import Dataset
from imgclf.data.doctor import Checkup, Finding
from imgclf.errors import ImageError, UsageError
from imgclf.storage import write_atomic

MOST_SHOWN = 60
"""Findings of a kind that are shown with thumbnails; the others are listed."""

MOST_PICTURES = 12
"""Thumbnails of one finding."""

THUMB_PX = 112


def write(dataset: Dataset, checkup: Checkup, path: Path) -> None:
    """Write the report.

    Raises:
        UsageError: if the file cannot be written.
    """
    try:
        write_atomic(path, render(dataset, checkup).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(f"--report {path}: the report cannot be written ({error.strerror}).") from None


def render(dataset: Dataset, checkup: Checkup) -> str:
    """Render the report as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("imgclf.data"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    labels = {sample.path: sample.label for sample in dataset.samples}
    sides = {sample.path: sample.split for sample in dataset.samples}
    sections = [kind | _section(dataset, checkup.of(kind["kind"]), labels, sides) for kind in checkup.kinds]
    return environment.get_template("doctor.html").render(
        name=dataset.name,
        images=len(dataset),
        classes=len(dataset.class_names),
        sections=sections,
        thresholds=checkup.to_dict()["thresholds"],
        unseen=[kind for kind in doctor.KINDS if not checkup.of(kind)],
        size_px=THUMB_PX,
    )


def _section(
    dataset: Dataset, findings: Sequence[Finding], labels: dict[str, str], sides: dict[str, str]
) -> dict[str, Any]:
    draw = functools.cache(lambda path: _thumbnail(dataset.root / path))
    shown = []
    for finding in findings[:MOST_SHOWN]:
        pictures = [
            {"path": path, "label": labels.get(path, ""), "side": sides.get(path, ""), "source": draw(path)}
            for path in finding.paths[:MOST_PICTURES]
        ]
        more = list(finding.paths[MOST_PICTURES:])
        shown.append({"text": finding.text, "classes": finding.classes, "pictures": pictures, "more": more})
    return {"shown": shown, "rest": list(_lines(findings[MOST_SHOWN:]))}


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{', '.join(finding.paths or finding.classes)}: {finding.text}"


def _thumbnail(path: Path) -> str:
    """Make a small JPEG as a data URI; "" if there is no image."""
    data = io.BytesIO()
    try:
        with content.of(path) as encoded, images.look(encoded, THUMB_PX) as (_, image):
            image.thumbnail((THUMB_PX, THUMB_PX))
            image.save(data, "JPEG", quality=80)
    except ImageError:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
