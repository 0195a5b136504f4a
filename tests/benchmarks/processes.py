"""What a whole process costs: seconds from start to end, and its peak memory. For the scripts beside this file."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Of one process with all its threads: wall-clock seconds and the largest resident memory in MiB."""

    seconds: float
    peak_mib: float


def measure(command: Sequence[object], env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end; its output is dropped.

    Raises:
        SystemExit: if it fails, with what it wrote.
    """
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, env=os.environ | (env or {}))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{command} ended with {process.returncode}:\n{output.read().decode(errors='replace')}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return Cost(seconds, usage.ru_maxrss / unit)


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(statistics.median(c.seconds for c in costs), statistics.median(c.peak_mib for c in costs))


def show(name: str, costs: Sequence[Cost]) -> Cost:
    """Print one side's median, best and peak memory, and return the median."""
    middle = median(costs)
    best = min(cost.seconds for cost in costs)
    print(f"{name:44} median {middle.seconds:7.3f} s   best {best:7.3f} s   peak {middle.peak_mib:6.0f} MiB")
    return middle


def verdict(what: str, value: float, bound: float, unit: str, *, at_least: bool = False) -> bool:
    """Print a figure beside its bound; whether the bound is met."""
    met = value >= bound if at_least else value <= bound
    relation = "at least" if at_least else "at most"
    print(f"{what}: {value:.3g}{unit}, asked {relation} {bound:g}{unit}: {'met' if met else 'MISSED'}")
    return met


def unzip(name: str, folder: Path) -> Path:
    """The real data set `name` of IMGCLF_TEST_DATA, unzipped into `folder`.

    Raises:
        SystemExit: if the variable is not set.
    """
    source = os.environ.get("IMGCLF_TEST_DATA")
    if not source:
        sys.exit("IMGCLF_TEST_DATA is not set: it names the folder with ants-bees.zip")
    with zipfile.ZipFile(Path(source) / f"{name}.zip") as packed:
        packed.extractall(folder / name)
    return folder / name


IMGCLF = (sys.executable, "-m", "imgclf")
"""The command, in the running interpreter's environment."""
