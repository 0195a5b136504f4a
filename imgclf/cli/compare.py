"""imgclf compare"""

from pathlib import Path
from typing import Annotated, Any

import typer

import imgclf
from imgclf.cli import options


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more runs, or folders of imgclf evaluate.")],
    common: Annotated[bool, typer.Option("--common", help="Compare on the test images that all runs share.")] = False,
    json: options.Json = False,
) -> None:
    """Compare runs on the same test images, with confidence intervals."""
    from imgclf.cli import console

    result = imgclf.compare(runs, common=common)
    if json:
        console.print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    from imgclf.cli import console

    keys = [key for key in result["runs"][0] if key not in ("run", "intervals", "brier")]
    rows, first = [], next(key for key in keys if key in result["runs"][0]["intervals"])
    keys = [first, *(key for key in keys if key != first)]
    for row in result["runs"]:
        ends = row["intervals"][first]
        values = ["" if row[key] is None else f"{row[key]:.3f}" for key in keys]
        rows.append((row["run"], values[0], "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}", *values[1:]))
    heads = [key.replace("_", " ").replace("f1", "F1") for key in keys]
    console.table(f"On {result['n']} images", ("run", heads[0], "95% CI", *heads[1:]), rows)
    if "loss" in result["pairs"][0]:
        _print_losses(result)
        return
    pairs = [
        (
            *pair["runs"],
            f"{100 * pair['accuracy']:+.1f}",
            " to ".join(f"{100 * end:+.1f}" for end in pair["interval"]) if _differ(pair) else None,
            f"{pair['only_first']} : {pair['only_second']}",
            f"{pair['p']:.2g}" if _differ(pair) else None,
        )
        for pair in result["pairs"]
    ]
    console.table(
        "Pairs: gain in accuracy of the second, in percentage points",
        ("first", "second", "gain", "95% CI", "only one correct", "p"),
        pairs,
    )
    console.out.print(result["sentence"])


def _differ(pair: dict[str, Any]) -> bool:
    """Whether there is anything to compute an interval from."""
    return bool(pair["only_first"] or pair["only_second"])


def _print_losses(result: dict[str, Any]) -> None:
    from imgclf.cli import console

    pairs = [
        (
            *pair["runs"],
            f"{pair['loss']:+.4g}",
            " to ".join(f"{end:+.4g}" for end in pair["interval"]) if _differ(pair) else None,
            f"{pair['only_first']} : {pair['only_second']}",
            f"{pair['p']:.2g}" if _differ(pair) else None,
        )
        for pair in result["pairs"]
    ]
    columns = ("first", "second", "change", "95% CI", "better on", "p")
    console.table("Pairs: change of the mean loss of an image, second minus first", columns, pairs)
    console.out.print(result["sentence"])
