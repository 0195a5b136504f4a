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
from imgclf.prediction.decision import Outliers, Prediction
from imgclf.prediction.runtime import Runtime
from imgclf.settings import PredictConfig

log = logging.getLogger(__name__)

Reopen = Callable[[], Classifier]
"""Opens the same model in another process: it must be picklable."""

BLOCK = 256
"""So many images at most go to a machine together; they are done again where it falls out meanwhile."""

BLOCKS_EACH = 4
"""Few images make smaller blocks, so that each processor gets so many: the last ones then end together."""

PORTION = 100_000
"""So many images at most are listed before the first is answered: a list may be longer than the memory."""

RETRIES = 5
"""So often the work is begun again, if nothing was answered in between, before all ends."""

TRIES = 2
"""So many processes may end over an image alone, after one did over its block, before nobody reads it again."""

DEADLY = f"each of the {1 + TRIES} processes that read it ended without a word"

PAUSE_S = 1.0
PATIENCE_S = 10.0

SILENCE = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
"""Ray reads these when it is imported; it would print on stdout, among the results, that a machine fell out."""


class ClusterClassifier(Classifier):
    """An exported model that answers on every processor of a Ray cluster. `load` with the engine `ray` makes one.

    Every machine needs imgclf, and sees the model and the images under the paths that they have here.
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
    ) -> Iterator[Prediction]:
        """Classify files one after the other, in order, each once, however many machines fall out while others stay.

        The first PORTION of the list are read before the first answer. An image over which several processes end, as
        they do for lack of memory, is answered with an error.

        Args:
            batch_size: of no effect on the machines, which get as much as suits their number.
            tta, embeddings: as in `Classifier.stream`.

        Raises:
            UsageError: as in `Classifier.stream`; or if there is no cluster, or a source is not a path.
            ImgclfError: if the cluster fails as a whole.
        """
        self._check(sources, batch_size, embeddings)
        return self._in_portions(iter(sources), tta, embeddings)

    def _in_portions(self, sources: Iterator[Source], tta: bool, embeddings: bool) -> Iterator[Prediction]:
        while names := [_name(source) for source in islice(sources, PORTION)]:
            yield from self._on_cluster(names, tta, embeddings)

    def _on_cluster(self, names: Sequence[str], tta: bool, embeddings: bool) -> Iterator[Prediction]:
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
                            f"--engine ray: the cluster fails ({type(error).__name__}: {what:.500})."
                        ) from error
                    log.info("The cluster lost a worker; going on after %d images.", done)
                    time.sleep(PAUSE_S)

    def _blocks(self, ray: Any, names: Sequence[str], tta: bool, embeddings: bool) -> Iterator[dict[str, np.ndarray]]:
        """What `_Worker` gives, block after block, in order.

        What a machine held that falls out is done again by Ray itself, mostly: where it notices too late it raises.
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
        context.max_consecutive_actor_init_deaths = RETRIES  # of machines that go while a process starts there
        answers = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(self._again, tta, embeddings, ledger),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=min(cpus, len(blocks))),
            num_cpus=1,
        )
        yield from answers.iter_batches(batch_size=None, batch_format="numpy")

    def _prediction(self, name: str, block: Mapping[str, np.ndarray], row: int) -> Prediction:
        error = os.fsdecode(block["error"][row])
        if error:
            return Prediction(name, None, self.labels, error, file=name)
        score = float(block["outlier_score"][row])
        return Prediction(
            path=name,
            probabilities=block["probabilities"][row],
            labels=self.labels,
            embedding=block["embedding"][row] if "embedding" in block else None,
            file=name,
            outlier_score=None if np.isnan(score) else score,
            rules=self.rules,
        )


class Ledger:
    """What the processes have in hand, so that it is known over which image one ended. It lives on one of the machines.

    Blocks and images are called by their numbers.
    """

    def __init__(self) -> None:
        self._in_hand: dict[int, int | None] = {}
        self._ends: Counter[tuple[int, int]] = Counter()

    def begin(self, block: int) -> list[int] | None:
        """Note that a process begins with a block: None where it is the first one.

        Returns:
            The images of the block over which TRIES processes ended; the others are now to be taken one by one.
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
        """Note that the process with this block now reads one image alone."""
        self._in_hand[block] = image


class _Worker:
    """One process on one of the machines."""

    def __init__(self, again: Reopen, tta: bool, embeddings: bool, ledger: Any) -> None:
        self._again, self._tta, self._embeddings, self._ledger = again, tta, embeddings, ledger
        self._classifier: Classifier | None = None

    def __call__(self, block: Any) -> dict[str, np.ndarray]:
        """Answer a table with the columns `path` and `block`."""
        import ray

        if self._classifier is None:  # here, since what is wrong with the model is then told as it is
            self._classifier = self._again()
        files = [os.fsdecode(path) for path in block["path"].to_pylist()]
        number = block["block"][0].as_py()
        deadly = ray.get(self._ledger.begin.remote(number))
        found = self._predict(files) if deadly is None else []
        for image, file in enumerate(files[len(found) :]):
            if image in deadly:
                _check_deaths(found, file)
                found.append(Prediction(file, None, self._classifier.labels, DEADLY, file=file))
            else:
                ray.get(self._ledger.take.remote(number, image))
                found += self._predict([file])
        answer = {
            "error": np.array([os.fsencode(each.error or "") for each in found], dtype=object),
            "outlier_score": np.array([np.nan if (s := each.outlier_score) is None else s for each in found]),
            "probabilities": _rows([each.probabilities for each in found]),
        }
        if self._embeddings:
            answer["embedding"] = _rows([each.embedding for each in found])
        return answer

    def _predict(self, files: Sequence[str]) -> list[Prediction]:
        assert self._classifier
        return self._classifier.predict(files, tta=self._tta, embeddings=self._embeddings)


def _check_deaths(found: Sequence[Prediction], file: str) -> None:
    """Raise ImgclfError if RETRIES images before this one were deadly, too: then it is not them."""
    if len(found) >= RETRIES and all(each.error == DEADLY for each in found[-RETRIES:]):
        raise ImgclfError(f"--engine ray: the cluster fails ({file}, like {RETRIES} images before it: {DEADLY}).")


def _rows(values: list[np.ndarray | None]) -> np.ndarray:
    """float32 (n, width); zeros for what is None."""
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
    """The package `ray`, with its cluster.

    Raises:
        UsageError: if there is none.
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
            f"--engine ray: expected a Ray cluster, found none ({what:.200}). `ray start --head` begins one; the "
            "variable RAY_ADDRESS names one that is elsewhere."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nothing answers there. Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()


def _raise_ours(error: BaseException) -> None:
    """Raise what imgclf said on a machine, if that is why: Ray wraps it."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, ImgclfError):
        raise cause from None
