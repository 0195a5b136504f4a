"""False alarms of `imgclf drift` in 100 draws from the same distribution, and whether it names planted drifts: a probe
of half of the photographs of hand signs, beside draws of 200 from the other half.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/drift.py
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from processes import unzip, verdict

import imgclf
from imgclf import prediction
from imgclf.data.dataset import TEST, TRAIN, VALIDATION
from imgclf.questions import drift
from imgclf.questions.drift import Observed

DRAWS, SIZE = 100, 200


def drawn(observed: Observed, rows: np.ndarray) -> Observed:
    outlier = None if observed.outlier is None else observed.outlier[rows]
    return Observed(observed.probabilities[rows], outlier, observed.looks[rows])


def changed(files: list[Path], folder: Path, change: object) -> list[str]:
    """Copies of images after a change."""
    folder.mkdir()
    for number, file in enumerate(files):
        with Image.open(file) as image:
            change(image.convert("RGB")).save(folder / f"{number}.png")  # type: ignore[operator]
    return [str(folder / f"{number}.png") for number in range(len(files))]


def cast(image: Image.Image) -> Image.Image:
    """Another camera: 15% more red, 15% less blue."""
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * (1.15, 1, 0.85), 0, 255).astype(np.uint8))


def main() -> None:
    met = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, rng = Path(temporary), np.random.default_rng(0)
        dataset = imgclf.read(unzip("sign-digits", folder))
        order = rng.permutation(len(dataset))
        half, others = np.sort(order[: len(order) // 2]), order[len(order) // 2 :]
        splits = rng.permutation([TRAIN] * 6 + [VALIDATION, VALIDATION, TEST, TEST] * 1)
        own = tuple(replace(dataset.samples[row], split=str(splits[place % 10])) for place, row in enumerate(half))
        config = imgclf.TrainConfig(method="probe", export="litert")
        run = imgclf.train(replace(dataset, samples=own, settings=None), config, output=folder / "run")
        classifier = prediction.load(run.path)
        held = [folder / "sign-digits" / s.path for s in own if s.split != TRAIN]
        known, _ = drift.observe(classifier, list(map(str, held)), "run")
        files = [dataset.paths[row] for row in others]
        labels = dataset.labels[others]
        new, _ = drift.observe(classifier, list(map(str, files)), "new")

        alarms = 0
        for _ in range(DRAWS):
            rows = rng.choice(len(files), SIZE, replace=False)
            alarms += bool(drift.compare(known, drawn(new, rows), classifier.labels).alarms)
        met.append(verdict(f"alarms in {DRAWS} draws of {SIZE} images", alarms, 5, ""))

        rows = rng.choice(len(files), SIZE, replace=False)
        some = [files[row] for row in rows]
        objects = sorted(unzip("ants-bees", folder).rglob("*.jpg"))[:SIZE]
        planted = {
            "blur": changed(some, folder / "blurred", lambda image: image.filter(ImageFilter.GaussianBlur(1.5))),
            "color cast": changed(some, folder / "cast", cast),
            "other objects": list(map(str, objects)),
        }
        names = {"blur": "blur", "color cast": "red against green", "other objects": drift.NAMES["outliers"]}
        for name, places in planted.items():
            observed, _ = drift.observe(classifier, places, name)
            found = [shift.name for shift in drift.compare(known, observed, classifier.labels).alarms]
            print(f"{name}: {', '.join(found) or 'no alarm'}")
            met.append(names[name] in found)
        without = rng.choice(np.flatnonzero(labels != 0), SIZE, replace=False)
        found = [shift.name for shift in drift.compare(known, drawn(new, without), classifier.labels).alarms]
        print(f"a missing class: {', '.join(found) or 'no alarm'}")
        met.append(drift.NAMES["classes"] in found)
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
