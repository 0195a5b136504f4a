"""imgclf train"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import imgclf
from imgclf import environment, runs
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import TrainConfig

RESUMED = ("resume", "moved", "epochs", "json", "quiet")
"""The parameters that --resume allows."""


def train(
    data: options.Data = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Run folder, new or empty.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Repeat the run of a config.json; options override it."),
        options.Rare,
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Resume a run, or train it for more --epochs.")
    ] = None,
    moved: options.Moved = None,
    *,
    settings: TrainConfig,
    given: options.Given,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a classifier on labeled images, test it, and export it."""
    from imgclf.cli import console
    from imgclf.evaluation import conclusion

    started = environment.process_start()
    console.err.quiet = quiet
    with console.nothing_written(), console.phases() as on_progress:
        if resume:
            given.refuse_others(RESUMED, "--resume keeps the run's own settings and data.")
            runs.find(resume)  # before Keras is loaded, which takes seconds
            on_progress(console.LOADING, 0, None)
            run = imgclf.resume(resume, epochs=settings.epochs, data=moved, on_progress=on_progress, started=started)
        else:
            settings, data = _settled(data, config, moved, settings, given)
            runs.check_new(output)
            environment.require_extras(settings.extras)
            dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
            on_progress(console.LOADING, 0, None)
            run = imgclf.train(dataset, settings, output=output, on_progress=on_progress, started=started)
    console.notes(conclusion.of_run(run))
    scores = run.scores if run.metrics.exists() else None
    if json:
        console.print_json({"run": str(run.path), "metrics": scores})
    else:
        console.out.print(str(run.path))


def _settled(
    data: Path | None, config: Path | None, moved: Path | None, settings: TrainConfig, given: options.Given
) -> tuple[TrainConfig, Path]:
    """Return settings and data of a new training: those of `--config`, changed by what stands on the command line."""
    from imgclf.models.catalog import IMAGENET

    if moved:
        raise UsageError("--data: expected --resume beside it, found none. Pass DATA alone to train.")
    if config:
        recorded, source = runs.read_settings(config)
        settings, data = given.over(recorded, settings), data or source
    if data is None:
        raise UsageError("expected a folder of images: imgclf train DATA.")
    if data.name == IMAGENET and not data.exists():
        raise UsageError(
            f"{data}: expected images to train on, found nothing there. {IMAGENET} is a classifier for imgclf predict; "
            "imgclf train DATA starts from its weights by default."
        )
    return settings, data
