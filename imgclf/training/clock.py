"""How much of a time limit is left, and what the work still ahead will take of it."""

import time
from dataclasses import dataclass

IDLE_START_S = 5.0
"""What starting Python, Keras and TensorFlow is taken to need on an idle machine of two cores: a guess."""


@dataclass(frozen=True)
class Clock:
    """A limit for a whole process.

    Args:
        started: when the process began, of `time.monotonic`.
        limit_s: inf for none.
        slowness: how many times as long as on an idle machine the process took to start, at least 1.
    """

    started: float
    limit_s: float
    slowness: float = 1.0

    @classmethod
    def start(cls, limit_s: float, started: float | None = None) -> "Clock":
        """A clock that has run since `started`, or runs from now on."""
        now = time.monotonic()
        took = 0.0 if started is None else now - started
        return cls(now - took, limit_s, max(1.0, took / IDLE_START_S))

    def left_s(self, kept_back_s: float = 0.0) -> float:
        """Seconds until the limit, less those that are kept back for what is still to come."""
        return self.started + self.limit_s - time.monotonic() - kept_back_s

    def deadline(self, kept_back_s: float = 0.0) -> float:
        """The same as a point in time, of `time.monotonic`."""
        return self.started + self.limit_s - kept_back_s

    def ending_s(self, formats: int, layers: int) -> float:
        """What scoring, saving, reporting and exporting will take: a guess for idle cores, times `slowness`.

        Args:
            formats: how many export formats.
            layers: of the network; larger graphs are taken to need longer for each format.
        """
        return self.slowness * (6 + formats * (2 + layers / 40))
