"""imgclf info"""

from typing import Annotated

import typer

from imgclf import environment
from imgclf.errors import MissingError


def info(json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """Show versions, caches and their sizes, and the devices that training will use."""
    from imgclf.cli import cache, console

    versions, held, hardware = environment.versions(), cache.sizes(), environment.hardware()
    if json:
        folders = {"root": str(environment.cache_root()), "bytes": held}
        console.print_json({"versions": versions, "cache": folders, "hardware": hardware, "device": _device()})
        return
    console.table(None, ("package", "version"), list(versions.items()))
    cache.show(held)
    console.table(None, ("hardware", ""), [*hardware.items(), ("device", _device())])  # last: TensorFlow takes seconds


def _device() -> str:
    """What training computes on, as the Keras backend sees it."""
    try:
        environment.prepare_keras()
    except MissingError as error:
        return f"unknown: {error}"
    from imgclf.training import devices

    return "CPU" if devices.on_cpu() else "GPU"
