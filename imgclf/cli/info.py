"""imgclf info"""

from imgclf import environment
from imgclf.cli import options
from imgclf.errors import ImgclfError


def info(json: options.Json = False) -> None:
    """Show versions, cache sizes and training devices."""
    from imgclf.cli import cache, console

    versions, held, hardware = environment.versions(), environment.cache_sizes(), environment.hardware()
    if json:
        folders = {"root": str(environment.cache_root()), "bytes": held}
        console.print_json({"versions": versions, "cache": folders, "hardware": hardware, "devices": _devices()})
        return
    console.table(None, ("package", "version"), list(versions.items()))
    cache.show(held)
    devices = [("device", name) for name in _devices()]  # last: TensorFlow takes seconds
    console.table(None, ("hardware", ""), [*hardware.items(), *devices])


def _devices() -> list[str]:
    """Return the devices of the Keras backend."""
    from imgclf.cli import console

    try:
        with console.phases(console.LOADING):
            environment.prepare_keras()
    except ImgclfError as error:
        return [f"unknown: {error}"]
    from imgclf.training import devices

    return devices.names()
