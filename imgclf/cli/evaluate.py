"""imgclf evaluate"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgclf import runs
from imgclf.config import EvaluateConfig

if TYPE_CHECKING:
    from imgclf.evaluation.evaluate import Evaluation


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    data: Annotated[
        Path | None, typer.Argument(help="A folder with one sub-folder of images per class; else the run's test part.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write, a new or empty folder.")
    ] = None,
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
    config = EvaluateConfig(top_k, batch_size, missing_classes, unknown_classes)
    with console.phases() as report:
        dataset = readers.read(data, min_classes=1, on_progress=partial(report, "reading")) if data else None
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
