"""Where the defaults of training come from: one setting at a time is changed, and each value is cross-validated.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/defaults.py [DATA...] [--images N] [--folds N] [--only SETTING,...]

DATA is sign-digits (photographs of 100 px, even ground) or blood-cells (boxes of 10 to 300 px). No test part is looked
at: the images of the training part, or all where there is none, are dealt into folds. The default backbone, offline.
It all takes about 40 minutes on two cores.
"""

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from processes import unzip

import imgclf
from imgclf.data.dataset import TRAIN, UNASSIGNED, Dataset
from imgclf.tasks import logistic

PROBE: dict[str, object] = {"method": "probe", "image_size": 224}
STAGE: dict[str, object] = {
    "method": "finetune",
    "image_size": 160,
    "epochs": 5,
    "lr": 3e-4,
    "cached_augmentations": 1,
}
"""The first stage of automatic training, at a size that saves time."""

SETTINGS: dict[str, dict[str, dict[str, object]]] = {
    "image size of a probe": {"224": PROBE} | {str(px): PROBE | {"image_size": px} for px in (128, 160, 192)},
    "C of the head": {"cross-validated": PROBE} | {f"{c:g}": PROBE | {"strength": c} for c in (1e-2, 1e-1, 1.0)},
    "augmented copies for a probe": {"0": PROBE, "3": PROBE | {"cached_augmentations": 3, "augment": "light"}},
    "learning rate of the stage": {"3e-4": STAGE, "probe alone": PROBE | {"image_size": 160}}
    | {f"{lr:g}": STAGE | {"lr": lr} for lr in (1e-4, 1e-3)},
    "augmentation of the stage": {"light": STAGE} | {name: STAGE | {"augment": name} for name in ("none", "standard")},
    "epochs of the stage": {"5": STAGE, "3": STAGE | {"epochs": 3}},
}
"""The default first."""


def training_part(name: str, folder: Path, images: int) -> Dataset:
    """Some of the images that are in no test part, without a split."""
    unzip(name, folder)
    dataset = imgclf.read(folder / name)
    rows = [row for row, sample in enumerate(dataset.samples) if sample.split in (TRAIN, UNASSIGNED)]
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:images])
    samples = tuple(replace(dataset.samples[row], split=UNASSIGNED, given=UNASSIGNED) for row in chosen)
    names = tuple(name for name in dataset.class_names if sum(s.label == name for s in samples) >= 10)
    return replace(dataset, samples=tuple(s for s in samples if s.label in names), class_names=names, settings=None)


def score(dataset: Dataset, options: dict[str, object], folds: int, place: Path) -> tuple[float, float]:
    """Accuracy and log loss out of fold."""
    given = {key: value for key, value in options.items() if key != "strength"}
    config = imgclf.TrainConfig(**given, offline=True, cache=str(place.parent / "cache"))
    strengths = logistic.STRENGTHS
    logistic.STRENGTHS = (options["strength"],) if "strength" in options else strengths
    try:
        found = imgclf.kfold(dataset, config, imgclf.KfoldConfig(folds=folds), output=place)
    finally:
        logistic.STRENGTHS = strengths
    return found.metrics["accuracy"], found.metrics["log_loss"]


def main() -> None:
    """Print a table for each setting of each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["sign-digits", "blood-cells"])
    parser.add_argument("--images", type=int, default=800, help="Use at most N images of each data set.")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SETTINGS))
    options = parser.parse_args()
    logging.getLogger("imgclf").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in options.data:
            dataset = training_part(name, folder, options.images)
            known: dict[str, tuple[float, float, float]] = {}
            print(f"{name}: {len(dataset)} images of {len(dataset.class_names)} classes, {options.folds} folds\n")
            for setting in options.only.split(","):
                print(f"| {setting} | accuracy | log loss | s |\n|---|---|---|---|")
                for value, given in SETTINGS[setting].items():
                    if str(given) not in known:
                        started = time.monotonic()
                        found = score(dataset, given, options.folds, folder / f"{name}-{len(known)}")
                        known[str(given)] = (*found, time.monotonic() - started)
                    accuracy, loss, seconds = known[str(given)]
                    print(f"| {value} | {accuracy:.3f} | {loss:.3f} | {seconds:.0f} |", flush=True)
                print(flush=True)


if __name__ == "__main__":
    main()
