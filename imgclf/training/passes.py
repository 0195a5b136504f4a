"""What passes through a network take, measured in this process."""

import time

from imgclf import environment
from imgclf.training import devices, loop
from imgclf.training.images import Inputs

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)

TRACING = 4.0
"""How many times as long as that of a forward pass the tracing of a training step takes."""

OVERHEAD = 1.2


class Passes:
    """The seconds of tracing a network, and of a forward pass of an image."""

    def __init__(self, model: keras.Model, pixels: Inputs, batch_size: int) -> None:
        self._network = keras.Model(model.input, model.output)  # compiled itself, a model would save an optimizer
        self._network.compile(jit_compile=devices.jit_compile())
        self._batch, self._batch_size = pixels[:batch_size], batch_size
        first = self._time()
        self.measure()
        self._tracing_s = max(0.0, first - self.image_s * batch_size)

    def measure(self) -> None:
        """Measure the forward pass once more: other programs come and go."""
        self.image_s = min(self._time(), self._time()) / self._batch_size  # part of a batch is padded

    def _time(self) -> float:
        started = time.monotonic()
        loop.predict(self._network, self._batch, self._batch_size)
        return time.monotonic() - started

    def embedding_s(self, images: int) -> float:
        """Seconds for the embeddings of images."""
        return self._tracing_s + OVERHEAD * self.image_s * images

    def training_s(
        self, share: float, train: int, validation: int, cached: int = 0, gain: float = 1.0
    ) -> tuple[float, float]:
        """Seconds before the first epoch, and of each epoch.

        Args:
            share: of the multiply-adds that are trained.
            train: images of the training split, and `validation` of the other.
            cached: images whose activations are computed first, augmented ones among them; 0 for the full path.
            gain: how many times as fast as here they are computed.
        """
        start, image = TRACING * self._tracing_s, OVERHEAD * self.image_s
        if not cached:
            return start, image * (train * (1 + 2 * share) + validation)
        return start + self._tracing_s + cached * image * (1 - share) / gain, image * share * (3 * train + validation)
