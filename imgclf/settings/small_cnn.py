"""The layers of `--backbone small-cnn`, as courses ask for them."""

from dataclasses import dataclass, fields
from typing import Any

from imgclf.errors import UsageError
from imgclf.settings.base import Check, Config, between, flag_of, names, setting

SMALL_CNN = "small-cnn"
PANEL = "Layers of small-cnn"
ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid")
MOST_LAYERS, WIDEST = 20, 4096
_SIDE = between(1, 64, "pixels")


def _widths(text: str) -> tuple[int, ...]:
    """Whole numbers from a comma-separated list; empty for anything else."""
    found = names(text)
    return tuple(map(int, found)) if all(item.isdecimal() and item.isascii() for item in found) else ()


_WIDTHS = Check(
    lambda text: 0 < len(_widths(text)) <= MOST_LAYERS and all(0 < width <= WIDEST for width in _widths(text)),
    f"1 to {MOST_LAYERS} whole numbers such as 32,64, each 1 to {WIDEST}",
)


def _layer(help: str, **more: Any) -> Any:
    return setting(None, help, panel=PANEL, **more)


@dataclass(frozen=True)
class SmallCnn(Config):
    """A stack of blocks of convolution, batch normalization, activation and pooling. None stands for the default.

    Without any of these, `small-cnn` is the network that imgclf trains from scratch by itself.
    """

    filters: str | None = _layer("Filters of each block; 32,64,128 unless given.", metavar="N,...", check=_WIDTHS)
    kernel_size: int | None = _layer("Side of the kernels; 3 unless given.", check=_SIDE)
    stride: int | None = _layer("Stride of the convolutions; 1 unless given.", check=_SIDE)
    padding: str | None = _layer("Padding of the convolutions", choices=("same", "valid"))
    pooling: str | None = _layer("Pooling of each block", choices=("max", "average"))
    pool_size: int | None = _layer("Side of the pooling; 2 unless given.", check=_SIDE)
    activation: str | None = _layer("Activation", choices=ACTIVATIONS)
    batch_norm_layers: str | None = _layer("Batch normalization layers", choices=("on", "off"))
    dense: str | None = _layer("Units of the hidden dense layers.", metavar="N,...", check=_WIDTHS)
    flatten: bool = setting(False, "Flatten the last map.", panel=PANEL)
    global_pooling: bool = setting(False, "Average the last map, as is the default.", panel=PANEL)

    @property
    def layer_options(self) -> dict[str, Any]:
        """The layers that were asked for, by the name of the setting; empty for none."""
        values = {field.name: getattr(self, field.name) for field in fields(SmallCnn)}
        return {name: value for name, value in values.items() if value is not None and value is not False}

    @property
    def widths(self) -> tuple[int, ...]:
        """The filters of each block."""
        return _widths(self.filters or "32,64,128")

    @property
    def hidden(self) -> tuple[int, ...]:
        """The units of each hidden dense layer."""
        return _widths(self.dense or "")


def backbone_name(settings: SmallCnn) -> str:
    """Return the name of a stack, from which `parse` makes it again, such as `small-cnn:filters=32,64+flatten`.

    Raises:
        UsageError: if the last map is to be flattened and averaged.
    """
    if settings.flatten and settings.global_pooling:
        raise UsageError("--flatten and --global-pooling exclude one another. Remove one of them.")
    options = settings.layer_options
    texts = {name: ",".join(names(str(value))) for name, value in options.items()}
    flags = [
        flag_of(name).removeprefix("--") + ("" if options[name] is True else f"={text}") for name, text in texts.items()
    ]
    return f"{SMALL_CNN}:{'+'.join(flags)}"


def parse(name: str) -> SmallCnn | None:
    """Return the stack that `backbone_name` named; None for any other name.

    Raises:
        UsageError: if the name begins as one of a stack and does not go on as one.
    """
    start, colon, rest = name.partition(":")
    if start != SMALL_CNN or not colon:
        return None
    values: dict[str, Any] = {}
    kinds = {field.name: field for field in fields(SmallCnn)}
    for item in rest.split("+"):
        key, equals, text = item.partition("=")
        field = kinds.get(key.replace("-", "_"))
        if field is None or (field.default is False) is bool(equals):
            known = ", ".join(flag_of(name).removeprefix("--") for name in kinds)
            raise UsageError(f"--backbone {name}: expected NAME=VALUE with a name among {known}, found {item!r}.")
        is_number = "int" in str(field.type) and text.isdecimal()
        values[field.name] = (int(text) if is_number else text) if equals else True
    settings = SmallCnn(**values)
    backbone_name(settings)  # refuses what excludes one another
    return settings
