"""How to predict."""

import re
from dataclasses import dataclass

from imgclf.settings.base import Check, at_least, between, setting
from imgclf.settings.reading import Memory, Truncation

ENGINES = ("auto", "litert", "onnx", "openvino", "savedmodel", "keras", "sklearn", "ray")
FORMATS = ("table", "jsonl", "csv", "parquet", "xlsx")


def _part(text: str | None) -> tuple[int, int]:
    """I and N of I/N; (0, 0) for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text if text is not None else "1/1")
    return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True)
class PredictConfig(Truncation, Memory):
    """How to predict."""

    top: int = setting(1, "Show the N most probable classes.", check=at_least(1), everyday=True)
    format: str = setting("table", "Output format", choices=FORMATS, everyday=True)
    batch_size: int = setting(32, "Decode N images ahead of the model.", check=at_least(1))
    engine: str = setting("auto", "Inference engine", choices=ENGINES, everyday=True)
    precision: str = setting(
        "auto",
        "Precision of the model",
        choices=("auto", "float32", "float16", "int8", "bf16"),
        everyday=True,
    )
    tta: bool = setting(False, "Average over each image and its mirror image.")
    neighbors: int | None = setting(
        None, "Show the N nearest training images (--model knn).", metavar="N", check=at_least(1)
    )
    reject_below: float | None = setting(
        None, "Reject predictions below this confidence.", check=between(0, 1), everyday=True
    )
    shard: str | None = setting(
        None,
        "Predict only part I of N.",
        metavar="I/N",
        check=Check(lambda text: 1 <= _part(text)[0] <= _part(text)[1], "I/N such as 1/4, I from 1 to N"),
    )
    strict: bool = setting(False, "Exit with 3 if an image cannot be read.")
    offline: bool = setting(False, "Never use the network.")

    @property
    def shards(self) -> tuple[int, int]:
        """Which part of how many; (1, 1) for all of it."""
        return _part(self.shard)
