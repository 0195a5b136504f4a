"""The same training under both backends."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.jax]

SCRIPT = """
    import json, sys
    import numpy as np
    from imgclf.settings import TrainConfig
    from imgclf.training import loop, recipe
    from imgclf.training.images import Part
    from imgclf.models import classifier, efficientnet_lite0
    import keras

    class Losses(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.means = []
        def on_train_batch_end(self, batch, logs=None):
            self.means.append(float(logs["loss"]))

    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    pixels = rng.integers(0, 256, (160, 96, 96, 3), dtype=np.uint8)
    network = efficientnet_lite0.build(96)
    efficientnet_lite0.load_weights(network)
    model = classifier.build(network, 4)
    head = np.random.default_rng(1).normal(0, 0.01, model.get_layer("logits").kernel.shape)
    model.get_layer("logits").set_weights([head, np.zeros(4)])
    plan, _ = recipe.resolve(TrainConfig(
        backbone="small-cnn", image_size=96, epochs=1, batch_size=8, lr=1e-4, optimizer="sgd", warmup_epochs=0.5,
        weight_decay=0.01, label_smoothing=0.1, ema=0.0, augment="none", seed=3,
    ))
    losses = Losses()
    loop.fit(model, Part(pixels, labels), None, plan, loop.Options("scratch", callbacks=[losses]))
    print(json.dumps({"backend": keras.backend.backend(), "means": losses.means}))
"""


SHARING = """
    import logging, sys
    import numpy as np
    from pathlib import Path
    import imgclf
    from imgclf.training import devices, train
    from imgclf.settings import TrainConfig
    import keras

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    config = TrainConfig(
        backbone="small-cnn", image_size=32, epochs=2, batch_size=int(sys.argv[3]), ema=0.9, export="none", seed=1,
    )
    run = train.train(imgclf.read(sys.argv[1]), config, output=Path(sys.argv[2]))
    print(run.history_file.read_text())
    print("devices:", devices.sharing())
"""


def shared(count: int, folder: Path, run: Path, batch_size: int) -> "subprocess.CompletedProcess[str]":
    """A training whose batches so many simulated devices share."""
    command = [sys.executable, "-c", textwrap.dedent(SHARING), str(folder), str(run), str(batch_size)]
    flags = f"--xla_force_host_platform_device_count={count}"
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_devices_that_share_each_batch_train_what_one_trains(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("jax")
    found = {}
    for count in (1, 2):
        run = tmp_path / str(count)
        done = shared(count, image_folder(count=16), run, batch_size=8)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"devices: {count}" in done.stdout
        rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
        found[count] = [[float(row[key]) for key in ("loss", "val_loss")] for row in rows]
    np.testing.assert_allclose(found[1], found[2], atol=1e-3)
    refused = shared(2, image_folder(count=16), tmp_path / "odd", batch_size=7)
    assert "--batch-size: expected a multiple of 2" in refused.stderr and not (tmp_path / "odd").exists()


def losses(backend: str) -> np.ndarray:
    """The loss of each of 20 steps; Keras tells the mean of all so far."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == backend
    return np.diff(np.array(found["means"]) * np.arange(1, 21), prepend=0.0)


def test_the_first_twenty_losses_are_tensorflows(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    theirs, ours = losses("tensorflow"), losses("jax")
    assert np.ptp(theirs) > 0.05  # the steps differ
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
