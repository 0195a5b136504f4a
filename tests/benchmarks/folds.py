"""What cross-validation costs: 5 folds of a probe beside one training of the same probe, whole process against whole
process, each with an empty cache and without exports; and whether memory stays flat over 20 folds.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/folds.py [--repeats N] [--only time|memory]

Both train MobileNetV2 at 224 px on ants-bees, with random weights from one file.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from probe import WEIGHTS
from processes import IMGCLF, Cost, measure, show, unzip, verdict

RATIO, GROWTH = 1.5, 0.10

FOLDS = """
import sys
from pathlib import Path

import psutil

import imgclf
from imgclf.settings import KfoldConfig
from imgclf.training import crossval

def tell(phase, done, total):
    if phase == "folds":
        print(done, psutil.Process().memory_info().rss / 2**20, file=sys.stderr, flush=True)

data, weights, output = sys.argv[1:]
config = imgclf.TrainConfig(backbone="mobilenetv2", weights=weights, method="probe", image_size=224)
crossval.kfold(imgclf.read(data), config, KfoldConfig(folds=20), output=Path(output), on_progress=tell)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("time", "memory"))
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, weights = unzip("ants-bees", folder), folder / "mobilenetv2.weights.h5"
        measure([sys.executable, "-c", WEIGHTS, weights])
        if options.only != "memory":
            met &= _time(folder, data, weights, options.repeats)
        if options.only != "time":
            met &= _memory(folder, data, weights)
    sys.exit(not met)


def _time(folder: Path, data: Path, weights: Path, repeats: int) -> bool:
    recipe = ["--backbone", "mobilenetv2", "--weights", weights, "--method", "probe", "--image-size", "224"]
    commands = {
        "imgclf train": [*IMGCLF, "train", data, "-o", folder / "run", *recipe, "--export", "none"],
        "imgclf kfold --folds 5": [*IMGCLF, "kfold", data, "-o", folder / "run", *recipe],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            for used in ("cache", "run"):
                shutil.rmtree(folder / used, ignore_errors=True)
            costs[name].append(measure(command, {"XDG_CACHE_HOME": str(folder / "cache")}))
    one, five = (show(name, found).seconds for name, found in costs.items())
    return verdict("5 folds cost, in trainings", five / one, RATIO, "")


def _memory(folder: Path, data: Path, weights: Path) -> bool:
    command = [sys.executable, "-c", FOLDS, str(data), str(weights), str(folder / "folds")]
    env = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    lines = [line.split() for line in done.stderr.splitlines()]
    resident = {int(words[0]): float(words[1]) for words in lines if len(words) == 2 and words[0].isdigit()}
    print("resident MiB:", ", ".join(f"{number}: {mib:.0f}" for number, mib in resident.items()))
    return verdict("memory after fold 20 over that after fold 2", resident[20] / resident[2] - 1, GROWTH, "")


if __name__ == "__main__":
    main()
