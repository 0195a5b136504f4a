"""Check a dataset before training: what it contains, what is wrong with it, and how it would be split."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imgclf import storage, tasks
from imgclf.data import copying, doctor, doctor_report, reading
from imgclf.data.dataset import Dataset, write_manifest
from imgclf.data.doctor import Checkup
from imgclf.errors import UsageError
from imgclf.settings import IngestConfig

log = logging.getLogger("imgclf")

Progress = Callable[[str, int, int], None]
"""Called with the name of the phase, the steps done and the steps in all."""


@dataclass(frozen=True)
class Ingestion:
    """The dataset as training would split it, what the doctor found, and the findings that are not accepted."""

    dataset: Dataset
    checkup: Checkup
    forbidden: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return counts, sizes, formats and findings for JSON."""
        return self.dataset.summary() | {"doctor": self.checkup.to_dict()}

    def check(self) -> None:
        """Apply the gate of `IngestConfig.fail_on`.

        Raises:
            GateError: if there are such findings.
        """
        doctor.check(self.checkup, self.forbidden)


def ingest(
    source: Path | str,
    config: IngestConfig | None = None,
    *,
    output: Path | str | None = None,
    to: Path | str | None = None,
    with_split: bool = False,
    report: Path | str | None = None,
    quarantine: Path | str | None = None,
    on_progress: Progress | None = None,
) -> Ingestion:
    """Read, check and split a dataset as training would, and write what is asked for.

    Args:
        source: a folder, an archive or a table of labeled images.
        output: a new CSV file for the manifest.
        to: a new or empty folder for links to the images, in class folders.
        with_split: whether `to` has train/, validation/ and test/ above the class folders.
        report: a new HTML file for the findings, with thumbnails.
        quarantine: a new CSV file for the images to leave out, as the setting `exclude` takes it.

    Raises:
        UsageError: if a file exists already or cannot be written, or a finding in `fail_on` is unknown.
        DatasetError: if the source is not a dataset.
    """
    config = config or IngestConfig()
    output, to, report, quarantine = (Path(path) if path else None for path in (output, to, report, quarantine))
    for option, path in (("-o", output), ("--report", report), ("--quarantine", quarantine)):
        storage.refuse_existing(path, option)
    if with_split and not to:
        raise UsageError("--with-split: expected --to beside it, found none.")
    if to:
        tasks.refuse(config.task, "--to")
    forbidden = doctor.forbidden(config.fail_on)
    progress = on_progress or _silent
    dataset = reading.read(
        source, config, pixels=not config.quick, trainable=False, on_progress=partial(progress, "reading")
    )
    given, checkup = dataset.as_given(), dataset.checkup
    assert checkup is not None  # since it was split
    for note in (*dataset.notes, *dataset.split_notes):
        log.info("%s", note)
    if config.quick:
        log.info("Skipped the pixel checks: blank, blurred and near-duplicate images are not reported.")
    if to:
        linked, copied = copying.copy(dataset if with_split else given, to, partial(progress, "copying"))
        log.info("%s: %s files linked, %s copied.", to, f"{linked:,}", f"{copied:,}")
    if report:
        doctor_report.write(given, checkup, report)
        log.info("%s: wrote the findings.", report)
    if output:
        _write("-o", output, lambda path: write_manifest(dataset, path))
        log.info("%s: wrote the manifest (data sha256 %s).", output, dataset.digest())
    if quarantine:
        left_out = doctor.quarantine(given, checkup)
        _write("--quarantine", quarantine, lambda path: doctor.write_quarantine(left_out, path))
        log.info("%s: wrote %s files to leave out.", quarantine, f"{len(left_out):,}")
    return Ingestion(dataset, checkup, forbidden)


def _silent(phase: str, done: int, total: int) -> None:
    """Show no progress."""


def _write(option: str, path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}).") from None
