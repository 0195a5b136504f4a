"""Estimate how much of the time limit remains, and what the remaining work will take."""

import time
from dataclasses import dataclass

IDLE_START_S = 5.0
"""What starting Python, Keras and TensorFlow needs on an idle machine of two cores."""

ENDING_S = 1.2
"""What scoring, saving, drawing and reporting need there, beside the passes through the network."""

FORMAT_S = 2.0
LAYER_S = 0.012
"""What an export needs there with its proof, and how much more of it for every layer of the network."""

CARE = 1.5
"""How many times as long as that is kept back: other programs may want the processor, too."""


@dataclass
class Clock:
    """A limit for a whole process, and how fast this process gets on.

    Args:
        started: when the process began, of `time.monotonic`.
        limit_s: inf for none.
        slowness: how many times as long as on an idle machine the process took to start, at least 1.
        drift: how many times as long as foretold the last work took that was foretold, at least 1.
    """

    started: float
    limit_s: float
    slowness: float = 1.0
    drift: float = 1.0

    @classmethod
    def start(cls, limit_s: float, started: float | None = None) -> "Clock":
        """Return a clock that has run since `started`, or runs from now on."""
        now = time.monotonic()
        took = 0.0 if started is None else now - started
        return cls(now - took, limit_s, max(1.0, took / IDLE_START_S))

    def left_s(self, kept_back_s: float = 0.0) -> float:
        """Seconds until the limit, less those that are kept back for what is still to come."""
        return self.deadline(kept_back_s) - time.monotonic()

    def deadline(self, kept_back_s: float = 0.0) -> float:
        """Return the same as a point in time, of `time.monotonic`."""
        return self.started + self.limit_s - kept_back_s

    def learn(self, foretold_s: float, took_s: float) -> None:
        """Compare what was foretold with what happened; less than a second of work says nothing."""
        if took_s >= 1.0:
            self.drift = max(1.0, took_s / max(foretold_s, 1e-9))

    def ending_s(self, formats: int, layers: int, passes_s: float) -> float:
        """Return what is still to be done when training is: what was measured idle, times how slow it is today.

        Args:
            formats: how many export formats.
            layers: of the network; larger graphs need longer for each format.
            passes_s: for the passes through the network, as measured in this process.
        """
        fixed = ENDING_S + formats * (FORMAT_S + LAYER_S * layers)
        return CARE * self.drift * (self.slowness * fixed + passes_s)
