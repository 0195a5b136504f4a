"""How well photographs of anything are told from hand signs: the area under the ROC curve of the outlier score of a
model of sign-digits, for its own test part against the validation photographs of Tiny-ImageNet.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/strange.py

The model is a probe with default settings on the default backbone. Also told: which share of both is called strange.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from processes import unzip
from sklearn import metrics

import imgclf
from imgclf.data import run_data
from imgclf.data.dataset import TEST
from imgclf.evaluation.intervals import wilson
from imgclf.prediction import artifact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foreign", type=int, default=2000, help="So many photographs, chosen at random.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = imgclf.TrainConfig(backbone="efficientnet-lite0", method="probe", export="litert", offline=True)
        run = imgclf.train(imgclf.read(unzip("sign-digits", folder)), config, output=folder / "run", with_report=False)
        every = sorted(path for path in (unzip("tiny-imagenet", folder) / "val").rglob("*") if path.is_file())
        images = [path for path in every if path.suffix == ".webp"]
        chosen = np.random.default_rng(0).permutation(len(images))[: options.foreign]
        classifier = imgclf.load(run.path)
        own, foreign = (
            np.array([answer.outlier_score for answer in classifier.stream(paths, 64)], float)
            for paths in (run_data.read(run).part(TEST).paths, [images[i] for i in chosen.tolist()])
        )
        limit = artifact.read(run.path).decision.outlier_above
    area = metrics.roc_auc_score(np.repeat([0, 1], [len(own), len(foreign)]), np.concatenate([own, foreign]))
    print(f"area under ROC {area:.4f}")
    for name, scores in (("own test images", own), ("Tiny-ImageNet", foreign)):
        strange = int((scores > limit).sum())
        low, high = wilson(strange, len(scores))
        print(f"{name}: {strange} of {len(scores)} are strange, {strange / len(scores):.1%} [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
