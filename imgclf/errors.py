"""The error tree: one class for each exit code.

The CLI turns each into one message and an exit code; the library raises them.

ImgclfError            1   unexpected
|-- UsageError         2   an option or an argument
|-- DatasetError       3   the images or their labels
|   `-- ImageError     3   one image
|-- RunError           4   a run folder
|   `-- ArtifactError  4   an exported model
|-- MissingError       5   a package or weights that are not here
`-- GateError          6   a gate such as --fail-under that was not met
"""


class ImgclfError(Exception):
    """Something that imgclf can explain. The message says where, what was expected, found, and what to do."""

    exit_code = 1


class UsageError(ImgclfError, ValueError):
    """An option or an argument has an impossible value."""

    exit_code = 2


class DatasetError(ImgclfError):
    """The images or their labels cannot be used as they are."""

    exit_code = 3


class ImageError(DatasetError):
    """One image cannot be decoded. The message is a reason without the path, ready for a table."""


class RunError(ImgclfError):
    """A run folder is missing, damaged, in use or already there."""

    exit_code = 4


class ArtifactError(RunError):
    """An exported model is missing, damaged, foreign or too new."""


class MissingError(ImgclfError):
    """A package or a file of weights that is needed is not on this machine."""

    exit_code = 5


class GateError(ImgclfError):
    """A gate that the user set was not met."""

    exit_code = 6
