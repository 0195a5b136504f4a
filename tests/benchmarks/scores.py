"""What scoring costs, apart from the model: 10,000 predictions of 100 classes with every score, interval and plot and
the report in all formats, as a whole process.

    python tests/benchmarks/scores.py [--images N] [--classes N]

The images exist, so that the report draws its thumbnails.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from processes import measure, show, verdict

SECONDS, PEAK_MIB, PAGE_MB = 20.0, 1024.0, 15.0

SCORE = """
import sys
from pathlib import Path

from imgclf import storage
from imgclf.evaluation import metrics, outputs, plots, report
from imgclf.runs import Run

run = Run(Path(sys.argv[1]))
found = outputs.read_predictions(run.predictions)
scores = metrics.score(found.labels, found.probabilities, found.class_names)
outputs.write_predictions(run.predictions, found.paths, found.labels, found.probabilities, found.class_names)
storage.write_json(run.metrics, scores)
plots.confusion_matrix(run.path / "confusion_matrix.png", scores)
report.write(run, formats=("html", "md", "json"))
"""


def make(folder: Path, n: int, classes: int) -> Path:
    """A run of a model that is right in about three of four cases, and its photographs, of which 100 are different."""
    from imgclf import runs, storage
    from imgclf.data.dataset import TEST, Dataset, Sample, write_manifest
    from imgclf.evaluation import outputs

    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(100):
        noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noise.save(folder / "images" / f"{number}.jpg")
    names = [f"class {i:03}" for i in range(classes)]
    labels = rng.integers(0, classes, n)
    paths = []
    for row in range(n):
        path = folder / "images" / f"photograph-{row:05}.jpg"
        os.link(folder / "images" / f"{row % 100}.jpg", path)
        paths.append(path.name)
    logits = rng.normal(0, 1.5, (n, classes))
    logits[np.arange(n), labels] += 6
    powers = np.exp(logits)
    run = runs.create(folder / "run")
    samples = tuple(Sample(p, names[i], TEST, sha256=p) for p, i in zip(paths, labels, strict=True))
    write_manifest(Dataset(folder / "images", samples, tuple(names)), run.manifest)
    run.write_labels(names)
    storage.write_json(run.config, {"data": str(folder / "images"), "config": {}})
    outputs.write_predictions(run.predictions, paths, labels, powers / powers.sum(axis=1, keepdims=True), names)
    return run.path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = make(Path(temporary), options.images, options.classes)
        cost = show("all scores, plots and the report", [measure([sys.executable, "-c", SCORE, path])])
        page_mb = (path / "report.html").stat().st_size / 1e6
    met = verdict("seconds", cost.seconds, SECONDS, " s")
    met &= verdict("peak memory", cost.peak_mib, PEAK_MIB, " MiB")
    met &= verdict("report.html", page_mb, PAGE_MB, " MB")
    sys.exit(not met)


if __name__ == "__main__":
    main()
