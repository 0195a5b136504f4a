"""Small folders of gray images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from factories import gray_image


@pytest.fixture
def images(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Write images of 16 x 16 px of a brightness, with a little noise so that no two are equal."""

    def write(brightness: Mapping[str, int]) -> Path:
        folder = tmp_path / "images"
        for number, (name, level) in enumerate(brightness.items()):
            gray_image(folder / name, level, number)
        return folder

    return write
