"""imgclf kfold"""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgclf.cli import train
from imgclf.settings import KfoldConfig, TrainConfig

if TYPE_CHECKING:
    from imgclf.training.crossval import CrossValidation

PANEL = "Folds"
LEFT_OUT = ("config", "resume", "moved", "export")
"""Options of `imgclf train` that folds do not have: they are never exported, and gone on with by the same command."""


def kfold(context: typer.Context, **given: Any) -> None:
    """Cross-validate: train several times, and test every image once, with a model that has not seen it.

    Each fold is a run. The same command goes on where it was interrupted, given the same -o.
    """
    from imgclf.cli import console
    from imgclf.data import readers

    console.err.quiet = given["quiet"]
    config = TrainConfig(**{f.name: given[f.name] for f in fields(TrainConfig) if f.name in given})
    settings = KfoldConfig(**{f.name: given[f.name] for f in fields(KfoldConfig)})
    with console.phases() as on_progress:
        dataset = readers.read(
            given["data"],
            config,
            classes=() if config.relabels else config.class_filter,
            limit=None if config.relabels else config.limit,
            on_progress=lambda done, total: on_progress("reading", done, total),
        )
        from imgclf.training import crossval  # after reading: a wrong folder fails before Keras loads

        result = crossval.kfold(dataset, config, settings, output=given["output"], on_progress=on_progress)
    show(result, json=given["json"])


def show(result: "CrossValidation", *, json: bool) -> None:
    """Print a row for each fold, mean, deviation and interval, and one sentence."""
    from imgclf.cli import console

    if json:
        console.print_json({"folder": str(result.folder), "folds": result.folds, "metrics": result.metrics})
        return
    keys, summary = result.folds["keys"], result.folds["summary"]
    rows: list[tuple[object, ...]] = [
        (row["fold"], row["n"], *(_number(row[key]) for key in keys)) for row in result.folds["rows"]
    ]
    for name, title in (("mean", "mean"), ("deviation", "std. deviation")):
        rows.append((title, None, *(_number(summary[key][name]) for key in keys)))
    for place, title in enumerate(("95 %, low", "95 %, high")):
        ends = (summary[key]["interval"] for key in keys)
        rows.append((title, None, *(_number(end[place] if end else None) for end in ends)))
    console.table(None, ("fold", "n", *(key.replace("_", " ") for key in keys)), rows)
    console.out.print(result.folds["sentence"])
    console.note(f"Written to {result.folder}")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _signature() -> inspect.Signature:
    """The options of `imgclf train`, but for a few, and those of the folds: written down once."""
    own = {
        "data": Annotated[Path, typer.Argument(help="A folder, an archive or a table of images with classes.")],
        "output": Annotated[
            Path | None, typer.Option("--output", "-o", help="A new folder, or one whose folds are to be gone on with.")
        ],
    }
    parameters = []
    for parameter in inspect.signature(train.train).parameters.values():
        if parameter.name in own:
            default = inspect.Parameter.empty if parameter.name == "data" else parameter.default
            parameter = parameter.replace(annotation=own[parameter.name], default=default)
        if parameter.name not in LEFT_OUT:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    helps = {
        "folds": "How many parts; each is tested once.",
        "repeats": "Deal out anew so many times.",
        "jobs": "Folds trained at the same time.",
    }
    for name, text in helps.items():
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(KfoldConfig, name),
                annotation=Annotated[int, typer.Option(help=text, rich_help_panel=PANEL)],
            )
        )
    return inspect.Signature(parameters)


kfold.__signature__ = _signature()  # type: ignore[attr-defined]
kfold.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()}
