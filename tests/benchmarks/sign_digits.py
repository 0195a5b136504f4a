"""Test accuracy of the small CNN, default settings, on photographs of hand signs: with imgclf's own random split, and
with the last fifth of each class by file number as the test part. Many photographs show the same hand, so a random
split has it on both sides and flatters; the second figure is what a new hand may expect.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/sign_digits.py
"""

import json
import logging
import tempfile
import time
from pathlib import Path

from photographs import by_file_number
from processes import unzip

import imgclf


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        dataset = imgclf.read(unzip("sign-digits", Path(folder)))
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
