"""The doctor's report: whole in one file, and safe whatever the names are."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from imgclf.data import collection, doctor, doctor_report, scan_cache
from imgclf.settings import DataConfig


class Tags(HTMLParser):
    """Collects the tags and what they load, and checks that they are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def render(folder: Path, tmp_path: Path, **settings: object) -> tuple[str, Tags]:
    config = DataConfig(**settings)
    with scan_cache.Scanner(folder=tmp_path / "scan_cache") as scanner:
        dataset = collection.collect(folder, scanner=scanner)
        html = doctor_report.render(dataset, doctor.examine(dataset, config, scanner))
    tags = Tags()
    tags.feed(html)
    return html, tags


def test_names_that_are_html_are_shown_as_they_are(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    evil = "<script>alert(1)<&>"
    folder = image_folder(classes=(evil, "bee"), count=3)
    (folder / evil / "<b>.png").write_bytes((folder / "bee/000.png").read_bytes())
    (folder / "bee/'\".png").touch()
    html, tags = render(folder, tmp_path)
    assert "script" not in tags.names
    assert "&lt;script&gt;alert(1)&lt;&amp;&gt;" in html
    assert "&lt;b&gt;.png" in html
    assert set(re.findall(r"\{\{|\}\}|\{%", html)) == set()


def test_the_report_loads_nothing_and_shows_every_picture(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(count=12)
    (folder / "ant/copy.png").write_bytes((folder / "ant/000.png").read_bytes())
    html, tags = render(folder, tmp_path)
    pictures = [source for source in tags.sources if not source.startswith("#")]
    assert len(pictures) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    assert "ant/copy.png" in html
    assert "kept in one split" in html


def test_of_many_findings_the_rest_is_listed(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(count=40)
    html, tags = render(folder, tmp_path, thresholds="small-px=40")
    assert tags.names.count("img") == doctor_report.MOST_SHOWN == 60
    assert "20 more findings, without pictures" in html
    assert all(f"{name}/{number:03}.png" in html for name in ("ant", "bee") for number in range(40))


def test_a_report_of_nothing_says_so(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    html, tags = render(image_folder(count=12), tmp_path)
    assert "Nothing was found." in html
    assert "img" not in tags.names
