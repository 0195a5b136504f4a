"""How well images of anything are told from hand signs: the area under the ROC curve of the outlier score of a model of
sign-digits, for its own test split against the validation images of Tiny-ImageNet.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/out_of_distribution.py

The model is a probe with default settings on the default backbone. The shares of both that are rejected follow.
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
    parser.add_argument("--count", type=int, default=2000, help="Use N images of Tiny-ImageNet, chosen at random.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = imgclf.TrainConfig(backbone="efficientnet-lite0", method="probe", export="litert", offline=True)
        run = imgclf.train(imgclf.read(unzip("sign-digits", folder)), config, output=folder / "run", with_report=False)
        every = sorted(path for path in (unzip("tiny-imagenet", folder) / "val").rglob("*") if path.is_file())
        images = [path for path in every if path.suffix == ".webp"]
        chosen = np.random.default_rng(0).permutation(len(images))[: options.count]
        classifier = imgclf.load(run.path)
        own, other = (
            np.array([answer.outlier_score for answer in classifier.stream(paths, 64)], float)
            for paths in (run_data.read(run).part(TEST).paths, [images[i] for i in chosen.tolist()])
        )
        limit = artifact.read(run.path).decision.outlier_above
    area = metrics.roc_auc_score(np.repeat([0, 1], [len(own), len(other)]), np.concatenate([own, other]))
    print(f"area under ROC {area:.4f}")
    for name, scores in (("own test images", own), ("Tiny-ImageNet", other)):
        rejected = int((scores > limit).sum())
        low, high = wilson(rejected, len(scores))
        share = rejected / len(scores)
        print(f"{name}: {rejected} of {len(scores)} rejected, {share:.1%} (95% CI {low:.1%} to {high:.1%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
