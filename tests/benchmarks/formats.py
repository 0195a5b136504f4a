"""Every export of a run, asked about the run's test part: how far it is from Keras, how good, how fast and how large.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/formats.py [--run RUN]

Without --run, a training with default settings on ants-bees makes it first. Prints the table of docs/export.md.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from processes import IMGCLF, measure, unzip

from imgclf import prediction, runs
from imgclf.data import images, run_data
from imgclf.exporting import artifacts
from imgclf.prediction import artifact
from imgclf.prediction.runtimes import RUNTIMES


def milliseconds(classifier: prediction.Classifier, pixels: np.ndarray, repeats: int = 5) -> float:
    """The median time for one image alone, in ms, without decoding."""
    seconds = []
    for image in np.concatenate([pixels[:1], pixels[:20].repeat(repeats, axis=0)]):
        begin = time.perf_counter()
        classifier.probabilities(image[np.newaxis])
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary) / "run"
        if options.run is None:
            measure([*IMGCLF, "train", unzip("ants-bees", Path(temporary)), "-o", folder])
        facts = artifact.read(folder)
        if any(name not in facts.files for format, name in artifacts.FILES.items() if format != "backbone"):
            measure([*IMGCLF, "export", folder, "--all"])
        facts, part = artifact.read(folder), run_data.read(runs.find(folder)).part("test")
        pixels = np.stack([images.load(path, facts.image_size, facts.decoding) for path in part.paths]).astype(
            np.float32
        )
        truth = np.array([facts.labels.index(sample.label) for sample in part.samples])
        expected = prediction.load(folder / "model.keras").probabilities(pixels)
        print(f"{facts.backbone} at {facts.image_size} px, {len(part)} images of the test part, compared with Keras\n")
        print("| file | same labels | largest difference | accuracy | ms an image | MiB |\n|---|--:|--:|--:|--:|--:|")
        for name, file in facts.files.items():
            if file.format not in RUNTIMES or name == "model.keras":  # the training's own, and what is no model
                continue
            for precision in (file.precision, *(key for key in file.agreement if key != file.precision)):
                classifier = prediction.load(folder / name, precision=precision)
                found = classifier.probabilities(pixels)
                same = (found.argmax(1) == expected.argmax(1)).mean()
                accuracy = (found.argmax(1) == truth).mean()
                called = (
                    f"`{name}`" if precision == "float32" or file.format == "litert" else f"`{name}` in {precision}"
                )
                print(
                    f"| {called} | {same:.1%} | {np.abs(found - expected).max():.1g} | {accuracy:.4f} "
                    f"| {milliseconds(classifier, pixels):.1f} | {file.bytes / 2**20:.1f} |"
                )


if __name__ == "__main__":
    main()
