"""Which maps of the default backbone suit the linear probe, by cross-validation on training parts alone: out-of-fold
accuracy and log loss of logistic regression on their averages, at the best of five strengths.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/features.py [--images N] [--sizes 160,224]

"last" is the last map (1,280 numbers); "taps" joins the outputs of blocks 8, 11, 15 and 16 to it (1,984); "maxima" adds
the maximum of each of those. Images of sign-digits are 100 px, the boxes of blood-cells 10 to 300 px.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from processes import unzip
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

import imgclf
from imgclf.data import loading
from imgclf.data.dataset import TRAIN
from imgclf.models import efficientnet_lite0

import keras  # isort: skip  (imgclf chooses its backend first)

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="Use at most N images of each data set.")
    parser.add_argument("--sizes", default="224", help="Image sizes in px.")
    options = parser.parse_args()
    print("| data set | size px | features | accuracy | log loss |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("sign-digits", "blood-cells"):
            unzip(name, Path(temporary))
            dataset = imgclf.read(Path(temporary) / name)
            rows = [i for i, sample in enumerate(dataset.samples) if sample.split in (TRAIN, "")]
            chosen = np.random.default_rng(0).permutation(rows)[: options.images]
            for size in map(int, options.sizes.split(",")):
                readable, pixels = loading.decode(dataset, size)
                for features, values in pooled(pixels.take(np.sort(chosen))).items():
                    accuracy, loss = judge(values, readable.labels[np.sort(chosen)])
                    print(f"| {name} | {size} | {features} ({values.shape[1]}) | {accuracy:.3f} | {loss:.3f} |")


def pooled(pixels: loading.Pixels) -> dict[str, np.ndarray]:
    """Averages and maxima of the maps, each float32 (n, d)."""
    model = efficientnet_lite0.build(pixels.shape[1])
    efficientnet_lite0.load_weights(model)
    pool = [layer(model.output) for layer in (keras.layers.GlobalAveragePooling2D(), keras.layers.GlobalMaxPooling2D())]
    means, maxima = keras.Model(model.input, pool).predict(np.asarray(pixels[:]).astype(np.float32), verbose=0)
    return {"last": means[:, -1280:], "taps": means, "taps and maxima": np.concatenate([means, maxima], axis=1)}


def judge(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and log loss out of fold, at the strength with the least loss."""
    scaled = StandardScaler().fit_transform(features)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    found = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength / len(labels) * 100, max_iter=300)
        probabilities = cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba")
        accuracy = float(np.mean(np.unique(labels)[probabilities.argmax(axis=1)] == labels))
        found.append((float(log_loss(labels, probabilities)), accuracy))
    loss, accuracy = min(found)
    return accuracy, loss


if __name__ == "__main__":
    main()
