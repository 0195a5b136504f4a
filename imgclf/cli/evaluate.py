"""imgclf evaluate"""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgclf import runs
from imgclf.cli import options
from imgclf.config import EvaluateConfig

if TYPE_CHECKING:
    from imgclf.evaluation.evaluate import Evaluation


def evaluate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    data: Annotated[
        Path | None, typer.Argument(help="Labelled images, as imgclf train takes them; else the run's test part.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write, a new or empty folder.")
    ] = None,
    layout: options.Layout = EvaluateConfig.layout,
    depth: options.Depth = EvaluateConfig.depth,
    path_column: options.PathColumn = EvaluateConfig.path_column,
    label_column: options.LabelColumn = EvaluateConfig.label_column,
    split_column: options.SplitColumn = EvaluateConfig.split_column,
    group_column: options.GroupColumn = EvaluateConfig.group_column,
    class_names: options.ClassNames = EvaluateConfig.class_names,
    box_margin: options.BoxMargin = EvaluateConfig.box_margin,
    box_min_size: options.BoxMinSize = EvaluateConfig.box_min_size,
    crowd: options.Crowd = EvaluateConfig.crowd,
    difficult: options.Difficult = EvaluateConfig.difficult,
    allow_truncated: options.AllowTruncated = EvaluateConfig.allow_truncated,
    top_k: Annotated[int, typer.Option(help="Also how often the true class is among so many.")] = EvaluateConfig.top_k,
    batch_size: Annotated[int, typer.Option(help="Images decoded ahead of the model.")] = EvaluateConfig.batch_size,
    missing_classes: Annotated[
        str, typer.Option(help="A class of the model that DATA lacks: error or allow.")
    ] = EvaluateConfig.missing_classes,
    unknown_classes: Annotated[
        str, typer.Option(help="A class of DATA that the model does not know: error or skip.")
    ] = EvaluateConfig.unknown_classes,
    fail_under: Annotated[
        str | None, typer.Option(help="Exit with 6 if a score is lower, such as accuracy=0.9,macro_f1=0.85.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Score a run's model on its test part, or on any folder of labelled images."""
    from imgclf.cli import console
    from imgclf.data import readers
    from imgclf.evaluation import evaluate as evaluation
    from imgclf.evaluation import gates

    console.err.quiet = quiet
    least, found = gates.parse(fail_under), runs.find(run)
    config = EvaluateConfig(**{field.name: context.params[field.name] for field in fields(EvaluateConfig)})
    with console.phases() as report:
        reading = partial(report, "reading")
        dataset = readers.read(data, config, min_classes=1, on_progress=reading) if data else None
        result = evaluation.evaluate(found, dataset, config, output=output, on_progress=report)
    if json:
        console.print_json(result.metrics)
    else:
        _print(result)
    console.note(f"Written to {result.folder}")
    gates.check(result.metrics, least)


def _print(result: "Evaluation") -> None:
    from imgclf.cli import console

    scores = result.metrics
    rows = []
    for name, row in scores["per_class"].items():
        known = [f"{row[key]:.3f}" if row["support"] else None for key in ("precision", "recall", "f1")]
        rows.append((name, *known, row["support"]))
    console.table("Per class", ("class", "precision", "recall", "F1", "support"), rows)
    means = [
        (f"{mean} mean", *(f"{scores[f'{mean}_{key}']:.3f}" for key in ("precision", "recall", "f1")))
        for mean in ("macro", "weighted")
    ]
    console.table("Over the classes", ("", "precision", "recall", "F1"), means)
    low, high = scores["intervals"]["accuracy"]
    console.out.print(f"accuracy {scores['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {scores['n']}")
    console.out.print(f"balanced accuracy {scores['balanced_accuracy']:.3f}")
    for k, share in scores["top_k"].items():
        if k != "1":
            console.out.print(f"top-{k} accuracy {share:.3f}")
