"""imgclf evaluate"""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgclf import runs
from imgclf.cli import options
from imgclf.errors import UsageError
from imgclf.settings import EvaluateConfig, KfoldConfig

if TYPE_CHECKING:
    from imgclf.evaluation.evaluate import Evaluation
    from imgclf.runs import Run


def evaluate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run folder that imgclf train made.")],
    data: Annotated[
        Path | None, typer.Argument(help="Labelled images, as imgclf train takes them; else the run's test part.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write, a new or empty folder.")
    ] = None,
    moved: options.Moved = None,
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
    format: Annotated[
        str, typer.Option(help="Of the report: html, md, json, or several with commas.")
    ] = EvaluateConfig.format,
    kfold: Annotated[
        int | None,
        typer.Option(help="Train the run's recipe so many times on parts of its images, and test on the rest."),
    ] = EvaluateConfig.kfold,
    fail_under: Annotated[
        str | None, typer.Option(help="Exit with 6 if a score is lower, such as accuracy.low=0.9,macro_f1=0.85.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Score a run's model on its test part, or on any folder of labelled images."""
    if kfold is not None:
        _cross_validate(context, runs.find(run), kfold, moved, fail_under, json=json, quiet=quiet)
        return
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
        result = evaluation.evaluate(found, dataset, config, data=moved, output=output, on_progress=report)
    if json:
        console.print_json(result.metrics)
    else:
        _print(result)
    console.note(f"Written to {result.folder}")
    gates.check(result.metrics, least)


def _cross_validate(
    context: typer.Context,
    run: "Run",
    folds: int,
    moved: Path | None,
    fail_under: str | None,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Cross-validation has the run's own images, settings and folder: other options would do nothing."""
    from imgclf.cli import console
    from imgclf.cli import kfold as command
    from imgclf.evaluation import gates

    allowed = ("run", "kfold", "moved", "fail_under", "json", "quiet")
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in allowed}
    given = sorted(name for name, source in sources.items() if source and source.name != "DEFAULT")
    if given:
        named = ", ".join("DATA" if name == "data" else "--" + name.replace("_", "-") for name in given)
        raise UsageError(f"--kfold takes the run's own images and settings; leave out {named}.")
    console.err.quiet = quiet
    least = gates.parse(fail_under)
    from imgclf.training import crossval

    with console.phases() as on_progress:
        result = crossval.of_run(run, KfoldConfig(folds=folds), data=moved, on_progress=on_progress)
    command.show(result, json=json)
    gates.check(result.metrics, least)


HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "matthews": "Matthews correlation",
    "macro_roc_auc": "ROC area, macro",
    "macro_average_precision": "average precision, macro",
    "log_loss": "log loss, nats",
    "brier": "Brier score, 0 to 2",
}
"""What is printed of the scores, and as what; `metrics.json` has them all."""


def _print(result: "Evaluation") -> None:
    from imgclf.cli import console

    scores = result.metrics
    rows = []
    for name, row in scores["per_class"].items():
        known = [f"{row[key]:.3f}" if row["support"] else None for key in ("precision", "recall", "f1")]
        rows.append((name, *known, _range(row["intervals"]["recall"]), row["support"]))
    console.table("Per class", ("class", "precision", "recall", "F1", "recall, 95 %", "support"), rows)
    headlines = dict(HEADLINES)
    headlines |= {f"top_{k}": f"top-{k} accuracy" for k in scores["top_k"] if k != "1"}
    values = scores | {f"top_{k}": share for k, share in scores["top_k"].items()}
    cells = [
        (name, "" if values[key] is None else f"{values[key]:.3f}", _range(scores["intervals"][key]))
        for key, name in headlines.items()
    ]
    cells.append(("calibration error (ECE)", f"{scores['calibration']['ece']:.3f}", None))
    console.table("Over the classes", ("score", "value", "95 % interval"), cells)
    low, high = scores["intervals"]["accuracy"]
    console.out.print(f"accuracy {scores['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {scores['n']}")
    for warning in scores["warnings"]:
        console.note(warning)


def _range(ends: list[float] | None) -> str | None:
    return None if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
