"""imgclf kfold"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf.cli import options
from imgclf.settings import KfoldConfig, TrainConfig

if TYPE_CHECKING:
    from imgclf.training.crossval import CrossValidation


def kfold(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder, archive or table of labeled images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="New folder, or one to resume.")
    ] = None,
    *,
    folds: KfoldConfig,
    settings: Annotated[TrainConfig, options.Without(("export",))],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Cross-validate: test every image once, with a model trained without it.

    Each fold is a run. Repeat the command with the same -o to resume.
    """
    from imgclf.cli import console

    console.err.quiet = quiet
    with console.nothing_written(), console.phases() as on_progress:
        dataset = imgclf.read(data, settings, on_progress=partial(on_progress, "reading"))
        on_progress(console.LOADING, 0, None)
        result = imgclf.kfold(dataset, settings, folds, output=output, on_progress=on_progress)
    show(result, json=json)


def show(result: "CrossValidation", *, json: bool) -> None:
    """Print a row for each fold, mean, deviation and interval, and one sentence."""
    from imgclf.cli import console
    from imgclf.evaluation import conclusion

    if json:
        console.print_json({"folder": str(result.folder), "folds": result.folds, "metrics": result.metrics})
        return
    keys, summary = result.folds["keys"], result.folds["summary"]
    rows: list[tuple[object, ...]] = [
        (row["fold"], row["n"], *(_number(row[key]) for key in keys)) for row in result.folds["rows"]
    ]
    for name, title in (("mean", "mean"), ("deviation", "std. deviation")):
        rows.append((title, None, *(_number(summary[key][name]) for key in keys)))
    for place, title in enumerate(("95% CI, low", "95% CI, high")):
        ends = (summary[key]["interval"] for key in keys)
        rows.append((title, None, *(_number(end[place] if end else None) for end in ends)))
    console.table(None, ("fold", "n", *(key.replace("_", " ").replace("f1", "F1") for key in keys)), rows)
    console.out.print(result.folds["sentence"])
    console.note(f"Wrote {result.folder}.")
    console.notes(conclusion.pages(result.folder))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
