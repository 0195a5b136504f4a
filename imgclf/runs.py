"""A run folder: the place of each file, and writing files whole or not at all."""

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.errors import RunError

if TYPE_CHECKING:
    from imgclf.settings import TrainConfig


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Raises:
        OSError: if the folder cannot be written or the disk is full; the old file stays untouched.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, in UTF-8."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        raise RunError(f"{path}: expected this file in the run, found none. Is the training finished?") from None
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: expected JSON, found something else ({error}). Train again or restore it.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclass(frozen=True)
class Run:
    """The folder of one training. The object has paths only and opens nothing by itself."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.csv"

    @property
    def labels(self) -> Path:
        return self.path / "labels.txt"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def artifact(self) -> Path:
        return self.path / "artifact.json"

    @property
    def saved_model(self) -> Path:
        return self.path / "saved_model"

    @property
    def litert(self) -> Path:
        return self.path / "model.tflite"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def validation(self) -> Path:
        return self.path / "validation.csv"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def events(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def backbone(self) -> Path:
        """While training lasts, the network of a backbone that its name alone does not give again."""
        return self.path / "backbone.keras"

    def read_config(self) -> dict[str, Any]:
        """Return the content of `config.json`: `data`, `config` (a resolved TrainConfig), `versions`, `hardware`.

        Raises:
            RunError: if the file is missing or damaged, or has no path as `data` or no settings as `config`.
        """
        value: dict[str, Any] = read_json(self.config)
        for key, kind, what in (("data", str, "a path"), ("config", dict, "a training's settings")):
            if not isinstance(value, dict) or not isinstance(value.get(key), kind):
                raise RunError(f"{self.config}: expected {what} as its {key!r}, found none. Train again or restore it.")
        return value

    def read_labels(self) -> list[str]:
        """Return the class names in the order of the model's outputs.

        Raises:
            RunError: if the file is missing or damaged.
        """
        try:
            lines = self.labels.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            names = [json.loads(line) if line.startswith('"') else line for line in lines]
        except OSError:
            raise RunError(f"{self.labels}: expected the class names, found no such file.") from None
        except json.JSONDecodeError as error:
            raise RunError(f"{self.labels}: expected the class names, found half a quoted one ({error}).") from None
        if not names:
            raise RunError(f"{self.labels}: expected the class names, found an empty file.")
        return names

    def write_labels(self, names: list[str]) -> None:
        """Write the class names in the form of `labels_text`."""
        write_atomic(self.labels, labels_text(names))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock this folder for one training or export; the lock ends with its process.

        Raises:
            RunError: if another process holds it, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout  # here, because reading a run does not need it

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: another imgclf process is writing this run. Wait, or choose -o.") from None
        except OSError as error:
            raise RunError(f"{self.path}: the run folder cannot be written ({error.strerror}).") from None
        try:
            yield
        finally:
            lock.release()


def labels_text(names: Iterable[str]) -> str:
    """Return class names, one per line; a name with a line break or a leading quote is JSON-quoted."""
    lines = [json.dumps(n) if n.startswith('"') or n.splitlines() != [n] else n for n in names]
    return "".join(line + "\n" for line in lines)


def create(path: Path) -> Run:
    """Create a new, empty run folder.

    Raises:
        RunError: if the folder is not empty or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunError(f"{path}: expected a new or empty folder, found files in it. Choose another -o.")
        (path / ".lock").touch()
    except OSError as error:
        raise RunError(f"{path}: the run folder cannot be written ({error.strerror}). Choose another -o.") from None
    return Run(path)


def find(run: Run | Path | str) -> Run:
    """Return the run in a folder; a run as it is.

    Raises:
        RunError: if there is no run in it.
    """
    if isinstance(run, Run):
        return run
    path, run = Path(run), Run(Path(run))
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
        RunError: if the file contains no settings.
        UsageError: if this version does not know one of them.
    """
    from imgclf.settings import TrainConfig  # 30 ms, of which prediction needs nothing

    path = path / "config.json" if path.is_dir() else path
    facts = read_json(path)
    if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict):
        raise RunError(f"{path}: expected the config.json of a run, found no settings in it.")
    return TrainConfig.from_dict(facts["config"]), Path(facts["data"]) if facts.get("data") else None


def check_new(path: Path | None) -> None:
    """Check before the work that `create` will accept a folder; None is one that it names itself.

    Raises:
        RunError: if there is something in it.
    """
    if path is not None and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise RunError(f"{path}: expected a new or empty folder, found files in it. Choose another -o.")
