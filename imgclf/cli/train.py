"""imgclf train"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import typer

from imgclf import environment, runs
from imgclf.cli import options
from imgclf.errors import RunError, UsageError
from imgclf.settings import TrainConfig


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
    from imgclf.data import readers, scan_cache

    started = environment.process_start()
    console.err.quiet = quiet
    if resume:
        given.refuse_others(
            ("resume", "moved", "epochs", "json", "quiet"), "--resume keeps the run's own settings and data."
        )
    elif moved:
        raise UsageError("--data tells --resume where the run's images are now; without --resume, pass DATA alone.")
    with console.phases() as on_progress:
        if resume:
            from imgclf.training import train as training

            run = training.resume(
                runs.find(resume), epochs=settings.epochs, data=moved, on_progress=on_progress, started=started
            )
        else:
            settings, source = _merged(settings, given, data, config)
            with scan_cache.Scanner(settings.allow_truncated) as scanner:
                sees_all = settings.near_duplicates == "group" and settings.limit is None
                dataset = readers.read(
                    source,
                    settings,
                    classes=() if settings.relabels else settings.class_filter,
                    limit=None if settings.relabels else settings.limit,
                    on_progress=lambda done, total: on_progress("reading", done, total),
                    scanner=scanner if sees_all else None,
                )
            from imgclf.training import train as training  # after reading: a wrong folder fails before Keras loads

            run = training.train(dataset, settings, output=output, on_progress=on_progress, started=started)
    scores = runs.read_json(run.metrics) if run.metrics.exists() else None
    if json:
        console.print_json({"run": str(run.path), "metrics": scores})
    else:
        console.out.print(str(run.path))


def _merged(
    settings: TrainConfig, given: options.Given, data: Path | None, config: Path | None
) -> tuple[TrainConfig, Path]:
    """The settings and the data of this command line, on top of those of `--config`."""
    if config:
        config = config / "config.json" if config.is_dir() else config
        facts = runs.read_json(config)
        if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict):
            raise RunError(f"{config}: expected the config.json of a run, found no settings in it.")
        if data is None and not facts.get("data"):
            raise RunError(f"{config}: expected the path of its data, found none. Give DATA as well.")
        data = data or Path(facts["data"])
        typed = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name in given}
        settings = replace(TrainConfig.from_dict(facts["config"]), **typed)
    if data is None:
        raise UsageError("expected a folder of images: imgclf train DATA.")
    return settings, data
