"""Read files that name classes: ImageNet's synsets, class folders, numbers."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from imgclf import documents
from imgclf.data.dataset import Sample, listed
from imgclf.data.file_listing import Found, label
from imgclf.errors import DatasetError

SYNSET = re.compile(r"n\d{8}")
"""WordNet's number of a noun, ImageNet's name of a class."""

SUFFIXES = (".txt", ".tsv", ".csv", ".json")
MAX_BYTES = 20_000_000


def read(path: Path) -> dict[str, str]:
    """Read class names by key, from lines `key<tab>name`, `key,name` or `n01440764 tench, Tinca tinca`, or from JSON.

    JSON is `{"key": "name"}`, `{"0": ["n01440764", "tench"]}` or a list, whose indices are then the keys. The first of
    the synonyms of a synset is used.

    Raises:
        DatasetError: if the file cannot be read, or has another format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = _of_json(documents.parse(text)) if path.suffix.lower() == ".json" else _of_lines(text)
    except OSError as error:
        raise DatasetError(f"{path}: the names of the classes cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise DatasetError(f"{path}: expected names of classes in UTF-8, found something else ({error}).") from None
    return {key: label(name, path) for key, name in pairs.items()}


def _of_json(value: object) -> dict[str, str]:
    if isinstance(value, list):
        value = {str(place): name for place, name in enumerate(value)}
    if not isinstance(value, dict):
        raise ValueError("neither an object nor a list")
    pairs = {}
    for key, name in value.items():
        if isinstance(name, list) and len(name) == 2:
            key, name = name
        if not isinstance(key, str) or not isinstance(name, str):
            raise ValueError(f"{name!r} is no name")
        pairs[key] = _first(key, name)
    return pairs


def _of_lines(text: str) -> dict[str, str]:
    pairs = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        first = line.split(maxsplit=1)[0]
        mark = "\t" if "\t" in line else " " if SYNSET.fullmatch(first) else ","
        key, found, name = line.strip().partition(mark)
        if not found or not name.strip():
            raise ValueError(f"line {number}: a key without a name")
        pairs[key.strip().strip('"')] = _first(key.strip(), name.strip().strip('"'))
    return pairs


def _first(key: str, name: str) -> str:
    return name.split(",")[0].split("\t")[0].strip() if SYNSET.fullmatch(key) else name.strip()


def beside(found: Found, classes: Collection[str]) -> dict[str, str] | None:
    """Read the names of ImageNet classes from a file in the folder; None unless it names all of them as synsets."""
    if not classes or not all(SYNSET.fullmatch(name) for name in classes):
        return None
    for path in found.others:
        file = found.root / path
        if "/" in path or file.suffix.lower() not in SUFFIXES or file.stat().st_size > MAX_BYTES:
            continue
        try:
            names = read(file)
        except DatasetError:  # another file, about something else
            continue
        if set(classes) <= set(names):
            return names
    return None


def apply(samples: list[Sample], names: Mapping[str, str], source: object) -> list[Sample]:
    """Give samples the names of their classes; if two classes would get one name, their keys are appended.

    Raises:
        DatasetError: if no class is among the keys.
    """
    classes = {s.label for s in samples}
    if not classes & set(names):
        raise DatasetError(
            f"{source}: expected names for the classes {listed(sorted(classes), 3)}, found names for "
            f"{listed(sorted(names), 3)}."
        )
    uses = Counter(names.get(key, key) for key in classes)
    final = {}
    for key in classes:
        name = names.get(key, key)
        final[key] = f"{name} ({key})" if uses[name] > 1 else name
    return [_renamed(s, final[s.label]) for s in samples]


def _renamed(sample: Sample, name: str) -> Sample:
    return Sample(sample.path, name, sample.split, sample.group)
