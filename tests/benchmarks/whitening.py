"""The whitening that comes with the embedded backbone: how it is made, and what it is worth to a probe, by
cross-validation on images that are in no test part: out-of-fold accuracy and log loss.

    IMGCLF_TEST_DATA=FOLDER python tests/benchmarks/whitening.py [--output FILE] [--repeats N] [--limit N]

It is measured on PER_CLASS training images of each class of Tiny-ImageNet, at SIZE px, of which no label is used.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from features import cross_validate
from photographs import untested
from processes import unzip

import imgclf
from imgclf.data import loading
from imgclf.data.dataset import TRAIN
from imgclf.models import embedded
from imgclf.models.whitening import Whitening
from imgclf.settings import ReadConfig, TrainConfig
from imgclf.training import features, resolving

PER_CLASS = 150
SIZE = 80


def embeddings(dataset: imgclf.Dataset, size: int) -> np.ndarray:
    """What the embedded backbone shows of a dataset, float32 (n, d)."""
    config, _ = resolving.resolve(TrainConfig(backbone="embedded", method="probe", image_size=size, offline=True))
    _, pixels = loading.decode(dataset, size, config.decoding)
    return features.compute(resolving.build(config, 2), pixels)


def measured(folder: Path) -> Whitening:
    """That of the pre-training images."""
    everything = imgclf.read(unzip("tiny-imagenet", folder), ReadConfig(layout="folders"))
    labels, rng = everything.labels, np.random.default_rng(0)
    train = np.array([sample.split == TRAIN for sample in everything.samples])
    chosen: set[int] = set()
    for label in range(len(everything.class_names)):
        chosen |= set(rng.permutation(np.flatnonzero(train & (labels == label)))[:PER_CLASS].tolist())
    samples = tuple(sample for i, sample in enumerate(everything.samples) if i in chosen)
    print(f"{len(samples):,} pre-training images", flush=True)
    return Whitening.of(embeddings(replace(everything, samples=samples), SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="measure it anew, and write it there, rather than take the shipped")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--limit", type=int, default=400, help="images of a data set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.output:
            options.output.write_bytes(measured(folder).to_bytes())
        whitening = Whitening.from_bytes(options.output.read_bytes()) if options.output else embedded.whitening()
        for name, dataset in untested(folder).items():
            chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[: options.limit])
            found, labels = embeddings(dataset, 96)[chosen], dataset.labels[chosen]
            for way, seen in {"as they are": found, "half-way whitened": whitening(found)}.items():
                accuracy, loss = cross_validate(seen, labels, options.repeats)
                print(f"{name:24} {len(chosen):4} images  {way:18} {accuracy:.4f}  {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
