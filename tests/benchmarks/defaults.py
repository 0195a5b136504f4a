"""From where the defaults of fine-tuning and of the probe come: one setting at a time is changed, several seeds.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/defaults.py [DATA...] [--seeds N] [--only SETTING,...]
        [--limit N]

DATA is ants-bees or sign-digits. No test part is looked at: of the images that are in none each seed takes 30 % to
score and 15 % to validate. The default backbone, offline, no export. Accuracy and log loss are means over the seeds
with Student's 95 % interval; beside them stands the gain over the default, paired over the seeds.
"""

import argparse
import json
import logging
import math
import shutil
import statistics
import tempfile
from pathlib import Path

from photographs import untested
from scipy import stats

import imgclf
from imgclf.data import collection
from imgclf.data.dataset import Dataset
from imgclf.tasks import logistic as probe

PROBE = {"method": "probe"}
TUNE = {"method": "finetune"}
SETTINGS: dict[str, dict[str, dict[str, object]]] = {
    "head strength": {"chosen among seven": PROBE}
    | {f"C = {c:g}": PROBE | {"strength": c} for c in (1e-3, 1e-2, 1e-1, 1.0)},
    "views of the probe": {"0": PROBE}
    | {str(n): PROBE | {"cached_augmentations": n, "augment": "light"} for n in (1, 3, 7)},
    "image size": {"96": PROBE} | {str(px): PROBE | {"image_size": px} for px in (64, 128, 160)},
    "unfrozen part": {"1/3": TUNE} | {share: TUNE | {"unfreeze_from": share} for share in ("0.1", "0.67", "1.0")},
    "learning rate": {"1e-4": TUNE} | {f"{lr:g}": TUNE | {"lr": lr} for lr in (1e-5, 3e-5, 3e-4, 1e-3)},
    "weight average": {"0.98": TUNE, "0": TUNE | {"ema": 0.0}},
    "augmentation": {"light": TUNE} | {name: TUNE | {"augment": name} for name in ("none", "standard")},
    "views of fine-tuning": {"anew every step": TUNE} | {str(n): TUNE | {"cached_augmentations": n} for n in (1, 3)},
}
"""Of each setting the default first."""


def score(dataset: Dataset, options: dict[str, object], seed: int, folder: Path) -> tuple[float, float]:
    """Accuracy and log loss of one training."""
    options = {
        "backbone": "efficientnet-lite0",
        "offline": True,
        "export": "none",
        "cache": str(folder / "cache"),
    } | options
    config = imgclf.TrainConfig(
        **{key: value for key, value in options.items() if key != "strength"}, seed=seed, test_fraction=0.3
    )
    strengths = probe.STRENGTHS
    probe.STRENGTHS = (options["strength"],) if "strength" in options else strengths
    try:
        run = imgclf.train(dataset, config, output=folder / "run", with_report=False)
    finally:
        probe.STRENGTHS = strengths
    scores = json.loads(run.metrics.read_text())
    shutil.rmtree(run.path)
    return scores["accuracy"], scores["log_loss"]


def interval(values: list[float]) -> str:
    """Mean and Student's 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["ants-bees", "sign-digits"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SETTINGS))
    parser.add_argument("--limit", type=int, help="at most so many images")
    options = parser.parse_args()
    logging.getLogger("imgclf").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = untested(folder)
        for name in options.data:
            dataset = collection.narrow(images[name], limit=options.limit)
            known: dict[str, list[tuple[float, float]]] = {}
            print(f"{name}: {len(dataset)} images, seeds 0 to {options.seeds - 1}")
            for setting in options.only.split(","):
                print(f"| {setting} | accuracy | log loss | log loss less the default's |\n|---|---|---|---|")
                default: list[float] = []
                for value, given in SETTINGS[setting].items():
                    if str(given) not in known:
                        known[str(given)] = [score(dataset, given, seed, folder) for seed in range(options.seeds)]
                    accuracies, losses = (list(column) for column in zip(*known[str(given)], strict=True))
                    default = default or losses
                    gain = interval([a - b for a, b in zip(losses, default, strict=True)])
                    print(f"| {value} | {interval(accuracies)} | {interval(losses)} | {gain} |", flush=True)
                print(flush=True)


if __name__ == "__main__":
    main()
