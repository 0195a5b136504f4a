"""Which models to export."""

from dataclasses import dataclass

from imgclf.settings.base import Config, names, require, setting, some_of
from imgclf.settings.training import EXPORT_FORMATS, TrainConfig

QUANTIZATIONS = ("none", "float16", "int8")
PRECISE = ("litert-float16", "litert-int8")
FORMATS = (*EXPORT_FORMATS, "mediapipe", "backbone")


@dataclass(frozen=True)
class ExportConfig(Config):
    """Which formats to export, and in which precision."""

    format: str | None = setting(
        None,
        "Export formats, separated by commas",
        metavar="FORMAT,...",
        choices=FORMATS,
        check=some_of((*FORMATS, *PRECISE)),
        everyday=True,
    )
    quantize: str = setting("none", "Quantization of LiteRT", choices=QUANTIZATIONS, everyday=True)
    all: bool = setting(False, "Export every format available on this machine.", everyday=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize != "none" and not self.all:
            asked = names(self.format or "litert")
            require("litert" in asked, "quantize", "litert in --format, the only format it applies to", self.format)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats asked for, by their names in `exporting.artifacts.FILES`."""
        if self.quantize == "none":
            return names(self.format or TrainConfig.export)
        return tuple(f"litert-{self.quantize}" if n == "litert" else n for n in names(self.format or "litert"))
