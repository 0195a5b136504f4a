"""imgclf models"""

from imgclf.cli import options
from imgclf.settings.classical import CLASSICAL_MODELS


def models(json: options.Json = False) -> None:
    """List the backbones with image size, parameters and accuracy, and classical models."""
    import dataclasses
    from urllib.parse import urlsplit

    from imgclf.cli import console
    from imgclf.models import catalog

    if json:
        known = catalog.MODELS.values()
        more = ("weights_mb", "bundled")
        console.print_json([dataclasses.asdict(facts) | {key: getattr(facts, key) for key in more} for facts in known])
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
    console.out.print(f"The weights of {catalog.DEFAULT} are bundled; others are downloaded once.")
    console.out.print("top-1: published accuracy on the ImageNet validation set. Sources:")
    for address in dict.fromkeys(facts.source for facts in catalog.MODELS.values() if facts.source):
        console.out.print(address)
    console.out.print("Classical models, by imgclf train DATA --model NAME:")
    for name, (what, kind) in CLASSICAL_MODELS.items():
        console.out.print(f"  {name}: {what}, {kind}")
