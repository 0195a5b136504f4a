"""imgclf info"""

from typing import Annotated

import typer

from imgclf import environment
from imgclf.errors import ImgclfError


def info(json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """Show versions, caches and their sizes, and the devices that training will use."""
    from imgclf.cli import cache, console

    versions, held, hardware = environment.versions(), cache.sizes(), environment.hardware()
    if json:
        folders = {"root": str(environment.cache_root()), "bytes": held}
        console.print_json({"versions": versions, "cache": folders, "hardware": hardware, "devices": _devices()})
        return
    console.table(None, ("package", "version"), list(versions.items()))
    cache.show(held)
    devices = [("device", name) for name in _devices()]  # last: TensorFlow takes seconds
    console.table(None, ("hardware", ""), [*hardware.items(), *devices])


def _devices() -> list[str]:
    """What training can compute on, as the Keras backend sees it."""
    try:
        environment.prepare_keras()
    except ImgclfError as error:
        return [f"unknown: {error}"]
    from imgclf.training import devices

    return devices.names()
