"""What LeNet-5 reaches on digits: the 1,797 of scikit-learn, and a split of 10,000 of MNIST.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/lenet.py [--seeds 0,1,2] [--only digits|mnist]

Trained from random weights with the settings below; the test accuracy is that of the split's best class, whatever the
out-of-distribution threshold says.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from processes import unzip
from sklearn.datasets import load_digits

import imgclf

EPOCHS = {"digits": 40, "mnist": 25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=tuple(EPOCHS))
    options = parser.parse_args()
    print("| data | seed | accuracy | test images | training s |\n|---|---|---|---|---|")
    for name in [options.only] if options.only else EPOCHS:
        with tempfile.TemporaryDirectory() as temporary:
            data = digits(Path(temporary) / name) if name == "digits" else mnist(Path(temporary))
            for seed in map(int, options.seeds.split(",")):
                config = imgclf.TrainConfig(
                    backbone="lenet5", seed=seed, epochs=EPOCHS[name], keep_orientation=True, augment="light",
                    near_duplicates="off", label_smoothing=0.0, export="none", resplit=name == "mnist",
                )  # fmt: skip
                dataset = imgclf.read(data, config)
                begun = time.monotonic()
                run = imgclf.train(dataset, config, output=Path(temporary) / f"run-{seed}")
                scores = json.loads(run.metrics.read_text())
                seconds = time.monotonic() - begun
                print(f"| {name} | {seed} | {scores['argmax']['accuracy']:.3f} | {scores['n']} | {seconds:.0f} |")


def digits(folder: Path) -> Path:
    """The digits of scikit-learn as class folders of PNG files of 8 px."""
    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    return folder


def mnist(folder: Path) -> Path:
    """The unpacked `mnist-10k.zip` of IMGCLF_TEST_DATA."""
    unzip("mnist-10k", folder)
    return folder / "mnist-10k"


if __name__ == "__main__":
    main()
