"""Accuracy by number of labels on photographs of hand signs: chosen as `imgclf suggest` does, against random ones.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/suggest.py [--seeds N]

A fifth of the images tests all. Each seed starts with 50 random labels; then rounds of 50 are chosen and labeled.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from processes import unzip, verdict
from scipy import stats
from scipy.special import softmax

import imgclf
from imgclf.data import splitting
from imgclf.questions import embedding, suggest
from imgclf.tasks import logistic

START, STEP, ROUNDS = 50, 50, 3
WAYS = ("random", "uncertainty", "diversity", "both")


def simulate(vectors: np.ndarray, labels: np.ndarray, tested: np.ndarray, way: str, seed: int) -> list[float]:
    """The accuracy after each round, the start included."""
    rng, classes = np.random.default_rng(seed), int(labels.max()) + 1
    pool = rng.permutation(np.flatnonzero(~tested))
    firsts = [pool[labels[pool] == label][0] for label in range(classes)]  # every class is known
    chosen = [*firsts, *[row for row in pool if row not in firsts][: START - classes]]
    scores: list[float] = []
    for _ in range(ROUNDS + 1):
        kernel, bias = logistic.fit(vectors[chosen], labels[chosen], classes=classes, seed=seed)
        logits = vectors @ kernel + bias
        scores.append(float((logits.argmax(axis=1) == labels)[tested].mean()))
        left = np.setdiff1d(pool, chosen)
        if way == "random":
            chosen += rng.permutation(left)[:STEP].tolist()
        else:
            probabilities = softmax(logits[left], axis=1)
            chosen += left[suggest.pick(probabilities, vectors[left], vectors[chosen], top=STEP, by=way)].tolist()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = imgclf.read(unzip("sign-digits", Path(folder)))
        images = embedding.find(data, imgclf.SuspectsConfig(), command="suggest")
        found = {}
        started = time.process_time()
        for way in WAYS:
            every = []
            for seed in range(options.seeds):
                held = splitting.folds(images.dataset, 5, seed)[0][1]
                tested = np.isin(np.arange(len(images.dataset)), held)
                every.append(simulate(images.vectors, images.labels, tested, way, seed))
            found[way] = np.array(every)
            shown = ", ".join(
                f"{START + STEP * at} labels {score:.3f}" for at, score in enumerate(found[way].mean(axis=0))
            )
            print(f"{way}: {shown}")
        print(f"{time.process_time() - started:.0f} s of processor time")
    pairs = [("uncertainty", "random"), ("both", "random"), ("diversity", "random"), ("uncertainty", "both")]
    gains = {}
    for pair in pairs:
        each = found[pair[0]] - found[pair[1]]
        for what, values in (("at the end", each[:, -1]), ("mean of the rounds", each[:, 1:].mean(axis=1))):
            reach = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
            gains[pair, what] = values.mean()
            ends = f"95% CI {values.mean() - reach:+.4f} to {values.mean() + reach:+.4f}"
            print(f"{' over '.join(pair)}, {what}: {values.mean():+.4f} ({ends}) over {len(values)} seeds")
    gain = float(gains[("both", "random"), "at the end"])
    sys.exit(not verdict("mean gain of both over random", gain, 0.0, "", at_least=True))


if __name__ == "__main__":
    main()
