"""Test accuracy of the small CNN, default settings, on photographs of hand signs: with imgclf's own random split, and
with the last fifth of each class by file number as the test part. Many photographs show the same hand, so a random
split has it on both sides and flatters; the second figure is what a new hand may expect.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/sign_digits.py
"""

import json
import logging
import os
import re
import tempfile
import time
import zipfile
from pathlib import Path

import imgclf
from imgclf.data.dataset import TEST, TRAIN, Dataset


def by_file_number(dataset: Dataset) -> Dataset:
    """The same images, the last fifth of each class by the number in the file's name being the test part."""
    tests: set[str] = set()
    for name in dataset.class_names:
        paths = [sample.path for sample in dataset.samples if sample.label == name]
        paths.sort(key=lambda path: int(re.findall(r"\d+", path)[-1]))
        tests |= set(paths[len(paths) * 4 // 5 :])
    return dataset.with_splits([TEST if sample.path in tests else TRAIN for sample in dataset.samples])


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(os.environ["IMGCLF_TEST_DATA"]) / "sign-digits.zip") as packed:
            packed.extractall(Path(folder) / "sign-digits")
        dataset = imgclf.read(Path(folder) / "sign-digits")
        config = imgclf.TrainConfig(backbone="small-cnn")
        for name, split in (("random", dataset), ("last fifth by file number", by_file_number(dataset))):
            started = time.monotonic()
            run = imgclf.train(split, config, output=Path(folder) / name.split()[0])
            scores = json.loads(run.metrics.read_text())
            low, high = scores["intervals"]["accuracy"]
            seconds = time.monotonic() - started
            accuracy = f"{scores['accuracy']:.4f} [{low:.4f}, {high:.4f}]"
            print(f"{name}: accuracy {accuracy}, n = {scores['n']}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
