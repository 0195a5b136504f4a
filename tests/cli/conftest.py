"""What the tests of commands share."""

import logging
from collections.abc import Callable, Iterator

import pytest

from imgclf.cli import app, console


@pytest.fixture
def imgclf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs `imgclf ARGUMENTS` in this process and returns its exit code."""
    library = logging.getLogger("imgclf")
    handlers, level = list(library.handlers), library.level

    def call(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["imgclf", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0)

    yield call
    library.handlers[:] = handlers
    library.setLevel(level)
    console.err.quiet = False
