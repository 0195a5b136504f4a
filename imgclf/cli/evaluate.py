"""imgclf evaluate"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import imgclf
from imgclf import runs
from imgclf.cli import options
from imgclf.settings import EvaluateConfig, KfoldConfig


def evaluate(
    run: options.Run,
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Labeled images; by default the run's test split.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New or empty folder for the results.")
    ] = None,
    moved: options.Moved = None,
    *,
    settings: EvaluateConfig,
    given: options.Given,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a run's model on its test split or on other labeled images."""
    from imgclf.cli import console
    from imgclf.evaluation import conclusion, scorers

    console.err.quiet = quiet
    if settings.kfold:
        given.refuse_others(CROSS_VALIDATED, "--kfold uses the run's own images and settings.")
        return _cross_validate(run, settings.kfold, moved, settings.fail_under, json=json)
    runs.check_new(output)
    task = scorers.task_of(runs.find(run))
    with console.phases() as on_progress:
        reading = partial(on_progress, "reading")
        config = replace(settings, task=task)
        dataset = imgclf.read(data, config, split=False, on_progress=reading) if data else None
        result = imgclf.evaluate(run, dataset, config, data=moved, output=output, on_progress=on_progress)
    found = {name: getattr(result, name) for name in ("robustness", "slices") if getattr(result, name)}
    if json:
        console.print_json(result.metrics | found)
    else:
        _print(task, result.metrics)
        _print_more(**found)
    console.note(f"Wrote {result.folder}.")
    console.notes(conclusion.of_run(runs.find(run), result.folder))
    result.check()


CROSS_VALIDATED = ("run", "kfold", "moved", "fail_under", "json", "quiet")
"""The parameters that --kfold allows."""


def _cross_validate(run: Path, folds: int, moved: Path | None, fail_under: str | None, *, json: bool) -> None:
    from imgclf.cli import console, kfold
    from imgclf.evaluation import gates, scorers

    keys = scorers.of(runs.find(run)).GATES
    least = gates.parse(fail_under, keys)
    with console.phases(console.LOADING) as on_progress:
        result = imgclf.kfold(runs.find(run), settings=KfoldConfig(folds), data=moved, on_progress=on_progress)
    kfold.show(result, json=json)
    gates.check(result.metrics, least, keys)


def _print(task: str, metrics: dict[str, Any]) -> None:
    from imgclf.cli import console
    from imgclf.evaluation import scorers

    scorer = scorers.find(task)
    for title, columns, rows in scorer.tables(metrics):
        console.table(title, columns, rows)
    console.out.print(scorer.headline(metrics))
    for note in [scorer.decided(metrics), *metrics["warnings"]]:
        if note:
            console.note(note)


def _print_more(robustness: dict[str, Any] | None = None, slices: dict[str, Any] | None = None) -> None:
    from imgclf.cli import console
    from imgclf.evaluation import robustness as corrupted
    from imgclf.evaluation import slices as sliced

    if robustness:
        title = f"Accuracy on {robustness['n']} corrupted images"
        console.table(title, corrupted.COLUMNS, corrupted.table(robustness))
        console.out.print(robustness["worst"])
        console.out.print(robustness["translation"])
    if slices:
        if slices["rows"]:
            console.table("Slices, the worst first", sliced.COLUMNS, sliced.table(slices))
        console.out.print(slices["sentence"])
