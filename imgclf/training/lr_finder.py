"""Find a learning rate by a range test (Smith 2017, arXiv:1506.01186)."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from imgclf.errors import RunError
from imgclf.training import callbacks, loop
from imgclf.training.images import Part
from imgclf.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

FROM, TO = 1e-6, 1.0
STEPS = 60
SETTLING = 10
"""Steps at the lowest rate before, which moves next to nothing: the mean of a few batches is no level to rise from."""

SMOOTHING = 0.9
BURST = 4.0
"""The test ends when the smoothed loss is this many times its lowest."""

FLAT = 1.1
"""A smoothed loss up to FLAT times the lowest has not risen yet. A fitted head starts at its lowest loss: there the
rate of the lowest loss says nothing, and only where it begins to rise does."""

SAFETY = 10.0
"""How far below the highest rate without a rise the chosen one is."""


@dataclass(frozen=True)
class Curve:
    """Rates that were tried, the smoothed loss at each, and the rate that was chosen."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float


def sweep(model: "keras.Model", train: Part, recipe: Recipe) -> Curve:
    """Train on some batches, each at a higher rate than the one before; what the model was, it is again afterwards.

    Raises:
        RunError: if the loss is no number from the first step on.
    """
    logits = loop.compiled(model, train, replace(recipe, lr=FROM), scheduled=False)
    rates = np.geomspace(FROM, TO, STEPS)
    tried = [*([FROM] * SETTLING), *rates.tolist()]
    before = callbacks.values(model.variables)  # dropout's seed state is among them
    losses: list[float] = []
    average = 0.0
    for step, (rate, batch) in enumerate(zip(tried, loop.batches(model, train, recipe, 0), strict=False)):
        logits.optimizer.learning_rate = rate
        logits.reset_metrics()  # the loss that comes back is the mean since the last reset
        loss = float(logits.train_on_batch(*batch)[0])
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smooth = average / (1 - SMOOTHING ** (step + 1))
        if not np.isfinite(smooth) or (losses and smooth > BURST * min(losses)):
            break
        if step >= SETTLING:
            losses.append(smooth)
    callbacks.assign(model.variables, before)
    return choose(rates[: len(losses)], np.array(losses))


def choose(rates: np.ndarray, losses: np.ndarray) -> Curve:
    """Return a tenth of the highest rate at which the smoothed loss has not risen above its lowest.

    Raises:
        RunError: if there is not one loss.
    """
    if not len(losses):
        raise RunError("--lr auto: the loss is no number from the first step on. Give --lr yourself.")
    chosen = float(rates[np.flatnonzero(losses <= FLAT * losses.min())[-1]]) / SAFETY
    return Curve(tuple(rates.tolist()), tuple(losses.tolist()), float(f"{chosen:.2g}"))
