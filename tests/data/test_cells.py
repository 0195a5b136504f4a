"""Cells of CSV files: no spreadsheet runs them, and every text comes back as it was."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data import cells

TEXTS = st.text(st.sampled_from("'=+-@\t\r\n a1,;|\"\u202e\uff1d"), max_size=8)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("-1", "-1"),
        ("+2.5", "+2.5"),
        ("-1e-5", "-1e-5"),
        ("-.5", "-.5"),
        ("-", "'-"),
        ("'quoted'", "'quoted'"),
        ("oak", "oak"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_formulas_get_an_apostrophe_and_numbers_none(text: str, written: str) -> None:
    assert cells.safe(text) == written
    assert cells.plain(written) == text


@given(TEXTS)
def test_plain_takes_back_what_safe_did(text: str) -> None:
    assert cells.plain(cells.safe(text)) == text


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_line_is_one_row_that_reads_back(texts: list[str]) -> None:
    rows = list(csv.reader(io.StringIO(cells.line(texts), newline="")))
    assert [[cells.plain(cell) for cell in row] for row in rows if row] == ([texts] if texts != [""] else [[""]])


@given(TEXTS)
def test_no_cell_begins_a_formula(text: str) -> None:
    cell = cells.safe(text)
    assert cell[:1] not in tuple("=@\t\r\uff1d") and (cell[:1] not in ("+", "-") or float(cell) == float(text))


@given(TEXTS)
def test_ordinary_text_is_written_as_csv_writes_it(text: str) -> None:
    if cells.is_ordinary(text):
        plain = io.StringIO()
        csv.writer(plain, lineterminator="\n").writerow([text, 1])
        assert cells.line([text, 1]) == plain.getvalue()


@pytest.mark.parametrize(
    ("cell", "known", "meant"),
    [
        (" dog", {" dog", "dog"}, " dog"),
        (" dog", {"dog"}, "dog"),
        ("dog", {" dog"}, " dog"),
        ("dog", {" dog", "dog "}, "dog"),
        ("'=1", {"=1"}, "=1"),
        (" cat ", set(), "cat"),
    ],
)
def test_a_cell_means_the_known_name_that_is_nearest(cell: str, known: set[str], meant: str) -> None:
    assert cells.one_of(cell, known) == meant
