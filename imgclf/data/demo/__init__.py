"""Sample data, drawn from a seed: autumn leaves, shapes, and damaged leaves."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from imgclf import tasks
from imgclf.errors import UsageError


def render(
    directory: Path | str, task: str = tasks.DEFAULT, *, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw the sample data of a task, and return the directory.

    Raises:
        UsageError: if there are none for the task, or the directory is not empty or cannot be written.
    """
    from imgclf.data.demo import rendering, shapes  # Pillow and NumPy

    sets: dict[str, Callable[..., Path]] = {"multiclass": rendering.render}
    sets |= {name: partial(shapes.render, draw=draw) for name, draw in shapes.SETS.items()}
    tasks.find(task)
    if task not in sets:
        raise UsageError(f"sample does not support --task {task} yet.")
    return sets[task](directory, on_progress=on_progress)
