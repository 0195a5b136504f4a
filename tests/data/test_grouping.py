"""Groups by name, and units: what no split may divide."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data import grouping
from imgclf.data.dataset import Dataset, Sample
from imgclf.errors import UsageError


def named(*paths: str, groups: str = "") -> Dataset:
    """Samples at these paths; each letter of `groups` is the group that one of them brings along, "-" for none."""
    known = groups.replace("-", " ").ljust(len(paths))
    samples = [Sample(path, "ant", group=group.strip()) for path, group in zip(paths, known, strict=True)]
    return Dataset(Path("data"), tuple(samples), ("ant",))


def groups(dataset: Dataset, by: str) -> list[str]:
    return [s.group for s in grouping.group(dataset, by)[0].samples]


def test_a_patterns_first_group_names_the_group() -> None:
    assert groups(named("a/p1_3.png", "b/p2_3.png", "a/p1_4.png"), r"(p\d)_") == ["p1", "p2", "p1"]


def test_a_pattern_without_a_group_names_it_by_the_whole_match() -> None:
    assert groups(named("a/p1_3.png", "b/p2_3.png"), r"p\d") == ["p1", "p2"]


def test_parent_is_the_folder_of_the_file() -> None:
    dataset = named("a/monday/1.png", "b/monday/2.png", "b/tuesday/3.png")
    assert groups(dataset, "parent") == ["monday", "monday", "tuesday"]


def test_what_does_not_match_stands_alone_and_is_counted() -> None:
    dataset, notes = grouping.group(named("a/p1.png", "a/x.png", "a/y.png"), r"p\d")
    assert [s.group for s in dataset.samples] == ["p1", "", ""]
    assert notes == [r"--group-by p\d: it does not match 2 of the paths, such as a/x.png."]


@pytest.mark.parametrize("by", ["nothing", "(x)?1"])
def test_a_pattern_that_names_no_group_is_an_error(by: str) -> None:
    with pytest.raises(UsageError, match=r"it matches none of the paths, such as a/1.png. .*Nor is it a column"):
        grouping.group(named("a/1.png"), by)


def test_column_means_the_groups_that_are_there() -> None:
    dataset = named("1.png", "2.png", groups="ab")
    assert grouping.group(dataset, "column") == (dataset, [])
    with pytest.raises(UsageError, match="data brings no groups along"):
        grouping.group(named("1.png"), "column")


def test_groups_that_are_there_are_never_divided_by_a_pattern() -> None:
    # Objects of one photograph (a, b) lie in the folders of two days: both days become one group.
    dataset = named("1/x.png", "2/x.png", "2/y.png", "3/z.png", "w.png", groups="aa-bb")
    assert groups(dataset, r"(\d)/") == ["1", "1", "1", "3", "3"]


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), max_size=30)
RELATED = st.lists(st.lists(st.integers(0, 29), max_size=4), max_size=4)


@given(ROWS, RELATED)
@settings(deadline=None)
def test_units_are_what_can_be_reached_by_contents_groups_and_relations(
    rows: list[tuple[int, int]], related: list[list[int]]
) -> None:
    samples = [Sample(f"{i}.png", "ant", group=str(g or ""), sha256=str(c)) for i, (c, g) in enumerate(rows)]
    related = [[row for row in rows if row < len(samples)] for rows in related]

    def linked(one: int, other: int) -> bool:
        a, b = samples[one], samples[other]
        return (
            a.sha256 == b.sha256 or (a.group == b.group != "") or any(one in rows and other in rows for rows in related)
        )

    units = grouping.units(samples, related)
    for start in range(len(samples)):  # an independent search through the neighbors
        reached, ahead = {start}, [start]
        while ahead:
            here = ahead.pop()
            found = {row for row in range(len(samples)) if row not in reached and linked(here, row)}
            reached |= found
            ahead += found
        assert {row for row, unit in enumerate(units) if unit == units[start]} == reached
    assert sorted(set(units)) == list(range(len(set(units))))


def test_without_hashes_each_path_is_a_unit() -> None:
    samples = named("1.png", "2.png").samples
    assert grouping.units(samples) == [0, 1]
    assert grouping.units([replace(s, sha256="x") for s in samples]) == [0, 0]


def test_groups_that_share_an_image_are_named() -> None:
    samples = [Sample(f"{i}.png", "ant", group=g, sha256=c) for i, (g, c) in enumerate(["ax", "bx", "cy", "az"])]
    assert grouping.joined(samples, grouping.units(samples)) == [(["a", "b"], [["0.png", "1.png"]])]
    related = [[2, 3]]
    assert grouping.joined(samples, grouping.units(samples, related), related) == [
        (["a", "b", "c"], [["0.png", "1.png"], ["2.png", "3.png"]])
    ]


@pytest.mark.parametrize("pattern", [r"^(\w|\w\w|[a-z])+(x|y)\1$", r"(?:(a|aa)+)+(b|c)\1$", r"((a|a|a|a)+)+(?=z)\2"])
def test_a_pattern_of_endless_time_is_a_usage_error(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "PATTERN_S", 0.05)
    with pytest.raises(UsageError, match="takes too long"):
        groups(named("a" * 80 + "_"), pattern)
