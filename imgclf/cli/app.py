"""The command line: imports the module of the command and turns errors into exit codes.

0 success, 1 unexpected (with a traceback), 2 usage, 3 dataset, 4 run or artifact,
5 missing package or weights, 6 failed gate, 130 interrupted
"""

import contextlib
import errno
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from copy import copy
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from imgclf import __version__, environment
from imgclf.cli import parameters
from imgclf.errors import ImgclfError
from imgclf.printable import printable

if TYPE_CHECKING:
    from imgclf.cli import options

COMMANDS = {
    "ingest": "Check a dataset and its split.",
    "sample": "Draw a sample dataset.",
    "augment": "Preview or write augmented images.",
    "baseline": "Compare simple classifiers with the network.",
    "train": "Train a classifier.",
    "evaluate": "Score a run's model on labeled images.",
    "calibrate": "Set the rules by which a model predicts.",
    "kfold": "Cross-validate a training.",
    "compare": "Compare runs on the same test images.",
    "suspects": "Find labels that are probably wrong.",
    "curves": "Show accuracy by training size and capacity.",
    "drift": "Tell whether new images are like the run's.",
    "suggest": "Choose images to label next.",
    "tune": "Search the best settings.",
    "card": "Write a model card.",
    "predict": "Classify images.",
    "features": "Compute feature vectors, and draw them.",
    "search": "Find the images most like one image.",
    "explain": "Show what in an image decided.",
    "export": "Export a model to other formats.",
    "convolve": "Convolve an image with a kernel, step by step.",
    "describe": "Describe a network layer by layer.",
    "models": "List the backbones.",
    "info": "Show versions, cache sizes and devices.",
    "cache": "Show the size of the cache, or clear it.",
}
"""Each is a function in the module of the same name in this package, in the order of the help."""

INTERRUPTED = 130

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, an exhausted quota and a file at its maximum size."""


INSTEAD: dict[tuple[str, str | None], str] = {("predict", "--json"): "--format jsonl"}
"""What to use in place of options that a command is expected to have."""

OPTION_WIDTH = 27
"""Columns of an option's name in help; what is longer has a line of its own."""


class _Command(TyperCommand):
    """A command with two helps: `--help` lists the everyday options, `--help-all` all of them under their headings."""

    listing: "options.Listing"

    def get_params(self, ctx: Any) -> Any:
        return parameters.quickened(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # NoSuchOption, which Typer does not export
            if hint := INSTEAD.get((self.name or "", getattr(error, "option_name", None))):
                error.possibilities = [hint]  # type: ignore[attr-defined]
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from imgclf.cli import options

        every = options.shows_all(ctx)
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if every or parameter.name not in self.listing.rare:
                shown = copy(parameter)
                shown.opts = [name for name in parameter.opts if name not in self.listing.former]
                if isinstance(shown.default, float):
                    shown.default = f"{shown.default:g}"
                panel = "Options"
                if parameter.param_type_name == "argument":
                    panel = "Arguments"
                elif every:
                    panel = getattr(parameter, "rich_help_panel", None) or panel
                record = shown.get_help_record(ctx)
                if record is None:  # hidden
                    continue
                name, text = record
                if panel == "Arguments":  # without its type
                    name = (parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")
                panels.setdefault(panel, []).append((name, text))
        for name, records in panels.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records, col_max=OPTION_WIDTH)


class _Commands(Mapping[str, TyperCommand]):
    """The commands by name; the module of a command is imported on first use."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        from imgclf.cli import options  # 10 ms that the help of all commands does not need

        function, listing = options.expand(getattr(import_module(f"imgclf.cli.{name}"), name))
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name, cls=_Command)(function)
        command = get_command(single)
        command.listing = listing  # type: ignore[attr-defined]
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


@contextlib.contextmanager
def _printable_usage() -> Iterator[None]:
    """Escape what the user typed in Typer's messages: it escapes control characters, but not what reverses text."""
    try:
        yield
    except TyperException as error:
        error.message = printable(error.message, keep="\n")
        raise


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands()

    def get_params(self, ctx: Any) -> Any:
        return parameters.quickened(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):  # without importing the modules
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _printable_usage():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage():  # of the command, which is parsed here
                return super().invoke(ctx)
        except EOFError as error:  # Typer takes it for a closed prompt and would hide it
            raise RuntimeError("a file or a stream ended too early") from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # Rich would read [names] as markup, and cost 70 ms
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"imgclf {__version__}")
        raise typer.Exit


@app.callback()
def _imgclf(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """From a folder of images to a tested, exported classifier."""


class _Notes(logging.Handler):
    """Prints the log of the library to stderr; the library itself prints nothing.

    What is marked with `once` is printed once: the folds of a cross-validation need one explanation.
    """

    def __init__(self) -> None:
        super().__init__()
        self._explained: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from imgclf.cli import console

        text = record.getMessage()
        if text in self._explained:
            return
        if getattr(record, "once", False):
            self._explained.add(text)
        console.note(text)


def main() -> None:
    """Run the command line on `sys.argv` and exit."""
    environment.open_streams()
    environment.part_stderr()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names that are not text in this encoding are printed escaped
            stream.reconfigure(errors="backslashreplace")
    library = logging.getLogger("imgclf")
    library.setLevel(logging.INFO)
    library.handlers[:] = [_Notes()]
    library.propagate = False  # absl and others hang handlers on the root logger
    if not sys.warnoptions:  # users cannot act on the warnings of scikit-learn and others; python -W shows them
        warnings.showwarning = lambda *arguments, **options: None
    try:
        code = _run()
        with contextlib.suppress(BrokenPipeError):  # the work is done, and the reader has seen enough
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of predictions (head, less) has seen enough, and none are left to be made
        code = 1
    except ImgclfError as error:
        _complain(f"Error: {printable(str(error))}")
        code = error.exit_code
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        environment.discard(sys.stdout)
        where = printable(str(error.filename or "the output"))
        _complain(f"Error: {where}: cannot be written completely ({error.strerror}). Free disk space.")
        code = 1
    if code == INTERRUPTED:
        _complain("Interrupted.")
    _end()
    sys.exit(code)


def _complain(text: str) -> None:
    """Print a line to stderr, if that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)


def _end() -> None:
    """Write what is buffered, or discard it where it cannot be written: Python would change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            environment.discard(stream)


def _run() -> int:
    """Parse and run; return the exit code of Typer (help, a usage error, Ctrl-C), otherwise 0."""
    try:
        get_command(app)(prog_name="imgclf")
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return 0
