"""How a model's accuracy changes when its test images are corrupted, by kind and severity."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import documents, storage
from imgclf.data import images
from imgclf.data.dataset import Sample
from imgclf.evaluation import plots
from imgclf.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import Classifier, Prediction

log = logging.getLogger(__name__)

FILE, PLOT, SHEET = "robustness.json", "robustness.png", "robustness_images.png"

FILES = (FILE, PLOT, SHEET)

INVARIANT = 0.95
"""Share of images that keep their prediction under a shift, from which a model counts as invariant to it."""

SHEET_PX = 96

_SCORE = {"accuracy": documents.number(0, 1), "interval": documents.pair_of(documents.number(0, 1))}
SHAPE = documents.fields(
    {
        "n": documents.number(1, whole=True),
        "plain": documents.fields(_SCORE),
        "rows": documents.list_of(
            documents.fields(
                {
                    **_SCORE,
                    **dict.fromkeys(("kind", "aspect", "unit"), documents.text),
                    **dict.fromkeys(
                        ("severity", "strength", "change", "unchanged", "rejected", "argmax"), documents.number()
                    ),
                }
            )
        ),
        "worst": documents.text,
        "translation": documents.text,
    }
)
"""The shape of `robustness.json`."""

Progress = Callable[[str, int, int | None], None]


def chosen(samples: Sequence[Sample], most: int, seed: int = 0) -> list[int]:
    """Return the images to corrupt: all, or that many, drawn from each class by its share."""
    if len(samples) <= most:
        return list(range(len(samples)))
    rng = np.random.default_rng(seed)
    labels = np.array([sample.label for sample in samples])
    order = rng.permutation(len(samples))
    order = order[np.argsort(labels[order], kind="stable")]
    return sorted(order[np.linspace(0, len(order) - 1, most).round().astype(int)].tolist())


def measure(
    classifier: Classifier,
    samples: Sequence[Sample],
    files: Mapping[str, Path],
    *,
    most: int,
    batch_size: int,
    on_progress: Progress,
) -> tuple[dict[str, Any], np.ndarray]:
    """Score a model on corrupted images.

    The randomness of a corruption follows from the image's content, the kind and the severity, so all models see the
    same images.

    Args:
        samples: readable test images with their true classes.
        files: by the samples' paths.
        most: images to corrupt.

    Returns:
        `n`, `plain` (`accuracy`, `interval`), `rows` (`kind`, `aspect`, `severity`, `strength`, `unit`, `accuracy`,
        `interval`, `change`; `unchanged`, the share of images with the prediction that they have uncorrupted;
        `rejected`, that of rejected images, which count as errors; `argmax`, the accuracy without rejection),
        `worst` and `translation` (sentences); and the contact sheet's images, uint8 (kinds, 4, s, s, 3).
    """
    places = chosen(samples, most)
    kept = [samples[place] for place in places]
    pixels = [images.load(files[s.path], classifier.image_size, classifier.decoding) for s in kept]
    others = _others([sample.label for sample in kept])
    seeds = [int(hashlib.sha256(one.tobytes()).hexdigest()[:12], 16) for one in pixels]
    labels = [sample.label for sample in kept]

    def shown(kind: str, severity: int) -> Iterator[np.ndarray]:
        number = list(KINDS).index(kind)
        for place, one in enumerate(pixels):
            rng = np.random.default_rng((seeds[place], number, severity))
            yield corrupt(one, kind, severity, rng, pixels[others[place]])

    def predicted(source: Iterator[np.ndarray]) -> list[Prediction]:
        return list(classifier.stream(source, batch_size))

    done, total = 0, (1 + len(KINDS) * len(SEVERITIES)) * len(pixels)
    plain = predicted(iter(pixels))
    accuracy, ends = _accuracy(plain, labels)
    rows = []
    for kind, about in KINDS.items():
        for severity in SEVERITIES:
            done += len(pixels)
            on_progress("corrupted images", done, total)
            found = predicted(shown(kind, severity))
            share, interval = _accuracy(found, labels)
            rows.append(
                {
                    "kind": kind,
                    "aspect": about.aspect,
                    "severity": severity,
                    "strength": about.strengths[severity - 1],
                    "unit": about.unit,
                    "accuracy": share,
                    "interval": interval,
                    "change": share - accuracy,
                    "unchanged": float(
                        np.mean([one.label == two.label for one, two in zip(found, plain, strict=True)])
                    ),
                    "rejected": float(np.mean([one.rejected for one in found])),
                    "argmax": float(np.mean([one.argmax == label for one, label in zip(found, labels, strict=True)])),
                }
            )
    facts = {
        "n": len(kept),
        "of": len(samples),
        "plain": {"accuracy": accuracy, "interval": ends},
        "rows": rows,
        "worst": worst(rows, accuracy),
        "translation": translation(rows),
    }
    example = pixels[0]
    sheet = [
        [example, *(corrupt(example, kind, s, np.random.default_rng((seeds[0], number, s)), pixels[others[0]])
                    for s in SEVERITIES)]
        for number, kind in enumerate(KINDS)
    ]  # fmt: skip
    return facts, np.array(sheet)


def _others(labels: Sequence[str]) -> list[int]:
    """For each image the next one of another class; itself where all have the same."""
    count, found = len(labels), []
    for place, label in enumerate(labels):
        ahead = (other % count for other in range(place + 1, place + count))
        found.append(next((other for other in ahead if labels[other] != label), place))
    return found


def _accuracy(found: Sequence[Prediction], labels: Sequence[str]) -> tuple[float, list[float]]:
    correct = sum(one.label == label for one, label in zip(found, labels, strict=True))
    return correct / len(labels), list(wilson(correct, len(labels)))


def worst(rows: Sequence[Mapping[str, Any]], plain: float) -> str:
    """Return the row with the lowest accuracy, as a sentence; of several, the one of the lowest severity."""
    row = min(rows, key=lambda row: (row["accuracy"], row["severity"]))
    low, high = row["interval"]
    if row["accuracy"] >= plain:
        return f"No corruption lowers the accuracy of {plain:.3f}."
    return (
        f"Worst: {row['kind']} ({row['strength']:g} {row['unit']}, severity {row['severity']}) lowers the accuracy "
        f"from {plain:.3f} to {row['accuracy']:.3f} (95% CI {low:.3f} to {high:.3f}); {row['rejected']:.1%} of the "
        f"images are rejected, and without rejection the accuracy is {row['argmax']:.3f}."
    )


def translation(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether predictions are invariant to translation, as a sentence."""
    own = sorted((row for row in rows if row["kind"] == "translation"), key=lambda row: row["severity"])
    kept = ", ".join(f"{row['unchanged']:.1%} (by {row['strength']:.0%})" for row in own)
    least = min(row["unchanged"] for row in own)
    verdict = "nearly invariant" if least >= INVARIANT else "not invariant"
    return f"The model is {verdict} to translation: shifted images that keep their prediction: {kept} of the side."


def write(folder: Path, facts: Mapping[str, Any], sheet: np.ndarray) -> None:
    """Write `robustness.json`, the plot and the contact sheet.

    Raises:
        OSError: if a file cannot be written.
    """
    storage.write_json(folder / FILE, facts)
    storage.write_atomic(folder / PLOT, draw(facts))
    storage.write_atomic(folder / SHEET, draw_sheet(sheet))


def draw(facts: Mapping[str, Any]) -> bytes:
    """Draw accuracy by severity, one panel for each aspect. A PNG file."""
    aspects = list(dict.fromkeys(kind.aspect for kind in KINDS.values()))
    columns = 4
    lines = -(-len(aspects) // columns)
    figure = plots.new_figure(10.0, 2.3 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    plain = facts["plain"]["accuracy"]
    for axes, aspect in zip(panels, aspects, strict=False):
        kinds = [name for name, kind in KINDS.items() if kind.aspect == aspect]
        for place, name in enumerate(kinds):
            own = [row for row in facts["rows"] if row["kind"] == name]
            values = [plain, *(row["accuracy"] for row in own)]
            ends = np.array([facts["plain"]["interval"], *(row["interval"] for row in own)]).T
            at, color = (0, *SEVERITIES), plots.TEN[place]
            axes.plot(at, values, color=color, linewidth=1.5, marker="o", markersize=3, label=name)
            axes.fill_between(at, *ends, color=color, alpha=0.12, linewidth=0)
        axes.set(title=aspect, xticks=(0, *SEVERITIES), ylim=(0, 1.02))
        axes.title.set_fontsize(9)
        if len(kinds) > 1:
            axes.legend(fontsize=7, frameon=False, loc="lower left")
        plots.tidy(axes)
    for axes in panels[len(aspects) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("accuracy", fontsize=9)
    for axes in panels[max(0, len(aspects) - columns) : len(aspects)]:
        axes.set_xlabel("severity", fontsize=9)
    figure.tight_layout()
    return plots.to_png(figure)


def draw_sheet(rows: np.ndarray) -> bytes:
    """Draw what the model was shown: one image by kind and severity. A PNG file.

    Args:
        rows: uint8 (kinds, 4, s, s, 3).
    """
    half = -(-len(KINDS) // 2)
    figure = plots.new_figure(10.0, 1.16 * half)
    panels = figure.subplots(half, 8, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for place, name in enumerate(KINDS):
        line, block = place % half, place // half
        for severity in range(4):
            axes = panels[line, 4 * block + severity]
            axes.imshow(rows[place, severity])
            if line == 0:
                axes.set_title(f"severity {severity}", fontsize=7, color="0.3")
        panels[line, 4 * block].text(
            -0.06, 0.5, name, transform=panels[line, 4 * block].transAxes, fontsize=8, ha="right", va="center"
        )
    figure.subplots_adjust(left=0.07, right=0.99, top=0.97, bottom=0.01, wspace=0.06, hspace=0.06)
    for axes in panels[:, 4:].ravel():  # room for the names of the second block
        box = axes.get_position()
        axes.set_position((box.x0 + 0.07, box.y0, box.width, box.height))
    return plots.to_png(figure)


COLUMNS = (
    *("corruption", "severity 0", "severity 1", "severity 2", "severity 3"),
    *("95% CI at 3", "same prediction at 3", "rejected at 3"),
)


def table(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Accuracy by kind and severity, as the columns `COLUMNS`."""
    rows = []
    for kind in dict.fromkeys(row["kind"] for row in facts["rows"]):
        own = [row for row in facts["rows"] if row["kind"] == kind]
        low, high = own[-1]["interval"]
        scores = [f"{value:.3f}" for value in (facts["plain"]["accuracy"], *(row["accuracy"] for row in own))]
        shares = (f"{own[-1][name]:.1%}" for name in ("unchanged", "rejected"))
        rows.append((kind, *scores, f"{low:.3f} to {high:.3f}", *shares))
    return rows
