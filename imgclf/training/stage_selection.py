"""Decide from validation scores whether to keep a stage."""

import numpy as np

from imgclf import tasks
from imgclf.evaluation import scorers

ACCEPTED = "accepted"
NO_TIME = "refused: the time was up"


def score(logits: np.ndarray, targets: np.ndarray, task: str = tasks.DEFAULT) -> tuple[float, float]:
    """Return the task's score, and the loss at the best temperature: the one that the finished model gets.

    Label smoothing makes a model less confident than it is correct, and a head that was fitted to convergence more;
    without the temperature the first would always lose against the second.

    Args:
        logits: float (n, classes).
        targets: those that the logits are fitted to.
    """
    temperature = scorers.find(task).temperature(targets, logits)
    loss, best = tasks.find(task).score(logits / temperature, targets)
    return best, loss


def judge(
    before: tuple[float, float], after: tuple[float, float], *, costly: bool = False, task: str = tasks.DEFAULT
) -> str:
    """Whether a stage is kept, or why not, by the `score` of the validation images before and after it.

    Args:
        costly: whether all that comes later, predictions too, would take longer. Then the score must rise.
    """
    if after[0] < before[0] or (costly and after[0] == before[0]):
        short = "is not above" if after[0] == before[0] else "is below"
        return f"refused: validation {tasks.find(task).SCORE} {after[0]:.4f} {short} {before[0]:.4f}"
    if after[1] >= before[1]:
        return f"refused: calibrated validation loss {after[1]:.4f} is not below {before[1]:.4f}"
    return ACCEPTED
