"""The surroundings of a run: cache, versions, hardware, and a quiet start of Keras.

Keras reads its backend, its home folder and its log level from the process environment when it is first imported, so
`prepare_keras` must run before that: every module that imports Keras when it is itself imported calls it first.
"""

import contextlib
import gc
import importlib.util
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from imgclf import __version__
from imgclf.errors import MissingError, UsageError

BACKENDS = ("tensorflow", "jax", "torch")
PACKAGES = (
    *("tensorflow", "keras", "jax", "torch", "ai-edge-litert", "grain", "numpy", "pillow", "pillow-heif"),
    "scikit-learn",
)


def cache_root() -> Path:
    """Return the folder of everything that can be recomputed. It may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("imgclf", appauthor=False))


def is_cached(path: Path) -> bool:
    """Whether a file lies in the cache, where nothing else may be a link to it."""
    return path.resolve().is_relative_to(cache_root().resolve())


def cache_sizes() -> dict[str, int]:
    """Return the bytes of each entry of the cache root by its name; empty where there is no cache yet."""
    root = cache_root()
    entries = sorted(root.iterdir()) if root.is_dir() else []
    return {entry.name: sum(map(_size, (entry, *_below(entry)))) for entry in entries}


def _below(folder: Path) -> Iterator[Path]:
    """All entries below a folder; none where it is a file, or another process has just removed it."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _size(path: Path) -> int:
    """Bytes of a file; 0 for anything else. A link has its own size."""
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:
        return 0


def versions() -> dict[str, str]:
    """Return the versions of Python, imgclf and every installed package that affects results, by name."""
    found = {"python": platform.python_version(), "imgclf": __version__}
    return found | {name: number for name in PACKAGES if (number := version(name))}


def version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    from importlib import metadata  # 20 ms that --help does not need

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def cpu_count() -> int:
    """Return the number of processors that this process may use (its affinity, not those of the machine).

    OMP_NUM_THREADS limits them: Ray and Slurm set it to the share of a process.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(share)) if share.isdecimal() and int(share) else count


_IMPORTED = time.monotonic()


def process_start() -> float:
    """Return the start of this process in `time.monotonic()`; the import of imgclf where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return time.monotonic() - age if 0 <= age < _LONGEST_START_S else _IMPORTED


_LONGEST_START_S = 600.0
"""An older process has done other work before."""


def available_memory() -> int:
    """Estimate the bytes available without swapping; if the system does not say, half of the memory, or no limit.

    A container may allow less than the machine has.
    """
    free = 1 << 62
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([free, *(_left_in(*files) for files in _memory_groups())])


def _memory_groups() -> Iterator[tuple[Path, Path]]:
    """Yield the files with the limit and the use of memory of the control groups that this process may be in."""
    root = Path("/sys/fs/cgroup")
    paths = {""}
    with contextlib.suppress(OSError):
        paths |= {line.split(":", 2)[2].strip("/") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for path in paths:
        yield root / path / "memory.max", root / path / "memory.current"
        old = root / "memory" / path  # version 1
        yield old / "memory.limit_in_bytes", old / "memory.usage_in_bytes"


def _left_in(limit: Path, used: Path) -> int:
    try:
        left = int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # "max": no limit
        return 1 << 62
    with contextlib.suppress(OSError, ValueError):  # the cache of files is given back where memory is short
        facts = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
        left += int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
    return max(0, left)


def hardware() -> dict[str, object]:
    """Return platform, processor, core count, and the backend of Keras where it is in use, for `config.json`."""
    found: dict[str, object] = {"platform": platform.platform(), "machine": platform.machine(), "cpus": cpu_count()}
    if keras := sys.modules.get("keras"):
        found["keras_backend"] = keras.backend.backend()
    return found


def has_package(name: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def require(module: str, package: str = "imgclf") -> None:
    """Check that a module is installed.

    Raises:
        MissingError: if it is not; the message has the command that installs it with `package`.
    """
    if not has_package(module):
        raise MissingError(f"the package {module!r} is required but not installed. Run pip install {package}.")


EXTRAS = {
    "classical": ("skops", "skimage"),
    "mlflow": ("mlflow",),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "tensorboard": ("tensorboard",),
}
"""The modules of extras that one setting asks for."""


def require_extras(extras: Iterable[str]) -> None:
    """Check that the modules of these extras are installed, before work that would be lost without them.

    Raises:
        MissingError: if one is not; the message has the command that installs the extra.
    """
    for extra in extras:
        for module in EXTRAS.get(extra, ()):
            require(module, f"'imgclf[{extra}]'")


def open_streams() -> None:
    """Give a process without a console (a service, a window, `>&-`) streams that lead nowhere, as /dev/null does."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is given to what is opened next, which must not be a file of results
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (open to the end)


def part_stderr() -> None:
    """Give Python's stderr a descriptor of its own, so that `silence_stderr_fd` discards only what C++ writes."""
    before = sys.__stderr__
    if before is None or before is not sys.stderr or before.fileno() != 2:
        return
    with contextlib.suppress(OSError):
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=before.encoding)


def discard(stream: TextIO) -> None:
    """Let a stream lead nowhere whose reader is gone: Python would try to write the rest at exit, and fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


_DESCRIPTOR = threading.RLock()


@contextlib.contextmanager
def silence_stderr_fd() -> Iterator[None]:
    """Discard what C++ libraries write directly to file descriptor 2."""
    with _DESCRIPTOR:  # two threads that save and restore the descriptor at once could lose it
        yield from _silence()


def _silence() -> Iterator[None]:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, full or closed
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no stderr (a daemon)
        yield
        return
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def prepare_keras() -> None:
    """Import Keras and its backend quietly, with our cache root, on TensorFlow by default.

    KERAS_BACKEND in the environment chooses another backend. `~/.keras/keras.json` is ignored: another program's
    backend or image layout must not change results.

    Raises:
        MissingError: if Keras or the chosen backend is not installed.
        UsageError: if KERAS_BACKEND is not one of BACKENDS.
    """
    if "keras" in sys.modules:
        return
    backend = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND: expected one of {', '.join(BACKENDS)}, found {backend!r}.")
    require("keras")
    require(backend, "imgclf" if backend == "tensorflow" else backend)
    prepare_matplotlib()
    os.environ["KERAS_HOME"] = str(cache_root() / "keras")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # The oneDNN notice and absl's start-up lines ignore every log level, so the descriptor itself is silenced.
    with silence_stderr_fd(), warnings.catch_warnings(), _without_collecting():
        warnings.simplefilter("ignore")
        import keras

        keras.config.set_image_data_format("channels_last")
        if has_package("tensorflow"):  # Keras imports it later under any backend; here its notices are silenced
            import tensorflow  # noqa: F401

    quiet_logging()


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Pause garbage collection: an import makes a million permanent objects, and scanning them repeatedly takes a fifth
    of its time (Keras and TensorFlow: 4.2 s instead of 5.3 s)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def prepare_matplotlib() -> None:
    """Keep the cache of Matplotlib, which Keras imports, under our root unless MPLCONFIGDIR is set."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_root() / "matplotlib"))


def quiet_logging() -> None:
    """Let Keras, Grain and absl log errors only; users cannot act on their warnings."""
    import logging

    with contextlib.suppress(ImportError):
        from absl import logging as absl_logging

        absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("tensorflow", "jax", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)
