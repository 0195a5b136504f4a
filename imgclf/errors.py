"""The error tree: one class for each exit code.

The CLI turns each into one message and an exit code; the library raises them.

ImgclfError            1   unexpected
|-- UsageError         2   a setting, an option or an argument
|-- DatasetError       3   the images or their labels
|   `-- ImageError     3   one image
|-- RunError           4   a run folder
|   `-- ArtifactError  4   an exported model
|       `-- ExportError 4  some formats of an export were refused
|-- MissingError       5   a package or weights are not installed
`-- GateError          6   a gate such as --fail-under failed
"""

from collections.abc import Sequence
from typing import Any


class ImgclfError(Exception):
    """Base of all errors. The message names the place, what was expected and found, and a remedy."""

    exit_code = 1


class UsageError(ImgclfError, ValueError):
    """A setting, an option or an argument has an impossible value."""

    exit_code = 2


class DatasetError(ImgclfError):
    """The images or their labels cannot be used."""

    exit_code = 3


class ImageError(DatasetError):
    """One image cannot be decoded. The message gives the reason without the path, for a table."""


class RunError(ImgclfError):
    """A run folder is missing, damaged, in use or exists already."""

    exit_code = 4


class ArtifactError(RunError):
    """An exported model is missing, damaged, too new, or not from imgclf."""


class ExportError(ArtifactError):
    """Formats of an export were refused. `rows` describes those that were written, as `imgclf.export` returns them."""

    def __init__(self, message: str, rows: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.rows = list(rows)


class MissingError(ImgclfError):
    """A required package or weights file is not installed."""

    exit_code = 5


class GateError(ImgclfError):
    """A gate that the user set failed."""

    exit_code = 6
