"""The same training under both backends."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.jax]

SCRIPT = """
    import json, sys
    import numpy as np
    from imgclf.training import augmentation, fitting
    from imgclf.models import classifier, embedded
    import keras

    class Losses(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.means = []
        def on_train_batch_end(self, batch, logs=None):
            self.means.append(float(logs["loss"]))

    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    pixels = rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    network = embedded.build(32)
    embedded.load_weights(network)
    model = classifier.build(network, 4)
    head = np.random.default_rng(1).normal(0, 0.01, model.get_layer("logits").kernel.shape)
    model.get_layer("logits").set_weights([head, np.zeros(4)])
    plan = fitting.Plan(
        sizes=(32,), epochs=1, batch_size=4, lr=1e-4, optimizer="sgd", warmup_epochs=0.5, weight_decay=0.01,
        label_smoothing=0.1, ema=0.0, policy=augmentation.POLICIES["none"], seed=3,
    )
    losses = Losses()
    fitting.fit(model, fitting.Part(pixels, labels), None, plan, phase="scratch", callbacks=[losses])
    print(json.dumps({"backend": keras.backend.backend(), "means": losses.means}))
"""


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
