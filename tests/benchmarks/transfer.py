"""What the embedded backbone is worth on other people's images: test accuracy of its probe beside that of other
networks, of random weights, of colour histograms and of the small CNN, over several seeds, as a Markdown table.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/transfer.py [--seeds N] [--candidate NAME=RUN ...] [--floor FILE]
        [--rows NAME,...] [--data NAME,...]

A seed decides the split (where the data set brings a test part, only which images are left out for validation), the
random weights and the shuffling. All rows see the same images. The interval is Student's over the seeds. Under the
table stands the difference to the embedded backbone, paired, with two intervals: Student's over the seeds, which tells
of these test images, and a bootstrap over the images, which tells of others like them. FILE is what floor.py wrote; of
its last map the average is taken, at the embedded backbone's image size.
"""

import argparse
import csv
import logging
import tempfile
from pathlib import Path

import keras
import numpy as np
import scipy.stats
from photographs import ANTS_BEES, DIGITS, SIGNS, SIGNS_BY_NUMBER, load
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imgclf
from imgclf.data import loading
from imgclf.data.dataset import TEST, TRAIN, Dataset
from imgclf.models import classifier
from imgclf.settings import TrainConfig
from imgclf.training import features, probe, resolving

Answers = dict[str, int]  # test image -> right (1) or wrong (0)

RANDOM, NEIGHBOURS = "random weights", "colour histograms; k-NN"
LOGISTIC, SMALL_CNN = "colour histograms; logistic", "small CNN from scratch"
ROWS = RANDOM, NEIGHBOURS, LOGISTIC, SMALL_CNN
DATA = ANTS_BEES, SIGNS, SIGNS_BY_NUMBER, DIGITS
FIXED = ANTS_BEES, SIGNS_BY_NUMBER  # of these every seed has the same test part


class Features:
    """The features of every image, once per network."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, int], dict[str, np.ndarray]] = {}

    def probe(
        self,
        name: str,
        config: TrainConfig,
        data: str,
        dataset: Dataset,
        seed: int,
        network: keras.Model | None = None,
    ) -> Answers:
        """Which test images a probe gets right; of `network`, a classifier, in place of the one that `config` means."""
        key = (name, data, seed if config.weights == "none" else 0)
        resolved, _ = resolving.resolve(config)
        assert resolved.image_size
        if key not in self.known:
            readable, pixels = loading.decode(dataset, resolved.image_size, resolved.decoding)
            found = features.compute(network or resolving.build(resolved, 2), pixels)
            self.known[key] = {s.path: row for s, row in zip(readable.samples, found, strict=True)}
        rows = self.known[key]
        train, test = dataset.part(TRAIN), dataset.part(TEST)
        kernel, bias = probe.solve(
            np.stack([rows[s.path] for s in train.samples]),
            train.labels,
            classes=len(dataset.class_names),
            seed=seed,
            whitening=None if network else resolving.whitening(resolved),
        )
        return _right(test, np.stack([rows[s.path] for s in test.samples]) @ kernel + bias)


def floor(path: Path) -> keras.Model:
    """The network of floor.py under a head: pixels (n, s, s, 3) -> the average of its last map -> a random head."""
    network = keras.models.load_model(path, compile=False)
    return classifier.build(keras.Model(network.input, network.get_layer("features").output), 2)


def histograms(dataset: Dataset) -> np.ndarray:
    """Joint RGB histograms, 8 bins a channel, as square roots (Hellinger): float (n, 512)."""
    _, pixels = loading.decode(dataset, 96)
    bins = (pixels[:] // 32).reshape(len(pixels), -1, 3).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.stack([np.bincount(row, minlength=512) for row in bins])
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True))


def colour(dataset: Dataset, row: str) -> Answers:
    """k-NN or logistic regression on colour histograms, k and C by 5-fold cross-validation."""
    train, test = dataset.part(TRAIN), dataset.part(TEST)
    if row == NEIGHBOURS:
        model = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3, 5, 9, 15, 25]}, cv=5)
    else:
        strengths = {"logisticregression__C": probe.STRENGTHS}
        model = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), strengths, cv=5)
    predicted = model.fit(histograms(train), train.labels).predict(histograms(test))
    return {s.path: int(p == t) for s, p, t in zip(test.samples, predicted, test.labels, strict=True)}


def small_cnn(dataset: Dataset, seed: int, folder: Path) -> Answers:
    """`imgclf train --backbone small-cnn` with its default settings."""
    run = imgclf.train(dataset, TrainConfig(backbone="small-cnn", export="none", seed=seed), output=folder)
    with run.predictions.open(newline="", encoding="utf-8") as file:
        return {row["path"]: int(row["label"] == row["predicted"]) for row in csv.DictReader(file)}


def _right(test: Dataset, logits: np.ndarray) -> Answers:
    right = logits.argmax(axis=1) == test.labels
    return {s.path: int(r) for s, r in zip(test.samples, right, strict=True)}


def interval(values: list[float]) -> str:
    """Mean and half the width of the 95 % interval over seeds."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def paired(one: list[Answers], other: list[Answers]) -> str:
    """The difference in accuracy with both intervals; both lists go over the same seeds."""
    paths = sorted(one[0])
    gains = np.array([[a[p] - b[p] for p in paths] for a, b in zip(one, other, strict=True)])  # (seeds, images)
    draws = np.random.default_rng(0).integers(len(paths), size=(10_000, len(paths)))
    low, high = np.percentile(gains.mean(axis=0)[draws].mean(axis=1), (2.5, 97.5))
    return f"{interval(gains.mean(axis=1).tolist())} over seeds, [{low:+.3f}, {high:+.3f}] over images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidate", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--floor", type=Path, metavar="FILE")
    parser.add_argument("--rows", default=",".join(ROWS), help="beside the networks: %(default)s")
    parser.add_argument("--data", default=",".join(DATA), help="%(default)s")
    options = parser.parse_args()
    rows, sets = (tuple(filter(None, names.split(","))) for names in (options.rows, options.data))
    if unknown := {*rows, *sets} - {*ROWS, *DATA}:
        parser.error(f"unknown: {', '.join(unknown)}")
    logging.getLogger("imgclf").setLevel(logging.WARNING)
    embedded = TrainConfig(backbone="embedded", method="probe")
    networks = {"embedded": embedded}
    for candidate in options.candidate:
        name, _, run = candidate.partition("=")
        networks[name] = TrainConfig(weights=run, method="probe", image_size=resolving.resolve(embedded)[0].image_size)
    names = [*networks, *(["floor"] if options.floor else []), *rows]
    answers: dict[str, dict[str, list[Answers]]] = {name: {} for name in names}
    cache = Features()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def answer(name: str, data: str, dataset: Dataset, seed: int) -> Answers:
            if name in networks:
                return cache.probe(name, networks[name], data, dataset, seed)
            if name == "floor":
                return cache.probe(name, embedded, data, dataset, seed, floor(options.floor))
            if name == RANDOM:
                keras.utils.set_random_seed(seed)
                random = TrainConfig(backbone="embedded", weights="none", method="probe", seed=seed)
                return cache.probe(name, random, data, dataset, seed)
            if name == SMALL_CNN:
                return small_cnn(dataset, seed, folder / f"run-{seed}-{data.replace(' ', '-')}")
            return colour(dataset, name)

        for seed in range(options.seeds):
            for data, dataset in load(folder, seed).items():
                if data in sets:
                    print(f"seed {seed}, {data}", flush=True)
                    for name in names:
                        answers[name].setdefault(data, []).append(answer(name, data, dataset, seed))
    data_sets = list(answers["embedded"])
    print(f"\n| probe of | {' | '.join(data_sets)} |\n|---|{'---|' * len(data_sets)}")
    for name, results in answers.items():
        cells = [interval([float(np.mean(list(a.values()))) for a in results[data]]) for data in data_sets]
        print(f"| {name} | {' | '.join(cells)} |")
    for data in (data for data in data_sets if data in FIXED):
        print(f"\nembedded less each other on {data}, paired:")
        for name in names[1:]:
            print(f"- {name}: {paired(answers['embedded'][data], answers[name][data])}")


if __name__ == "__main__":
    main()
