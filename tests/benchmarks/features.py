"""Which input size and which treatment of the embedded backbone's features suit the linear probe, by cross-validation
on training parts alone (no test part is read): out-of-fold accuracy and log loss.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/features.py [--sizes 64,96,128,160] [--repeats N]

`a`, `b`, `c`, `d` are the averages of the four last stages' maps (80, 160, 512 and 512 wide), from the shallow end.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from photographs import SIGNS_BY_NUMBER, load
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from imgclf.data import loading
from imgclf.data.dataset import TRAIN
from imgclf.models import embedded
from imgclf.training import devices, fitting, probe

STAGES = {"a": "stage_1_a_out", "b": "stage_2_b_out", "c": "stage_3_a_out", "d": "stage_3_b_out"}

Pooled = dict[str, np.ndarray]  # for each stage float32 (views, n, d), the views being the image and its mirror image

TREATMENTS: dict[str, Callable[[Pooled], np.ndarray]] = {
    "d": lambda p: p["d"][0],
    "d, mirror average": lambda p: p["d"].mean(axis=0),
    "d, square root": lambda p: np.sqrt(p["d"][0]),
    "d, unit length": lambda p: p["d"][0] / np.linalg.norm(p["d"][0], axis=1, keepdims=True),
    "c d": lambda p: np.concatenate([p["c"][0], p["d"][0]], axis=1),
    "b d": lambda p: np.concatenate([p["b"][0], p["d"][0]], axis=1),
    "b c d": lambda p: np.concatenate([p[s][0] for s in "bcd"], axis=1),
    "a b c d": lambda p: np.concatenate([p[s][0] for s in "abcd"], axis=1),
    "b d, square root": lambda p: np.sqrt(np.concatenate([p["b"][0], p["d"][0]], axis=1)),
    "b c d, square root": lambda p: np.sqrt(np.concatenate([p[s][0] for s in "bcd"], axis=1)),
    "b c d, mirror average": lambda p: np.concatenate([p[s].mean(axis=0) for s in "bcd"], axis=1),
}


def pool(pixels: np.ndarray) -> Pooled:
    """The averaged maps of images, uint8 (n, s, s, 3)."""
    network = embedded.build(pixels.shape[1])
    embedded.load_weights(network)
    tops = [keras.layers.GlobalAveragePooling2D()(network.get_layer(name).output) for name in STAGES.values()]
    model = keras.Model(network.input, keras.layers.Concatenate()(tops))
    model.compile(jit_compile=devices.jit_compile())
    both = np.stack([fitting.predict(model, view, 32) for view in (pixels, pixels[:, :, ::-1])])
    ends = np.cumsum([top.shape[-1] for top in tops])[:-1]
    return dict(zip(STAGES, np.split(both, ends, axis=2), strict=True))


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
    parser.add_argument("--limit", type=int, default=300, help="training images of a data set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in load(Path(folder), seed=0).items():
            if name == SIGNS_BY_NUMBER:
                continue  # its training images are nearly those of the other split
            train = dataset.part(TRAIN)
            for size in map(int, options.sizes.split(",")):
                readable, pixels = loading.decode(train, size)
                chosen = np.random.default_rng(0).permutation(len(pixels))[: options.limit]
                pooled, labels = pool(pixels[chosen]), readable.labels[chosen]
                for treatment, treat in TREATMENTS.items():
                    accuracy, loss = cross_validate(treat(pooled), labels, options.repeats)
                    print(f"{name:24} {size:4} px  {treatment:22} {accuracy:.4f}  {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
