"""The memory of decoding: estimated, shared, and refused."""

import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf import environment
from imgclf.data import images, memory, scan_cache
from imgclf.errors import ImageError


@pytest.fixture(autouse=True)
def default_budget() -> Iterator[None]:
    yield
    memory.BUDGET.set_limit(None)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, color: int, bits: int, text_bytes: int = 0) -> bytes:
    """A PNG of one row of zeros, whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(text_bytes))) if text_bytes else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_threads_share_the_budget() -> None:
    budget = memory.Budget(100)
    inside, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with budget.hold(40, "it takes"):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2  # 2 x 40 fit into 100, 3 x 40 do not


def test_what_a_thread_holds_counts_for_what_it_asks_for_inside() -> None:
    budget = memory.Budget(100)
    with budget.hold(100, "it takes"), budget.hold(60, "it takes"), budget.hold(100, "it takes"):
        pass
    with pytest.raises(ImageError, match="too large for the memory: it takes"), budget.hold(101, "it takes"):
        pass


def test_an_error_gives_the_memory_back() -> None:
    budget = memory.Budget(100)
    for _ in range(3):
        with pytest.raises(KeyError), budget.hold(100, "it takes"):
            raise KeyError


def test_the_default_is_half_of_what_is_free_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, limit in ((0, memory.LEAST_BYTES), (500_000_000, 250_000_000), (10**12, memory.MOST_BYTES)):
        monkeypatch.setattr(environment, "available_memory", lambda free=free: free)
        assert memory.Budget().limit == limit


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(13_300, 13_300, 6, 8), "13300 x 13300 pixels take 1.4 GB"),
        (png(9_000, 9_000, 0, 16), "take"),
        (png(170_000_000, 1, 0, 1), "more than 100,000 to 1, the limit: crop"),
        (png(1, 170_000_000, 0, 1), "more than 100,000 to 1"),
        (png(100_000, 100_000, 0, 1), "more than 178,956,970, the limit: scale the image down"),
        (png(8, 8, 2, 8, text_bytes=2_000_000), "unpacks to more than 1 MB, the limit: save the image without"),
        (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";", "178,956,970|damaged"),
    ],
)
def test_huge_sizes_in_small_files_are_refused_before_a_pixel_is_decoded(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    memory.BUDGET.set_limit(0.5)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for look in (images.decode, lambda data: images.load(data, 32)):
        with pytest.raises(ImageError, match=reason):
            look(data)


def test_a_jpeg_that_exceeds_the_memory_is_decoded_at_a_smaller_scale() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    data = encode(image.resize((1500, 1000)), "JPEG")
    whole = images.load(data, 64).astype(int)
    memory.BUDGET.set_limit(0.004)  # 1500 x 1000 x 4 bytes are 6 MB
    assert images.decode(data).size == (750, 500)
    assert np.abs(images.load(data, 64).astype(int) - whole).mean() < 2
    with pytest.raises(ImageError, match="too large for the memory"):
        images.load(encode(image.resize((1500, 1000)), "PNG"), 64)


def test_a_file_beyond_half_of_the_memory_is_not_read(tmp_path: Path) -> None:
    memory.BUDGET.set_limit(0.1)
    sparse = tmp_path / "a.jpg"
    with sparse.open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(ImageError, match=r"a file of 0\.1 GB, more than half of .* \(--memory-gb\)"):
        images.decode(sparse)


def test_memory_that_runs_out_in_one_image_is_the_error_of_that_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(*arguments: object) -> None:
        raise MemoryError

    data = encode(Image.new("RGB", (64, 64)), "PNG")
    monkeypatch.setattr(images, "resize", resize)
    with pytest.raises(ImageError, match=f"^{memory.TOO_LARGE}"):
        images.load(data, 32)


def test_a_scan_does_not_remember_what_was_too_large_for_the_memory(tmp_path: Path) -> None:
    Image.new("RGB", (400, 400), "red").save(tmp_path / "a.png")
    memory.BUDGET.set_limit(0.0001)
    for gigabytes, is_read in ((0.0001, False), (None, True)):
        memory.BUDGET.set_limit(gigabytes)
        with scan_cache.Scanner(folder=tmp_path / "scans") as scanner:
            ((seen,),) = scanner.examine(tmp_path, ["a.png"])
        assert bool(seen.record) is is_read


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_large_transparent_images_are_laid_over_white_strip_by_strip(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70), dtype=np.uint8))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).convert(mode)
    if mode == "P":
        image.info["transparency"] = 7
    else:
        image.putalpha(alpha)
    whole = images.to_rgb(image)
    monkeypatch.setattr(images, "STRIP_PIXELS", 1000)
    assert images.to_rgb(image).tobytes() == whole.tobytes()
