"""Fetching weights: from a cache, from a server that behaves, and from servers that do not."""

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imgclf.errors import MissingError
from imgclf.models import hub
from imgclf.models.catalog import HubFile

CONTENT = b"weights " * 400_000  # 3.2 MB


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two caches, empty: the package's own and that of Keras."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return hub.folders()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., HubFile]]:
    """A function that puts a server on this machine and returns the file it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(
        content: bytes = CONTENT,
        *,
        promised: int | None = None,
        status: int = 200,
        wait_s: float = 0,
        chunked: bool = False,
    ) -> HubFile:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                time.sleep(wait_s)
                self.send_response(status)
                if chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                else:
                    self.send_header("Content-Length", str(promised or len(content)))
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/net.h5"
        return HubFile(url, "net.h5", hashlib.md5(CONTENT).hexdigest())

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_download_ends_in_the_own_cache_and_is_made_once(
    serve: Callable[..., HubFile], folders: tuple[Path, Path]
) -> None:
    file = serve()
    steps = []
    path = hub.fetch(file, on_progress=lambda done, total: steps.append((done, total)))
    assert path == folders[0] / "net.h5"
    assert path.read_bytes() == CONTENT
    assert steps == [(1, 3), (2, 3), (3, 3), (3, 3)]
    assert hub.fetch(file, offline=True) == path
    assert [p.name for p in folders[0].iterdir()] == ["net.h5"]
    (folders[0] / "mine").touch()
    assert path.stat().st_mode == (folders[0] / "mine").stat().st_mode


def test_a_sha256_is_told_by_its_length(serve: Callable[..., HubFile]) -> None:
    file = dataclasses.replace(serve(), hash=hashlib.sha256(CONTENT).hexdigest())
    assert hub.fetch(file).is_file()


def test_the_cache_of_keras_is_used_as_it_is(folders: tuple[Path, Path]) -> None:
    folders[1].mkdir(parents=True)
    (folders[1] / "net.h5").write_bytes(CONTENT)
    file = HubFile("http://nowhere.invalid/net.h5", "net.h5", hashlib.md5(CONTENT).hexdigest())
    assert hub.fetch(file, offline=True) == folders[1] / "net.h5"
    assert not folders[0].exists()


def test_a_damaged_copy_in_a_cache_is_fetched_again(serve: Callable[..., HubFile], folders: tuple[Path, Path]) -> None:
    folders[0].mkdir(parents=True)
    (folders[0] / "net.h5").write_bytes(CONTENT[:1000])
    file = serve()
    assert hub.fetch(file).read_bytes() == CONTENT


def test_without_network_the_error_says_what_to_put_where(folders: tuple[Path, Path]) -> None:
    file = HubFile("http://nowhere.invalid/NET.h5", "net.h5", None)
    with pytest.raises(MissingError) as caught:
        hub.fetch(file, offline=True)
    for part in ("--offline", file.url, str(folders[0]), "as net.h5"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"content": b"a login page"}, "checksum"),
        ({"content": CONTENT[:1_500_000], "promised": len(CONTENT)}, "checksum"),
        ({"content": b"ffff\r\nweights", "chunked": True}, "IncompleteRead"),
        ({"status": 403}, "Forbidden"),
        ({"wait_s": 3.0}, "no answer within 0.2 s|timed out"),
    ],
    ids=["another file", "cut short", "cut in a chunk", "forbidden", "silent"],
)
def test_a_server_that_fails_leaves_no_file(
    behaviour: dict[str, object],
    reason: str,
    serve: Callable[..., HubFile],
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "CONNECT_S", 0.2)
    begin = time.monotonic()
    with pytest.raises(MissingError, match=reason):
        hub.fetch(serve(**behaviour))
    assert time.monotonic() - begin < 2.5
    assert not folders[0].exists() or not list(folders[0].iterdir())


def test_a_cache_that_cannot_be_written_is_said(
    serve: Callable[..., HubFile], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(MissingError, match="Not a directory"):
        hub.fetch(serve())
