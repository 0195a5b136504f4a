"""Text of users on a terminal: it is shown and does nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.printable import printable, safe_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("oak", "oak"),
        ("gr\u00fcn \u732b \U0001f408", "gr\u00fcn \u732b \U0001f408"),
        ("no\u00a0break\u3000wide", "no\u00a0break\u3000wide"),
        ("\x1b[2J\x1b]0;t\x07", "\\x1b[2J\\x1b]0;t\\x07"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("\u202egpj.exe\u202c\u2066", "\\u202egpj.exe\\u202c\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("byte \udcff", "byte \\udcff"),
        ("tag\U000e0041", "tag\\U000e0041"),
    ],
)
def test_what_would_act_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(f"\n{text}", keep="\n").replace("\n", "\\n") == f"\\n{shown}"


@given(st.text())
def test_nothing_shown_is_a_control_or_a_format_character(text: str) -> None:
    assert all(c.isprintable() or c.isspace() for c in printable(text))
    assert not set(printable(text)) & set("\x1b\x9b\u202e\n\r")


@given(st.text(st.characters(exclude_categories=[])))
def test_json_stays_the_same_value(text: str) -> None:
    written = safe_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(written) == {text: [text]}
    assert not set(written) & set("\x1b\x7f\x85\x9b\u202e\u200b\U000e0041")
