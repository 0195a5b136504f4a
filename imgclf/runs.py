"""A run folder: the place of each file, and who may write there."""

import contextlib
import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf import documents, storage
from imgclf.errors import RunError

if TYPE_CHECKING:
    from imgclf.settings import TrainConfig


def read_json(path: Path, shape: documents.Shape | None = None) -> Any:
    """Read JSON, and check its shape.

    Raises:
        RunError: if the file is missing, is not JSON, or has another shape.
    """
    try:
        return documents.read(path, shape)
    except FileNotFoundError:
        raise RunError(f"{path}: expected this file in the run, found none. Is the training finished?") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise RunError(f"{path}: expected JSON as imgclf writes it: {error}. Train again or restore it.") from None


SCORE = documents.maybe(documents.number())
INTERVAL = documents.maybe(documents.pair_of(documents.number()))
COUNT = documents.number(0, 2**63, whole=True)

SOME_SCORES = documents.fields(
    {},
    {
        "n": COUNT,
        "accuracy": SCORE,
        "balanced_accuracy": SCORE,
        "per_class": documents.map_of(documents.fields({})),
        "intervals": documents.map_of(INTERVAL),
        "warnings": documents.list_of(documents.text),
    },
)
"""The shape of a `metrics.json`, perhaps of an older version, of any task. `evaluation.scorers` knows all of each."""

SETTINGS = documents.map_of(documents.anything)
CONFIG = documents.fields(
    {"data": documents.text, "config": SETTINGS},
    {
        **dict.fromkeys(("imgclf", "created", "data_sha256"), documents.text),
        **dict.fromkeys(("versions", "hardware"), documents.map_of(documents.anything)),
        "kfold": documents.map_of(documents.anything),
    },
)
"""What the readers of a `config.json` rely on; the settings in it are checked where they become settings."""


class File:
    """The place of a file in a run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "Run", kind: type) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class Run:
    """The folder of one training. Its paths open nothing; `scores` and `history` read files."""

    path: Path

    config = File("config.json")
    manifest = File("manifest.csv")
    labels = File("labels.txt")
    history_file = File("history.csv")
    model = File("model.keras")
    artifact = File("artifact.json")
    saved_model = File("saved_model")
    litert = File("model.tflite")
    metrics = File("metrics.json")
    predictions = File("predictions.csv")
    validation = File("validation.csv")
    log = File("log.txt")
    events = File("log.jsonl")
    checkpoint = File("checkpoint")
    soft_labels = File("soft_labels.npz")
    backbone = File("backbone.keras")
    """While training lasts, the network of a backbone that its name alone does not give again."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of `history.csv`: a dict for each epoch or fitted head, with numbers as numbers.

        Raises:
            RunError: if the file is missing or damaged.
        """
        try:
            return read_history(self.history_file)
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise RunError(f"{self.history_file}: expected the history of the training ({error}).") from None

    @property
    def scores(self) -> dict[str, Any]:
        """The content of `metrics.json`: the scores on the test split.

        Raises:
            RunError: if the file is missing, such as for a run without a test split, or damaged.
        """
        found: dict[str, Any] = read_json(self.metrics, SOME_SCORES)
        return found

    @property
    def extension(self) -> "Run":
        """The training for more epochs of a finished run; its files replace those of the run when it is finished."""
        return Run(self.path / "extension")

    def read_config(self) -> dict[str, Any]:
        """Return the content of `config.json`: `data`, `config` (a resolved TrainConfig), `versions`, `hardware`.

        Raises:
            RunError: if the file is missing or damaged, or has no path as `data` or no settings as `config`.
        """
        value: dict[str, Any] = read_json(self.config, CONFIG)
        return value

    def read_labels(self) -> list[str]:
        """Return the class names in the order of the model's outputs.

        Raises:
            RunError: if the file is missing or damaged.
        """
        try:
            lines = self.labels.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            names = [documents.parse(line) if line.startswith('"') else line for line in lines]
        except OSError:
            raise RunError(f"{self.labels}: expected the class names, found no such file.") from None
        except ValueError as error:
            raise RunError(f"{self.labels}: expected the class names, found half a quoted one ({error}).") from None
        if not names:
            raise RunError(f"{self.labels}: expected the class names, found an empty file.")
        return names

    def write_labels(self, names: list[str]) -> None:
        """Write the class names in the form of `labels_text`."""
        storage.write_atomic(self.labels, labels_text(names))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock this folder for one process that writes into it; the lock ends with its process.

        What killed processes left is finished or removed.

        Raises:
            RunError: if another process holds it, or the folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                is_mine = stack.enter_context(storage.locked(self.path / storage.LOCK))
                if is_mine:
                    storage.finish_install(self.path)
                    storage.remove_abandoned(self.path)
            except OSError as error:
                raise RunError(f"{self.path}: the run folder cannot be written ({error.strerror}).") from None
            if not is_mine:
                raise RunError(f"{self.path}: another imgclf process is writing this run. Wait, or choose -o.")
            yield


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `history.csv`, numbers as numbers, without the empty cells."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _value(name, text) for name, text in row.items() if text} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> str | int | float:
    return text if name in ("phase", "outcome") else int(text) if name in ("epoch", "image_size") else float(text)


def labels_text(names: Iterable[str]) -> str:
    """Return class names, one per line; a name with a line break or a leading quote is JSON-quoted."""
    lines = [json.dumps(n) if n.startswith('"') or n.splitlines() != [n] else n for n in names]
    return "".join(line + "\n" for line in lines)


BEFORE_CONFIG = frozenset({storage.LOCK, "labels.txt", "manifest.csv", "backbone.keras", "log.txt", "log.jsonl"})
"""What a training writes before `config.json`, which makes the folder a run."""


def create(path: Path) -> Run:
    """Create a new, empty run folder. What a training left that was killed before there was a run is removed.

    Raises:
        RunError: if the folder is not empty or cannot be written, or another process has just begun to write there.
    """
    run = Run(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_new(path)
        if left := _names(path) - {storage.LOCK}:
            with run.lock():
                for name in left:
                    (path / name).unlink()
        (path / storage.LOCK).touch()
    except OSError as error:
        raise RunError(f"{path}: the run folder cannot be written ({error.strerror}). Choose another -o.") from None
    return run


def check_new(path: Path | None) -> None:
    """Check that `create` will accept a folder; None is one that it names itself.

    Raises:
        RunError: if there is something in it, but for what a training left that was killed before there was a run.
    """
    if path is None or not path.exists():
        return
    if not path.is_dir():
        raise RunError(f"{path}: the folder cannot be written (a file has its name). Choose another -o.")
    names = _names(path)
    if "config.json" in names:
        raise RunError(
            f"{path}: expected a new or empty folder, found a run. imgclf train --resume {path} resumes it; or choose "
            "another -o."
        )
    if names and not (storage.LOCK in names and names <= BEFORE_CONFIG):
        raise RunError(f"{path}: expected a new or empty folder, found files in it. Choose another -o.")


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if not entry.name.endswith(storage.STAGE)}


def find(run: Run | Path | str) -> Run:
    """Return the run in a folder; a run as it is.

    Raises:
        RunError: if there is no run in it.
    """
    if isinstance(run, Run):
        return run
    path, run = Path(run), Run(Path(run))
    storage.settle(path)
    if not path.is_dir() or not run.config.is_file():
        raise RunError(f"{path}: expected a run folder (with config.json), found none. imgclf train makes one.")
    return run


def create_next(parent: Path, stem: str) -> Path:
    """Create the folder `parent/stem-N` with the first free number N; no other process gets the same one.

    Raises:
        RunError: if it cannot be created.
    """
    for number in itertools.count(1):
        path = parent / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise RunError(f"{parent}: expected a folder, found a file. Choose -o.") from None
        except OSError as error:
            raise RunError(f"{path}: the folder cannot be created ({error.strerror}). Choose -o.") from None
        else:
            break
    return path


def read_settings(path: Path) -> "tuple[TrainConfig, Path | None]":
    """Return the settings of a run and the path of its data, from a `config.json` or the folder that contains it.

    Raises:
        RunError: if the file is missing or contains no settings.
        UsageError: if this version does not know one of them.
    """
    from imgclf.settings import TrainConfig  # 30 ms, of which prediction needs nothing

    path = path / "config.json" if path.is_dir() else path
    if not path.exists():
        raise RunError(f"--config {path}: no such file. Pass the config.json of a run, or the run.")
    facts = read_json(path, documents.fields({"config": SETTINGS}, {"data": documents.maybe(documents.text)}))
    return TrainConfig.from_dict(facts["config"]), Path(facts["data"]) if facts.get("data") else None
