"""Images -> what they show, on all machines of a Ray cluster, and whichever of them fall out meanwhile."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import environment
from imgclf.config import PredictConfig
from imgclf.errors import ImgclfError, UsageError
from imgclf.prediction.artifact import Artifact
from imgclf.prediction.classifier import Classifier, Prediction, Source, load
from imgclf.prediction.decision import Outliers
from imgclf.prediction.runtimes import Runtime

log = logging.getLogger(__name__)

BLOCK = 256
"""So many images at most go to a machine together; they are done again where it falls out meanwhile."""

BLOCKS_EACH = 4
"""Few images make smaller blocks, so that each processor gets so many: the last ones then end together."""

RETRIES = 5
"""So often the work is begun again, if nothing was answered in between, before all ends."""

PAUSE_S = 1.0
PATIENCE_S = 10.0

SILENCE = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
"""Ray reads these when it is imported; it would print on stdout, among the results, that a machine fell out."""


class ClusterClassifier(Classifier):
    """An exported model that answers on every processor of a Ray cluster. `load` with the engine `ray` makes one.

    Every machine needs imgclf, and sees the model and the images under the paths that they have here.
    """

    def __init__(self, facts: Artifact, runtime: Runtime, outliers: Outliers | None, recipe: Mapping[str, Any]) -> None:
        """Args: recipe, what `load` is called with on each machine; the others are those of `Classifier`."""
        environment.require("ray", "'imgclf[ray]'")
        super().__init__(facts, runtime, outliers)
        self._recipe = recipe

    def stream(
        self,
        sources: Iterable[Source],
        batch_size: int = PredictConfig.batch_size,
        *,
        tta: bool = False,
        embeddings: bool = False,
    ) -> Iterator[Prediction]:
        """Classify files one after the other, in order, each once, however many machines fall out while others stay.

        The list is read to its end before the first answer.

        Args:
            batch_size: of no effect on the machines, which get as much as suits their number.
            tta, embeddings: as in `Classifier.stream`.

        Raises:
            UsageError: as in `Classifier.stream`; or if there is no cluster, or a source is not a path.
            ImgclfError: if the cluster fails as a whole.
        """
        self._check(sources, batch_size, embeddings)
        return self._on_cluster(sources, tta, embeddings)

    def _on_cluster(self, sources: Iterable[Source], tta: bool, embeddings: bool) -> Iterator[Prediction]:
        names = [_name(source) for source in sources]
        if not names:
            return
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

    def _blocks(self, ray: Any, names: list[str], tta: bool, embeddings: bool) -> Iterator[dict[str, np.ndarray]]:
        """What `_Worker` gives, block after block, in order.

        What a machine held that falls out is done again by Ray itself, mostly: where it notices too late it raises.
        """
        import pyarrow

        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = min(BLOCK, max(1, len(names) // (BLOCKS_EACH * cpus)))
        here = Path.cwd()
        paths = [os.fsencode(os.path.join(here, name)) for name in names]  # noqa: PTH118  (a name may hold a NUL)
        blocks = [pyarrow.table({"path": paths[start : start + size]}) for start in range(0, len(paths), size)]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        context.raise_original_map_exception = True
        context.max_consecutive_actor_init_deaths = RETRIES  # of machines that go while a process starts there
        answers = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(dict(self._recipe), tta, embeddings),
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
            reject_below=self.reject_below,
            embedding=block["embedding"][row] if "embedding" in block else None,
            file=name,
            outlier_score=None if np.isnan(score) else score,
            rules=self.rules,
        )


class _Worker:
    """One process on one of the machines."""

    def __init__(self, recipe: dict[str, Any], tta: bool, embeddings: bool) -> None:
        self._recipe, self._tta, self._embeddings = recipe, tta, embeddings
        self._classifier: Classifier | None = None

    def __call__(self, block: Any) -> dict[str, np.ndarray]:
        """Answer a table with the column `path`."""
        if self._classifier is None:  # here, since what is wrong with the model is then told as it is
            self._classifier = load(**self._recipe)
        files = [os.fsdecode(path) for path in block["path"].to_pylist()]
        found = self._classifier.predict(files, tta=self._tta, embeddings=self._embeddings)
        answer = {
            "error": np.array([os.fsencode(each.error or "") for each in found], dtype=object),
            "outlier_score": np.array([np.nan if (s := each.outlier_score) is None else s for each in found]),
            "probabilities": _rows([each.probabilities for each in found]),
        }
        if self._embeddings:
            answer["embedding"] = _rows([each.embedding for each in found])
        return answer


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
