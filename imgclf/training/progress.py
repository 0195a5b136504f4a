"""What a training tells while it runs."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
"""A row of the history: see `history`."""

OnProgress = Callable[..., None]
"""Called with phase, units done and units in total; steps of gradient descent add a fourth string with the loss."""

OnEpoch = Callable[[list[Row]], None]
"""Called with the rows of all epochs so far."""
