"""imgclf models"""

from typing import Annotated

import typer


def models(json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """List the backbones with their default image size, parameters, weights and published ImageNet accuracy."""
    import dataclasses
    from urllib.parse import urlsplit

    from imgclf.cli import console
    from imgclf.models import catalog

    if json:
        known = catalog.MODELS.values()
        console.print_json([{**dataclasses.asdict(facts), "weights_mb": facts.weights_mb} for facts in known])
        return
    rows = [
        (
            facts.name,
            facts.image_size,
            "" if facts.parameters is None else f"{facts.parameters / 1e6:.1f}",
            "" if facts.weights_mb is None else f"{facts.weights_mb:.0f}",
            facts.top1,
            facts.source and urlsplit(facts.source).netloc.removesuffix(".com"),
        )
        for facts in catalog.MODELS.values()
    ]
    console.table(None, ("model", "size px", "M params", "weights MB", "top-1 %", "source"), rows)
    console.out.print("top-1: accuracy on ImageNet's validation images, as published at")
    for address in dict.fromkeys(facts.source for facts in catalog.MODELS.values() if facts.source):
        console.out.print(address)
