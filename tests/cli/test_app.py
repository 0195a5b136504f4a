import io
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from imgclf import __version__, errors
from imgclf.cli import app, console

TREE = (
    errors.UsageError,
    errors.DatasetError,
    errors.RunError,
    errors.ArtifactError,
    errors.MissingError,
    errors.GateError,
)

STAND_IN = """
import sys, types
from imgclf.cli import app

def info() -> None:
    {body}

module = types.ModuleType("imgclf.cli.info")
module.info = info
sys.modules["imgclf.cli.info"] = module
sys.argv = ["imgclf", "info"]
app.main()
"""


@pytest.fixture(autouse=True)
def library_log() -> Iterator[None]:
    """`main` shows the library's log for the rest of the process; here, for one test."""
    library = logging.getLogger("imgclf")
    handlers, level = list(library.handlers), library.level
    yield
    library.handlers[:] = handlers
    library.setLevel(level)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `imgclf ARGUMENTS` here and returns its exit code; `info=` stands in for that command."""

    def call(*arguments: str, info: Callable[[], None] | None = None) -> int:
        if info is not None:
            module = ModuleType("imgclf.cli.info")
            info.__name__ = "info"
            module.info = info  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "imgclf.cli.info", module)
        monkeypatch.setattr(sys, "argv", ["imgclf", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0)

    return call


def start(body: str) -> subprocess.Popen[str]:
    """`imgclf info` in a process of its own, doing `body` in its place."""
    code = STAND_IN.format(body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


def test_help_describes_every_command(run, capsys):
    assert run("--help") == 0
    rows = capsys.readouterr().out.split("Commands:")[1].strip().splitlines()
    described = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(described) == list(app.COMMANDS)
    assert all(" ".join(words).endswith(".") and not words[-1].endswith("...") for words in described.values())


def test_version_is_the_packages(run, capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"imgclf {__version__}\n"


def test_without_a_command_help_is_shown_as_a_usage_error(run, capsys):
    assert run() == 2
    assert "Commands:" in "".join(capsys.readouterr())


def test_a_mistyped_command_is_a_usage_error_that_suggests_the_right_one(run, capsys):
    assert run("trian") == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error_that_names_it(run, capsys):
    assert run("info", "--colour", info=lambda: None) == 2
    assert "--colour" in capsys.readouterr().err


def test_only_the_module_of_the_command_is_imported():
    code = "import sys; from imgclf.cli import app; sys.argv = ['imgclf', 'models', '--help']\n"
    code += "try: app.main()\nexcept SystemExit: print(*[n for n in sys.modules if n.startswith('imgclf.cli.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = {f"imgclf.cli.{name}" for name in ("app", "models", "options", "parameters")}
    assert set(done.stdout.splitlines()[-1].split()) == expected


def test_the_help_of_all_commands_imports_none_of_them():
    code = "import sys; from imgclf.cli import app; sys.argv = ['imgclf', '--help']\n"
    code += "try: app.main()\nexcept SystemExit: print(*[n for n in sys.modules if n.startswith('imgclf.cli.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) == {"imgclf.cli.app", "imgclf.cli.parameters"}


@pytest.mark.parametrize("kind", TREE)
def test_an_error_becomes_its_message_and_its_exit_code(run, capsys, kind):
    def info() -> None:
        raise kind("photos/[red]: expected 2 class folders, found [/1].")

    assert run("info", info=info) == kind.exit_code
    printed = capsys.readouterr()
    assert printed.err == "Error: photos/[red]: expected 2 class folders, found [/1].\n"
    assert printed.out == ""


@pytest.mark.parametrize("kind", [ZeroDivisionError, EOFError])
def test_anything_unforeseen_is_a_plain_traceback_and_exit_code_1(kind):
    process = start(f"secret = 'tok' + 'en'; raise {kind.__name__}('why')")
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert printed == ""
    assert "Traceback" in complaints
    assert f"{kind.__name__}: why" in complaints
    assert "token" not in complaints


def test_an_option_of_other_commands_is_answered_with_that_of_this_one(run, capsys):
    assert run("predict", "model", "x.jpg", "--json") == 2
    assert "No such option: --json" in (complaint := capsys.readouterr().err)
    assert "--format jsonl" in complaint
    assert run("predict", "model", "x.jpg", "--tpo", "2") == 2
    assert "jsonl" not in capsys.readouterr().err


def test_an_interruption_is_one_line_and_130(run, capsys):
    def info() -> None:
        raise KeyboardInterrupt

    assert run("info", info=info) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_in_a_terminal_is_one_line_and_130():
    # where Ctrl-C is ignored (nohup, a background job, many CI systems), children inherit that
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = start(f"{heeded}; print('ready', flush=True); import time; time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "Interrupted.\n"
    assert process.returncode == 130


@pytest.mark.parametrize(("lines", "code"), [(1, 0), (100_000, 1)])
def test_a_reader_that_leaves_early_causes_no_complaint(lines, code):
    """The work is done where only its last lines find no reader."""
    process = start(f"import time; time.sleep(0.5); [print(i) for i in range({lines})]")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_where_stdout_goes_into_a_full_disk_that_is_said(lines):
    code = STAND_IN.format(body=f"[print(i) for i in range({lines})]")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    reason = "cannot be written completely (No space left on device). Free disk space."
    assert (done.returncode, done.stderr) == (1, f"Error: the output: {reason}\n")


def test_the_librarys_log_is_shown_on_stderr_as_it_is(run, capsys):
    def info() -> None:
        logging.getLogger("imgclf.data").info("%s: 3 classes", "[bold]cats[/bold]")

    assert run("info", info=info) == 0
    printed = capsys.readouterr()
    assert printed.err == "[bold]cats[/bold]: 3 classes\n"
    assert printed.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["ev\x1b[2Jil\u202e"], ["--ev\x1b[2Jil\u202e"], ["info", "ev\x1b[2Jil\u202e"], ["info", "--ev\x1b[2Jil\u202e"]],
)
def test_a_usage_error_repeats_nothing_that_would_control_the_terminal(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["imgclf", *arguments])
    with pytest.raises(SystemExit) as exit:
        app.main()
    printed = capsys.readouterr().err
    assert exit.value.code == 2 and "il\\u202e" in printed
    assert "\x1b" not in printed and "\u202e" not in printed


def test_what_is_to_be_explained_once_is_printed_once(run, capsys):
    def info() -> None:
        for number in (1, 2):
            logging.getLogger("imgclf").info("a probe is a classifier", extra={"once": True})
            logging.getLogger("imgclf").info("fold %d", number)
            logging.getLogger("imgclf").info("kept")

    assert run("info", info=info) == 0
    assert capsys.readouterr().err.splitlines() == ["a probe is a classifier", "fold 1", "kept", "fold 2", "kept"]


def test_a_name_that_is_no_text_is_printed_escaped():
    process = start(r"print('caf\udce9.jpg')")
    assert process.communicate(timeout=60) == ("caf\\udce9.jpg\n", "")
    assert process.returncode == 0


def test_python_m_imgclf_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "imgclf", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"imgclf {__version__}\n"


CLOSED = [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


def run_in_shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run with imgclf in place of the command of that name."""
    script = f"imgclf() {{ '{sys.executable}' -m imgclf \"$@\"; }}; {command}"
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


needs_bash = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash")


@needs_bash
@pytest.mark.parametrize("streams", CLOSED)
def test_closed_streams_work_as_those_that_lead_nowhere(image_folder, tmp_path, streams):
    """The first files that are opened do not become stdout or stderr, and the exit codes are those of always."""
    image_folder()
    done = run_in_shell(f"imgclf ingest images -o m.csv --quarantine q.csv {streams}; echo $? >code", tmp_path)
    assert (tmp_path / "code").read_text() == "0\n", done.stderr
    assert (tmp_path / "m.csv").read_text().count(".png") == 12
    assert (tmp_path / "q.csv").read_text().startswith("path")
    run_in_shell(f"imgclf ingest images -o m.csv {streams}; echo $? >code", tmp_path)
    assert (tmp_path / "code").read_text() == "2\n"


@needs_bash
def test_a_reader_that_has_seen_enough_stops_no_work(image_folder, tmp_path):
    image_folder()
    command = "imgclf ingest images -o m.csv --report r.html | true; echo ${PIPESTATUS[0]} >code"
    run_in_shell(command, tmp_path)
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "m.csv").is_file() and (tmp_path / "r.html").is_file()
    run_in_shell("imgclf ingest images --json | true; echo ${PIPESTATUS[0]} >code", tmp_path)
    assert (tmp_path / "code").read_text() == "0\n"


def test_a_note_that_cannot_be_written_stops_no_work(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    console.note("a note")
    console.notes(["and", "more"])


def test_warnings_and_log_lines_of_libraries_are_not_printed() -> None:
    body = "import warnings, logging, imgclf.data.images; warnings.warn('few members'); " + (
        "logging.getLogger('PIL.TiffImagePlugin').error('More samples per pixel')"
    )
    for options, shown in (((), False), (("-W", "default"), True)):
        command = [sys.executable, *options, "-c", STAND_IN.format(body=body)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("few members" in done.stderr) is shown
        assert "More samples" not in done.stderr
