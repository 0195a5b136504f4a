"""Seconds and test accuracy of ways to train, on real photographs: whole processes of `imgclf train`, several seeds.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/accuracy.py [DATA...] [--ways NAME,...] [--seeds N] [--keep FOLDER]

DATA is ants-bees (its val/ is the test part; the seed carves the validation part from train/) or sign-digits (split by
the seed). Every process begins with an empty cache of its own, offline, so the pretrained network is the default one.
The interval is Student's, of the mean over the seeds. The last lines compare ways pairwise over the seeds.
"""

import argparse
import itertools
import json
import math
import shutil
import statistics
import tempfile
from pathlib import Path

from processes import IMGCLF, measure, unzip
from scipy import stats

WAYS: dict[str, tuple[str, ...]] = {
    "small CNN": ("--backbone", "small-cnn"),
    "probe": ("--method", "probe"),
    "fine-tune": ("--method", "finetune"),
    "1m": ("--time-limit", "1m"),
    "5m": ("--time-limit", "5m"),
}


def interval(values: list[float]) -> str:
    """Mean and 95 % interval of the mean."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["ants-bees", "sign-digits"])
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="keep every run's history.csv here")
    options = parser.parse_args()
    ways = options.ways.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in options.data:
            data = unzip(name, folder)
            found: dict[str, list[float]] = {way: [] for way in ways}
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for seed, way in itertools.product(range(options.seeds), ways):
                command = [*IMGCLF, "train", data, "-o", folder / "run", "--seed", seed, "--offline", *WAYS[way]]
                cost = measure(command, {"XDG_CACHE_HOME": str(folder / "cache")})
                scores = json.loads((folder / "run" / "metrics.json").read_text())
                found[way].append(scores["accuracy"])
                seconds[way].append(cost.seconds)
                print(f"{name}, {way}, seed {seed}: {scores['accuracy']:.4f} in {cost.seconds:.1f} s", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(
                        folder / "run" / "history.csv", options.keep / f"{name}-{way.replace(' ', '-')}-{seed}.csv"
                    )
                for used in ("run", "cache"):
                    shutil.rmtree(folder / used, ignore_errors=True)
            print(f"\n{name}, n = {scores['n']}, seeds 0 to {options.seeds - 1}")
            for way in ways:
                slowest = max(seconds[way])
                took = f"{statistics.mean(seconds[way]):.0f} s, at most {slowest:.0f} s"
                print(f"  {way:10} {interval(found[way])}   {took}")
            for one, other in itertools.combinations(ways, 2):
                gains = [b - a for a, b in zip(found[one], found[other], strict=True)]
                print(f"  {other} less {one}, paired: {interval(gains)}")
            print(flush=True)


if __name__ == "__main__":
    main()
