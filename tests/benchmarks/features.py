"""Which input size and which treatment of the embedded backbone's features suit the linear probe, by cross-validation
on images that are in no test part: out-of-fold accuracy and log loss.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/features.py [--sizes 64,96,128,160] [--repeats N]

`a`, `b`, `c`, `d` are the averages of the four last stages' maps (80, 160, 512 and 512 wide), from the shallow end;
`max` adds the maxima of the same maps; "two scales" averages over the image at its size and at two thirds of it.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers
from photographs import untested
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from imgclf.data import loading
from imgclf.models import embedded
from imgclf.training import devices, fitting, probe

STAGES = {"a": "stage_1_a_out", "b": "stage_2_b_out", "c": "stage_3_a_out", "d": "stage_3_b_out"}

Pooled = dict[str, np.ndarray]
"""For each stage float32 (views, n, 2 d), averages before maxima; the views are the image, its mirror image, and the
image at two thirds of its size."""


def means(pooled: Pooled, stages: str) -> np.ndarray:
    """The averages of some stages, side by side: (views, n, d)."""
    return np.concatenate([pooled[stage][:, :, : pooled[stage].shape[2] // 2] for stage in stages], axis=2)


def both(pooled: Pooled, stages: str) -> np.ndarray:
    """Averages and maxima of some stages: (views, n, 2 d)."""
    return np.concatenate([pooled[stage] for stage in stages], axis=2)


TREATMENTS: dict[str, Callable[[Pooled], np.ndarray]] = {
    "d": lambda p: means(p, "d")[0],
    "d, mirror average": lambda p: means(p, "d")[:2].mean(axis=0),
    "d, square root": lambda p: np.sqrt(means(p, "d")[0]),
    "d, unit length": lambda p: means(p, "d")[0] / np.linalg.norm(means(p, "d")[0], axis=1, keepdims=True),
    "c d": lambda p: means(p, "cd")[0],
    "b d": lambda p: means(p, "bd")[0],
    "b c d": lambda p: means(p, "bcd")[0],
    "a b c d": lambda p: means(p, "abcd")[0],
    "b d, square root": lambda p: np.sqrt(means(p, "bd")[0]),
    "b c d, square root": lambda p: np.sqrt(means(p, "bcd")[0]),
    "b c d, mirror average": lambda p: means(p, "bcd")[:2].mean(axis=0),
    "b c d, two scales": lambda p: means(p, "bcd")[[0, 2]].mean(axis=0),
    "b c d, max": lambda p: both(p, "bcd")[0],
    "b c d, max, two scales": lambda p: both(p, "bcd")[[0, 2]].mean(axis=0),
    "b c d, max, two scales side by side": lambda p: np.concatenate(both(p, "bcd")[[0, 2]], axis=1),
}


def pool(pixels: np.ndarray) -> Pooled:
    """What maps of images, uint8 (n, s, s, 3), show on average and at most."""
    network = embedded.build()
    embedded.load_weights(network)
    maps = [network.get_layer(name).output for name in STAGES.values()]
    tops = [[layers.GlobalAveragePooling2D()(each), layers.GlobalMaxPooling2D()(each)] for each in maps]
    model = keras.Model(network.input, layers.Concatenate()([part for top in tops for part in top]))
    model.compile(jit_compile=devices.jit_compile())
    small = layers.AveragePooling2D(3)(layers.UpSampling2D(2)(network.input))
    shrink = keras.Model(network.input, small)
    views = np.stack([
        fitting.predict(model, pixels, 32),
        fitting.predict(model, pixels[:, :, ::-1], 32),
        fitting.predict(model, shrink.predict(pixels, batch_size=32, verbose=0), 32),
    ])  # fmt: skip
    ends = np.cumsum([2 * each.shape[-1] for each in maps])[:-1]
    return dict(zip(STAGES, np.split(views, ends, axis=2), strict=True))


def cross_validate(features: np.ndarray, labels: np.ndarray, repeats: int) -> tuple[float, float]:
    """Out-of-fold accuracy and log loss of logistic regression at its best strength, 5 folds, averaged over repeats."""
    scaled = StandardScaler().fit_transform(features)
    results = []
    for seed in range(repeats):
        answers = {}
        for strength in probe.STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=300)
            folds = StratifiedKFold(5, shuffle=True, random_state=seed)
            answers[strength] = cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba")
        losses = {c: log_loss(labels, probabilities) for c, probabilities in answers.items()}
        best = min(losses, key=lambda c: losses[c])
        results.append((np.mean(answers[best].argmax(axis=1) == labels), losses[best]))
    accuracy, loss = np.mean(results, axis=0)
    return float(accuracy), float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64,96,128,160")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300, help="images of a data set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in untested(Path(folder)).items():
            for size in map(int, options.sizes.split(",")):
                readable, pixels = loading.decode(dataset, size)
                chosen = np.random.default_rng(0).permutation(len(pixels))[: options.limit]
                pooled, labels = pool(pixels[chosen]), readable.labels[chosen]
                for treatment, treat in TREATMENTS.items():
                    accuracy, loss = cross_validate(treat(pooled), labels, options.repeats)
                    print(f"{name:24} {size:4} px  {treatment:36} {accuracy:.4f}  {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
