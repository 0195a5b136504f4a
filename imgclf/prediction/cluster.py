"""Classify images on all machines of a Ray cluster."""

import contextlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.classifier import Classifier, Source
from imgclf.prediction.decision import Outliers
from imgclf.prediction.forms import Answer
from imgclf.prediction.runtime import Runtime
from imgclf.settings import PredictConfig

log = logging.getLogger(__name__)

Reopen = Callable[[], Classifier]
"""Opens the same model in another process: it must be picklable."""

BLOCK = 256
"""Images sent to a machine together, at most; if it drops out, they are recomputed."""

BLOCKS_EACH = 4
"""Blocks per processor, at least: few images make smaller blocks, so that the last ones end together."""

PORTION = 100_000
"""Images listed before the first prediction, at most: a list may not fit into memory."""

RETRIES = 5
"""Restarts without a prediction in between, at most."""

TRIES = 2
"""Processes that may die on an image alone, after one died on its block, before it is given up."""

DEADLY = f"each of the {1 + TRIES} processes that read it died"

PAUSE_S = 1.0
PATIENCE_S = 10.0

SILENCE = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
"""Ray reads these on import; it would otherwise report lost machines on stdout, among the results."""


class ClusterClassifier(Classifier):
    """An exported model that predicts on every processor of a Ray cluster. `load` with the engine `ray` makes one.

    Every machine needs imgclf, and the model and the images under the same paths as here.
    """

    def __init__(self, facts: Artifact, runtime: Runtime, outliers: Outliers | None, again: Reopen) -> None:
        """Args: again, what opens the model on each machine; the others are those of `Classifier`."""
        environment.require("ray", "'imgclf[ray]'")
        super().__init__(facts, runtime, outliers)
        self._again = again

    def stream(
        self,
        sources: Iterable[Source],
        batch_size: int = PredictConfig.batch_size,
        *,
        tta: bool = False,
        embeddings: bool = False,
        maps: bool = False,
        neighbors: int | None = None,
    ) -> Iterator[Answer]:
        """Classify files in order, each once, as long as one machine stays.

        The first PORTION of the list is read before the first prediction. An image on which several processes die, for
        instance for lack of memory, gets an error.

        Args:
            batch_size: has no effect on the machines; the size of their blocks depends on their number.
            tta, embeddings: as in `Classifier.stream`.
            maps: feature maps are too large to travel.
            neighbors: no machine looks for them.

        Raises:
            UsageError: as in `Classifier.stream`; or without a cluster, or for a source that is not a path.
            ImgclfError: if the cluster fails as a whole.
        """
        if maps:
            raise UsageError("--engine ray gives no feature maps. Choose another engine.")
        if neighbors is not None:
            raise UsageError("--engine ray finds no neighbors. Choose another engine.")
        self._check(sources, batch_size, embeddings, maps)
        return self._in_portions(iter(sources), tta, embeddings)

    def _in_portions(self, sources: Iterator[Source], tta: bool, embeddings: bool) -> Iterator[Answer]:
        while names := [_name(source) for source in islice(sources, PORTION)]:
            yield from self._on_cluster(names, tta, embeddings)

    def _on_cluster(self, names: Sequence[str], tta: bool, embeddings: bool) -> Iterator[Answer]:
        done = failures = 0
        with _connected() as ray:
            while done < len(names):
                try:
                    for block in self._blocks(ray, names[done:], tta, embeddings):
                        for row in range(len(block["error"])):
                            yield self._prediction(names[done], block, row)
                            done += 1
                        failures = 0
                except Exception as error:  # Ray's errors have no common class
                    _raise_ours(error)
                    failures += 1
                    if failures > RETRIES:
                        what = " ".join(str(error).split())
                        raise ImgclfError(
                            f"--engine ray: the cluster failed ({type(error).__name__}: {what:.500})."
                        ) from error
                    log.info("The cluster lost a worker; resuming after %d images.", done)
                    time.sleep(PAUSE_S)

    def _blocks(self, ray: Any, names: Sequence[str], tta: bool, embeddings: bool) -> Iterator[dict[str, np.ndarray]]:
        """Yield the blocks that `_Worker` returns, in order.

        Ray itself recomputes most blocks of a lost machine; where it notices too late it raises.
        """
        import pyarrow

        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = min(BLOCK, max(1, len(names) // (BLOCKS_EACH * cpus)))
        here = Path.cwd()
        paths = [os.fsencode(os.path.join(here, name)) for name in names]  # noqa: PTH118  (a name may hold a NUL)
        blocks = [
            pyarrow.table({"path": paths[start : start + size], "block": [start] * len(paths[start : start + size])})
            for start in range(0, len(paths), size)
        ]
        ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        context.raise_original_map_exception = True
        context.max_consecutive_actor_init_deaths = RETRIES  # of machines that drop out while a process starts there
        predicted = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(self._again, tta, embeddings, ledger),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=min(cpus, len(blocks))),
            num_cpus=1,
        )
        yield from predicted.iter_batches(batch_size=None, batch_format="numpy")

    def _prediction(self, name: str, block: Mapping[str, np.ndarray], row: int) -> Answer:
        error = os.fsdecode(block["error"][row])
        if error:
            return self.form.make(None, self.labels, self.rules, path=name, error=error, file=name)
        score = float(block["outlier_score"][row])
        return self.form.make(
            block["output"][row],
            self.labels,
            self.rules,
            path=name,
            embedding=block["embedding"][row] if "embedding" in block else None,
            file=name,
            outlier_score=None if np.isnan(score) else score,
        )


class Ledger:
    """What the processes work on, so that it is known on which image one died. It lives on one of the machines.

    Blocks and images are identified by their numbers.
    """

    def __init__(self) -> None:
        self._in_hand: dict[int, int | None] = {}
        self._ends: Counter[tuple[int, int]] = Counter()

    def begin(self, block: int) -> list[int] | None:
        """Note that a process starts a block; return None if it is the first to do so.

        Returns:
            The images of the block on which TRIES processes died; the others are then taken one by one.
        """
        if block not in self._in_hand:
            self._in_hand[block] = None
            return None
        held = self._in_hand[block]
        if held is not None:
            self._ends[block, held] += 1
        self._in_hand[block] = None
        return [image for (where, image), ends in self._ends.items() if where == block and ends >= TRIES]

    def take(self, block: int, image: int) -> None:
        """Note that the process with this block now reads this image alone."""
        self._in_hand[block] = image


class _Worker:
    """One process on one of the machines."""

    def __init__(self, again: Reopen, tta: bool, embeddings: bool, ledger: Any) -> None:
        self._again, self._tta, self._embeddings, self._ledger = again, tta, embeddings, ledger
        self._classifier: Classifier | None = None

    def __call__(self, block: Any) -> dict[str, np.ndarray]:
        """Classify the images of a table with the columns `path` and `block`."""
        import ray

        if self._classifier is None:  # here, so that errors of the model are reported as they are
            self._classifier = self._again()
        files = [os.fsdecode(path) for path in block["path"].to_pylist()]
        number = block["block"][0].as_py()
        deadly = ray.get(self._ledger.begin.remote(number))
        found = self._predict(files) if deadly is None else []
        for image, file in enumerate(files[len(found) :]):
            if image in deadly:
                check_deaths(found, file)
                make, about = self._classifier.form.make, (self._classifier.labels, self._classifier.rules)
                found.append(make(None, *about, path=file, error=DEADLY, file=file))
            else:
                ray.get(self._ledger.take.remote(number, image))
                found += self._predict([file])
        arrays = {
            "error": np.array([os.fsencode(each.error or "") for each in found], dtype=object),
            "outlier_score": np.array([np.nan if (s := each.outlier_score) is None else s for each in found]),
            "output": _rows([each.output for each in found]),
        }
        if self._embeddings:
            arrays["embedding"] = _rows([each.embedding for each in found])
        return arrays

    def _predict(self, files: Sequence[str]) -> list[Answer]:
        assert self._classifier
        return self._classifier.predict(files, tta=self._tta, embeddings=self._embeddings)


def check_deaths(found: Sequence[Answer], file: str) -> None:
    """Raise ImgclfError if RETRIES images before this one were deadly, too: then the cause is another."""
    if len(found) >= RETRIES and all(each.error == DEADLY for each in found[-RETRIES:]):
        raise ImgclfError(f"--engine ray: the cluster failed ({file}, like {RETRIES} images before it: {DEADLY}).")


def _rows(values: list[np.ndarray | None]) -> np.ndarray:
    """Stack rows as float32 (n, width), with zeros for None."""
    width = max((len(value) for value in values if value is not None), default=1)
    return np.stack([np.zeros(width, np.float32) if value is None else value for value in values])


def _name(source: Source) -> str:
    if not isinstance(source, str | Path):
        what = f"one in an archive, {source.name}" if hasattr(source, "name") else f"one {type(source).__name__}"
        raise UsageError(
            f"--engine ray: expected files that every machine sees, found {what}. Unpack or save it first."
        )
    return os.fspath(source)


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    """Connect to the cluster, and yield the package `ray`.

    Raises:
        UsageError: if there is no cluster.
    """
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    with environment.silence_stderr_fd():
        import ray
        import ray.data
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are raised, too
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(os.environ.get("RAY_ADDRESS", ""))
        with environment.silence_stderr_fd():
            ray.init(address="auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, ValueError) as error:  # a ConnectionError is an OSError
        what = " ".join(str(error).split())
        raise UsageError(
            f"--engine ray: cannot connect to a Ray cluster ({what:.200}). Start one with `ray start --head`, or "
            "name one in the variable RAY_ADDRESS."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if the address does not respond. Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()


def _raise_ours(error: BaseException) -> None:
    """Raise the error of imgclf on a machine, if that is the cause: Ray wraps it."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, ImgclfError):
        raise cause from None
