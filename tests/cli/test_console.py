import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from imgclf.cli import console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Both consoles write here, as to a terminal 40 columns wide without colours."""
    screen = io.StringIO()
    drawn = Console(file=screen, force_terminal=True, width=40, markup=False, color_system=None)
    monkeypatch.setattr(console, "out", drawn)
    monkeypatch.setattr(console, "err", drawn)
    return screen


def test_a_table_prints_user_text_as_it_is(capsys):
    console.table("[bold]", ["class", "[n]"], [["[cats]", 3], ["[/]", 12]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[bold]")
    assert [line.strip("│┃ ").split() for line in lines if "[cats]" in line or "[n]" in line] == [
        ["class", "┃", "[n]"],
        ["[cats]", "│", "3"],
    ]


def test_a_table_aligns_numbers_right_and_shows_nothing_for_none(capsys):
    console.table(None, ["name", "accuracy"], [["1 ant", "0.5"], ["bee", None], ["cow", "12,345 %"]])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == ["│ 1 ant │      0.5 │", "│ bee   │          │", "│ cow   │ 12,345 % │"]


def test_a_table_in_a_pipe_cuts_and_folds_nothing(capsys):
    name = "a folder/" * 60
    console.table("files", ["path"], [[name]])
    assert name in capsys.readouterr().out


def test_a_table_in_a_narrow_terminal_folds_and_loses_nothing(terminal):
    console.table("files", ["path", "n"], [["x" * 70 + "y" * 10, 5]])
    printed = terminal.getvalue()
    assert (printed.count("x"), printed.count("y")) == (70, 10)
    assert max(map(len, printed.splitlines())) <= 40


def test_json_keeps_names_readable(capsys):
    console.print_json({"name": "[café]"})
    printed = capsys.readouterr().out
    assert "[café]" in printed
    assert json.loads(printed) == {"name": "[café]"}


def test_a_table_fits_80_columns_in_a_pipe_by_wrapping_headings_and_texts(capsys):
    columns = ["run", "accuracy", "95% interval of it", "balanced", "note"]
    console.table(None, columns, [["runs/bees", 0.915, "0.860 to 0.950", 0.916, "few images of the class " * 3]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80
    assert any("runs/bees" in line and "0.860 to 0.950" in line for line in lines)
    assert sum("few" in line for line in lines) > 1


def test_a_wrapped_text_leaves_the_right_border_within_80_columns(capsys):
    rows = [
        ["insects/site_1/wasps/w0.jpg", "bees", "64.0%", None],
        ["insects/site_1/bees/cut.jpg", None, None, "damaged or truncated (Truncated File Read)"],
    ]
    console.table(None, ["path", "label", "confidence", "error"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines} == {80}
    assert {line[-1] for line in lines} == set("┓┃┩│┘")


@pytest.mark.parametrize(("width", "left_out"), [(80, ["note"]), (20, ["note", "n"]), (160, [])])
def test_a_table_leaves_out_optional_columns_until_it_fits(capsys, monkeypatch, width, left_out):
    monkeypatch.setenv("COLUMNS", str(width))
    columns, row = ["name", "n", "note"], ["oak" * 5, 12, "x" * 90]
    assert console.table("a title longer than the table", columns, [row], optional=["note", "n"]) == left_out
    title, _, heads, *_ = capsys.readouterr().out.splitlines()
    assert title == "a title longer than the table"
    assert heads.strip("┃ ").replace("┃", " ").split() == [name for name in columns if name not in left_out]


def test_a_long_name_stays_whole_in_a_pipe(capsys):
    name = "a folder/" * 10 + "x.jpg"
    console.table(None, ["path", "label"], [[name, "oak"]])
    assert sum(name in line for line in capsys.readouterr().out.splitlines()) == 1


def test_a_note_is_one_whole_line_on_stderr(capsys):
    console.note("[red]" + "long " * 60)
    printed = capsys.readouterr()
    assert printed.err == "[red]" + "long " * 60 + "\n"
    assert printed.out == ""


def test_quiet_silences_notes(capsys, monkeypatch):
    monkeypatch.setattr(console.err, "quiet", True)
    console.note("hello")
    assert capsys.readouterr().err == ""


def test_progress_outside_a_terminal_prints_nothing_of_short_work(capsys):
    with console.progress("decoding", 3) as advance:
        advance()
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_progress_outside_a_terminal_breaks_every_silence(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_AFTER_S", 0.2)
    monkeypatch.setattr(console, "TICK_S", 0.01)
    with console.phases() as on_progress:
        time.sleep(0.3)
        on_progress("exporting", 1, 2)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "starting (0 s)"
    assert lines[-1] in ("exporting 1/2 (0 s)", "exporting 1/2 (1 s)")


def test_a_phase_that_begins_in_silence_is_named_before_it_can_block_the_ticker(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_AFTER_S", 0.4)
    monkeypatch.setattr(console, "TICK_S", 100)
    with console.phases() as on_progress:
        time.sleep(0.25)
        on_progress("exporting litert,", 1, 2)
        on_progress("exporting savedmodel,", 2, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["exporting litert, 1/2 (0 s)"]


BLOCKED = """
import ctypes, time
from imgclf.cli import console
console.CHILD_AFTER_S, console.TICK_S, console.LINE_AFTER_S = 0.0, 0.01, 0.2
with console.phases() as on_progress:
    on_progress("exporting [x],", 1, 2)
    time.sleep(0.5)
    ctypes.PyDLL(None).sleep({seconds})  # as many calls into TensorFlow, it stops all threads
print("done")
"""


@pytest.mark.skipif(os.name == "nt", reason="sleep() of the C library")
def test_a_call_that_stops_all_threads_is_no_silence():
    command = [sys.executable, "-c", BLOCKED.format(seconds=1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) > 1
    assert set(lines) <= {f"exporting [x], 1/2 ({second} s)" for second in range(60)}


@pytest.mark.skipif(os.name == "nt", reason="sleep() of the C library")
def test_the_ticker_ends_with_a_killed_command():
    command = [sys.executable, "-c", BLOCKED.format(seconds=100)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.kill()
        killed = time.monotonic()
        process.stderr.read()  # ends when nobody can write any more
    assert time.monotonic() - killed < 10


def test_a_note_is_no_silence(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_AFTER_S", 0.5)
    monkeypatch.setattr(console, "TICK_S", 0.01)
    with console.phases():
        for _ in range(8):
            time.sleep(0.1)
            console.note("hello")
    assert set(capsys.readouterr().err.splitlines()) == {"hello"}


def test_progress_in_a_terminal_appears_only_when_the_work_takes_long(terminal, monkeypatch):
    with console.progress("[quick]", 2) as advance:
        advance()
    assert terminal.getvalue() == ""
    monkeypatch.setattr(console, "PROGRESS_AFTER_S", -1.0)
    with console.progress("[slow]", 2) as advance:
        advance()
    assert "[slow]" in terminal.getvalue()


def test_the_progress_of_training_fits_80_columns_and_says_how_it_goes(monkeypatch):
    screen = io.StringIO()
    drawn = Console(file=screen, force_terminal=True, width=80, markup=False, color_system=None)
    monkeypatch.setattr(console, "err", drawn)
    monkeypatch.setattr(console, "PROGRESS_AFTER_S", -1.0)
    with console.phases() as on_progress:
        on_progress("decoding", 10, 10)
        on_progress("finetune 100%", 250, 1000, "epoch 3/10  1301 images/s  loss 0.256  val 0.833")
        time.sleep(0.3)  # Rich draws ten times a second
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()))
    line = [line.rstrip() for line in lines if "finetune" in line][-1]
    assert re.fullmatch(r"finetune 100% [━╸╺ ]+ epoch 3/10  1301 images/s  loss 0\.256  val 0\.833 [-\d:]+", line), line
    assert len(line) <= 80


def test_notes_and_lines_escape_what_would_control_the_terminal(capsys):
    console.note("a\x1b[2J\nError: false")
    console.out.print("b\u202e\nsecond line")
    console.print_json({"c": "\x9b31m\u200b"})
    printed = capsys.readouterr()
    assert printed.err == "a\\x1b[2J\\nError: false\n"
    assert printed.out.splitlines()[:2] == ["b\\u202e", "second line"]
    assert '"\\u009b31m\\u200b"' in printed.out


def test_a_table_of_one_row_may_have_a_column_without_a_name(capsys):
    console.table(None, ("", "x"), [("0", "1")])
    assert "│ 0 │ 1 │" in capsys.readouterr().out
