"""What was read -> what is trained on: chosen, looked through by the doctor, and split."""

from dataclasses import dataclass

from imgclf.data import doctor, splitting
from imgclf.data.dataset import Dataset
from imgclf.data.doctor import Checkup
from imgclf.data.scan_cache import Scanner
from imgclf.settings import DataConfig


@dataclass(frozen=True)
class Prepared:
    """The dataset with its split; the same before the split, with the sides that it brought along; what the doctor
    found in that; and notes for the user."""

    dataset: Dataset
    chosen: Dataset
    checkup: Checkup
    notes: list[str]


def prepare(dataset: Dataset, settings: DataConfig, scanner: Scanner | None = None) -> Prepared:
    """Label, choose, group, examine and split what was read, as the settings say: all that comes before the pixels.

    Args:
        scanner: sees the pixels; without one only the doctor's cheap part is done, and no near-duplicates are found.

    Raises:
        ImgclfError: of any kind, if a setting or a file that it names does not suit the dataset.
    """
    chosen, notes = splitting.choose(dataset, settings)
    checkup = doctor.examine(chosen, settings, scanner)
    related = checkup.related if settings.near_duplicates == "group" else ()
    result, more = splitting.divide(chosen, settings, related)
    return Prepared(result, chosen, checkup, [*notes, *more])


def related(dataset: Dataset, settings: DataConfig) -> tuple[tuple[int, ...], ...]:
    """The rows of near-duplicates that folds must not divide; none where the settings look for none."""
    if settings.near_duplicates == "off":
        return ()
    with Scanner(settings.allow_truncated) as scanner:
        return doctor.examine(dataset, settings, scanner).related
