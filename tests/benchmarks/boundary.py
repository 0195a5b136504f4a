"""How much faster an epoch is from kept activations than through the whole network with the same layers frozen, beside
the ideal gain (1 + 2f) / (3f), f being the share of the backbone's multiply-adds above the boundary.

    python tests/benchmarks/boundary.py [--size PX] [--images N] [--request SHARE] [--epochs N]

The default backbone, batches of 32, one process: one side after the other, medians are compared. Augmentation
and dropout are off on both sides; the activations are in a mapped file.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import imgclf
from imgclf.data import loading
from imgclf.models import classifier, efficientnet_lite0, graph
from imgclf.settings import TrainConfig
from imgclf.training import activations, finetune, loop, recipe
from imgclf.training.images import Part

LEAST = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--request", default=str(1 / 3))
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("a", "b"):
            (folder / "data" / name).mkdir(parents=True)
            for number in range(options.images // 2):
                pixels = rng.integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
        dataset, pixels = loading.decode(imgclf.read(folder / "data"), options.size)
        network = efficientnet_lite0.build(options.size)
        efficientnet_lite0.load_weights(network)
        model = classifier.build(network, 2)
        cut = finetune.unfreeze(model, options.request)
        assert cut
        settings = TrainConfig(
            backbone="small-cnn",
            image_size=options.size,
            epochs=1 + options.epochs,
            batch_size=32,
            lr=1e-5,
            warmup_epochs=0,
            weight_decay=0.0,
            label_smoothing=0.0,
            augment="none",
            cache=str(folder / "cache"),
        )
        plan, _ = recipe.resolve(settings)
        kept = activations.cached(model, cut, dataset, pixels, plan)
        assert not isinstance(kept, str), kept
        whole = Part(pixels, dataset.labels)
        short = Part(kept, dataset.labels, kept.draw)
        seconds: dict[str, list[float]] = {"full path": [], "kept activations": []}
        for name, trained, part in (
            ("full path", model, whole),
            ("kept activations", graph.upper(model, cut), short),
        ):
            rows = loop.fit(trained, part, None, plan, loop.Options(name))
            seconds[name] = [row["seconds"] for row in rows[1:]]  # the first one traces
    for name, found in seconds.items():
        print(f"{name:17} median {statistics.median(found):.3f} s an epoch, {min(found):.3f} to {max(found):.3f}")
    gain = statistics.median(seconds["full path"]) / statistics.median(seconds["kept activations"])
    share = gain / cut.ideal_gain
    print(
        f"cut at {cut.layer}: f = {cut.share:.3f}, ideal gain {cut.ideal_gain:.2f}, found {gain:.2f}, {share:.2f} of it"
    )
    print(f"{'PASS' if share >= LEAST else 'FAIL'}: at least {LEAST} of the ideal gain")
    sys.exit(share < LEAST)


if __name__ == "__main__":
    main()
