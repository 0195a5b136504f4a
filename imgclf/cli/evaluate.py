"""imgclf evaluate"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import imgclf
from imgclf import runs
from imgclf.cli import options
from imgclf.settings import EvaluateConfig, KfoldConfig

if TYPE_CHECKING:
    from imgclf.evaluation.evaluate import Evaluation


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
    from imgclf.evaluation import conclusion

    console.err.quiet = quiet
    if settings.kfold:
        given.refuse_others(CROSS_VALIDATED, "--kfold uses the run's own images and settings.")
        return _cross_validate(run, settings.kfold, moved, settings.fail_under, json=json)
    with console.phases() as on_progress:
        reading = partial(on_progress, "reading")
        dataset = imgclf.read(data, settings, split=False, on_progress=reading) if data else None
        result = imgclf.evaluate(run, dataset, settings, data=moved, output=output, on_progress=on_progress)
    console.print_json(result.metrics) if json else _print(result)
    console.note(f"Wrote {result.folder}.")
    console.notes(conclusion.of_run(runs.find(run), result.folder))
    result.check()


CROSS_VALIDATED = ("run", "kfold", "moved", "fail_under", "json", "quiet")
"""The parameters that --kfold allows."""

HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "matthews": "Matthews correlation",
    "macro_roc_auc": "ROC AUC, macro",
    "macro_average_precision": "average precision, macro",
    "log_loss": "log loss, nats",
    "brier": "Brier score, 0 to 2",
}
"""What is printed of the scores, and as what; `metrics.json` has them all."""


def _cross_validate(run: Path, folds: int, moved: Path | None, fail_under: str | None, *, json: bool) -> None:
    from imgclf.cli import console, kfold
    from imgclf.evaluation import gates

    least = gates.parse(fail_under)
    with console.phases() as on_progress:
        result = imgclf.kfold(runs.find(run), settings=KfoldConfig(folds), data=moved, on_progress=on_progress)
    kfold.show(result, json=json)
    gates.check(result.metrics, least)


def _print(result: "Evaluation") -> None:
    from imgclf.cli import console
    from imgclf.evaluation import decisions

    scores = result.metrics
    rows = []
    for name, row in scores["per_class"].items():
        known = [f"{row[key]:.3f}" if row["support"] else None for key in ("precision", "recall", "f1")]
        rows.append((name, *known, _range(row["intervals"]["recall"]), row["support"]))
    console.table("Per class", ("class", "precision", "recall", "F1", "recall, 95% interval", "support"), rows)
    headlines = dict(HEADLINES)
    headlines |= {f"top_{k}": f"top-{k} accuracy" for k in scores["top_k"] if k != "1"}
    values = scores | {f"top_{k}": share for k, share in scores["top_k"].items()}
    cells = [
        (name, "" if values[key] is None else f"{values[key]:.3f}", _range(scores["intervals"][key]))
        for key, name in headlines.items()
    ]
    cells.append(("calibration error (ECE)", f"{scores['calibration']['ece']:.3f}", None))
    console.table("Over the classes", ("score", "value", "95% interval"), cells)
    low, high = scores["intervals"]["accuracy"]
    console.out.print(f"accuracy {scores['accuracy']:.3f} (95% CI {low:.3f} to {high:.3f}), n = {scores['n']}")
    for note in [decisions.describe(scores), *scores["warnings"]]:
        if note:
            console.note(note)


def _range(ends: list[float] | None) -> str | None:
    return None if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
