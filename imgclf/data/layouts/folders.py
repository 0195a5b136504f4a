"""Class folders: the label is the name of the folder, the split that of a folder above or below."""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgclf.data.dataset import TRAIN, UNASSIGNED, Sample, Skipped, listed
from imgclf.data.file_listing import Found, Listing, Progress, contents, label
from imgclf.data.layouts import About, Source, table
from imgclf.data.split_names import Meaning, Vocabulary, is_container
from imgclf.errors import DatasetError
from imgclf.settings import DataConfig, ReadConfig

ADVICE = "Put each class's images in its own sub-folder."

_LEAST_SHARED = 2  # folders of one name in each of several folders that make them look like classes in splits


ABOUT = About(priority=100, options=("depth", "split_names"))


def recognize(source: Source, settings: ReadConfig) -> bool:
    """Whatever has no other layout is read as class folders."""
    return True


def list_samples(source: Source, settings: ReadConfig, on_progress: Progress | None = None) -> Listing:
    """Label every image by its place: `<class>/...`, `<split>/<class>/...` or `<class>/<split>/...`.

    `settings.depth` nested folders, joined by slashes, form the class name; by default one. Images are found at any
    depth below. Folders that contain nothing but one folder, above a split or in it, do not count. With the depth
    `last`, the innermost folder alone names the class, whatever is above it.

    Images that lie in no folder at all are labeled by the table of `settings.labels`.

    Raises:
        DatasetError: if there are no images in class folders, folders of a split stand beside others, it cannot be
            told classes from splits, or a class name is not UTF-8.
    """
    found, is_last = source.found, settings.depth == "last"
    levels = settings.depth if isinstance(settings.depth, int) else 1
    if not found.files:
        raise DatasetError(f"{found.name}: expected images, found {contents(found)}. {ADVICE}")
    if isinstance(settings, DataConfig) and settings.labels and not any("/" in path for path in found.files):
        return table.list_by(found, Path(settings.labels), settings)
    places = _places(found, settings)
    listing = Listing(found.root, [], list(found.skipped))
    filled = set()
    for path in found.files:
        prefix = places.prefix(path)
        if prefix is None:
            listing.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
            continue
        split = places.splits[prefix]
        if split is None:
            continue
        parts = path.removeprefix(f"{prefix}/").split("/")
        if len(parts) <= levels:
            listing.skipped.append(Skipped(path, "unlabelled", "an image outside any class folder"))
            continue
        name = parts[-2] if is_last else "/".join(parts[:levels])
        if places.below and len(parts) > levels + 1:
            split = places.below.get(f"{name}/{parts[levels]}", UNASSIGNED)
        listing.samples.append(Sample(path, label(name, found.name), split))
        filled.add(f"{prefix}/{name}" if prefix else name)
    left_out = [folder for folder, split in places.splits.items() if split is None]
    listing.skipped += [Skipped(folder, "excluded", "left out by --split-names") for folder in left_out]
    for folder in found.folders:
        prefix = places.prefix(folder)
        inside = None if prefix is None or folder == prefix else folder.removeprefix(f"{prefix}/")
        if is_last or inside is None or folder in filled or places.splits[prefix or ""] is None:
            continue
        if inside.count("/") == levels - 1:
            listing.skipped.append(Skipped(folder, "empty-class", "a folder without images"))
    if not listing.samples:
        raise DatasetError(
            f"{found.name}: expected images in folders nested {levels} deep, found none. Choose another --depth."
        )
    return listing


@dataclass(frozen=True)
class _Places:
    """Where class folders are.

    Args:
        splits: the folders that contain class folders ("" for the root), each with its split; None for a folder to
            leave out.
        below: where splits lie inside classes, the folders of a split.
    """

    splits: Mapping[str, str | None]
    below: Mapping[str, str]

    def prefix(self, path: str) -> str | None:
        """Return the folder of `splits` that a path lies in, if any."""
        at = path.find("/") if len(self.splits) > 1 or "" not in self.splits else -1
        while at >= 0:
            if path[:at] in self.splits:
                return path[:at]
            at = path.find("/", at + 1)
        return path if path in self.splits else "" if "" in self.splits else None


class _Tree:
    """The folders with images at any depth below."""

    def __init__(self, files: Sequence[str]) -> None:
        self._direct = {path.rpartition("/")[0] for path in files}  # folders with images directly in them
        self._inside: defaultdict[str, set[str]] = defaultdict(set)
        for folder in self._direct:
            while folder:
                above, _, name = folder.rpartition("/")
                if name in self._inside[above]:
                    break
                self._inside[above].add(name)
                folder = above

    def names(self, folder: str) -> set[str]:
        """Return the names of the folders in a folder."""
        return self._inside.get(folder, set())

    def classes(self, folder: str) -> set[str]:
        """Return the names of the folders in a folder, or in the only one in it, at any depth."""
        while (below := self.only(folder)) is not None:
            folder = below
        return self.names(folder)

    def only(self, folder: str) -> str | None:
        """Return the path of the one folder in a folder, if nothing else with images is in it."""
        names = self.names(folder)
        return _join(folder, next(iter(names))) if len(names) == 1 and folder not in self._direct else None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _places(found: Found, settings: ReadConfig) -> _Places:
    """Tell splits from classes.

    Raises:
        DatasetError: if there are no class folders, or a folder may be either.
    """
    vocabulary, tree = Vocabulary.of(settings), _Tree(found.files)
    if not tree.names(""):
        tables = table.unusable(found, settings)
        advice = "Or put a table beside them, with a column of paths and one of labels."
        if tables:
            advice = f"A table beside them cannot be used: {next(iter(tables.values()))}"
        raise DatasetError(
            f"{found.name}: found {len(found.files)} images directly in it and no class folders. {ADVICE} {advice}"
        )
    chain = [""]
    while (below := tree.only(chain[-1])) is not None:
        chain.append(below)
    meanings = {name: vocabulary.of_folder(name) for name in sorted(tree.names(chain[-1]))}
    splits = _splits(found, tree, chain[-1], meanings)
    left_out: dict[str, str | None] = {
        _join(chain[-1], name): None for name, meaning in meanings.items() if meaning.is_left_out
    }
    for folder in chain[:0:-1]:  # a split that contains everything
        meaning = vocabulary.of_folder(folder.rpartition("/")[2])
        if not splits and meaning.split is not None and meaning.is_sure:
            if not tree.names(folder):
                raise _without_classes(found, [folder])
            splits = {folder: meaning.split}
    if splits:
        return _Places(_deepened(tree, vocabulary, splits) | left_out, {})
    below_classes = _below_classes(tree, vocabulary) if settings.depth is None else {}
    is_told = vocabulary.is_silent or settings.depth is not None
    if not is_told and not (isinstance(settings, DataConfig) and settings.group_by):
        _check_classes(found, tree, below_classes)
    return _Places({"": UNASSIGNED} | left_out, below_classes)


def _splits(found: Found, tree: _Tree, home: str, meanings: Mapping[str, Meaning]) -> dict[str, str]:
    """Map the folders in a folder to the splits that they mean; to none if they are classes.

    Raises:
        DatasetError: if they may be either.
    """
    used = {name: meaning for name, meaning in meanings.items() if not meaning.is_left_out}
    splits = {name: meaning.split for name, meaning in used.items() if meaning.split is not None}
    if not splits:
        return {}
    result = {_join(home, name): split for name, split in splits.items()}
    deep = {name for name in used if tree.names(_join(home, name))}
    others = sorted(set(used) - set(splits))
    if others:
        inside = {name: tree.classes(_join(home, name)) for name in used}
        is_one_set = len({used[name].others for name in splits}) == 1  # seg_train and seg_test, beside seg_pred
        seems_one = is_one_set and len(set.intersection(*(inside[name] for name in splits))) >= _LEAST_SHARED
        is_alone = seems_one and not any(inside[name] for name in others)
        is_several = seems_one and len(set(splits.values())) > 1
        sure = sorted(name for name in splits if name in deep and (used[name].is_sure or is_several or is_alone))
        if sure:
            likely = "test" if TRAIN in splits.values() else "train"
            is_part = bool(set.intersection(*(inside[name] for name in (*sure, others[0]))))
            also = f" If {others[0]} is a split, too, pass --split-names {others[0]}={likely}." if is_part else ""
            raise DatasetError(
                f"{found.name}: found folders of a split ({listed(sure)}) beside other folders with images "
                f"({listed(others)}).{also} Move or rename one of the two kinds, leave a folder out with --split-names "
                f"{others[0]}=none, or pass --split-names none if all of them are classes."
            )
        return {}
    endings = {used[name].others for name in splits}
    is_one_set = len(endings) == 1 and len(set(splits.values())) > 1  # seg_train and seg_test
    if is_one_set or all(used[name].is_sure for name in splits):
        if not deep and not home:
            raise _without_classes(found, sorted(splits))
        return result if deep else {}
    shared = set.intersection(*(tree.names(folder) for folder in result))
    if len(shared) >= _LEAST_SHARED:
        return result
    if len(endings) < len({(used[name].others, split) for name, split in splits.items()}):  # train_ant and test_ant
        raise DatasetError(
            f"{found.name}: folders such as {listed(sorted(splits), 3)} seem to name a split and a class. Put them "
            "into folders such as train/ant, or pass --split-names none if all of them are classes."
        )
    return {}


def _without_classes(found: Found, folders: Sequence[str]) -> DatasetError:
    return DatasetError(
        f"{found.name}: expected class folders in {' and '.join(folders)}, found images directly there. {ADVICE} Or "
        "pass --split-names none if these are classes."
    )


def _deepened(tree: _Tree, vocabulary: Vocabulary, splits: Mapping[str, str]) -> dict[str, str | None]:
    """Pass over folders between a split and its classes, as in `train_set/train_set/ant` or `train/images/ant`."""
    classes = {name for folder in splits if len(names := tree.names(folder)) > 1 for name in names}
    result: dict[str, str | None] = {}
    for folder, split in splits.items():
        while (inside := tree.only(folder)) is not None:
            name = inside.rpartition("/")[2]
            meaning = vocabulary.of_folder(name)
            is_same = (meaning.is_sure and meaning.split == split) or name == folder.rpartition("/")[2]
            if name in classes or not (is_same or is_container(name)):
                break
            folder = inside
        result[folder] = split
    return result


def _below_classes(tree: _Tree, vocabulary: Vocabulary) -> dict[str, str]:
    """Find folders of a split inside all class folders, where there are no other folders in them."""
    result: dict[str, str] = {}
    for top in tree.names(""):
        meanings = {name: vocabulary.of_folder(name) for name in tree.names(top)}
        for name, meaning in meanings.items():
            if meaning.split is None or not meaning.is_sure:
                return {}
            result[f"{top}/{name}"] = meaning.split
        if not meanings:
            return {}
    return result if len(set(result.values())) > 1 else {}


def _likeness_to_training(found: Found, folder: str) -> tuple[int, float]:
    """Order folders by how likely they are the training split: the number of images, then the name."""
    train, test = (difflib.SequenceMatcher(None, folder.casefold(), word).ratio() for word in ("train", "test"))
    likeness = train - test if max(train, test) >= 0.5 else 0.0  # less is chance
    return sum(path.startswith(f"{folder}/") for path in found.files), likeness


def _check_classes(found: Found, tree: _Tree, below: Mapping[str, str]) -> None:
    """Refuse folders that look like parts of a dataset rather than classes, since all contain the same folders.

    Raises:
        DatasetError: if they do.
    """
    tops = sorted(tree.names(""))
    shared = sorted(set.intersection(*(tree.names(folder) for folder in below or tops)))
    if len(tops) > 1 and len(shared) >= _LEAST_SHARED:
        train, test = sorted(tops, key=lambda name: _likeness_to_training(found, name), reverse=True)[:2]
        raise DatasetError(
            f"{found.name}: each of its folders ({listed(tops, 4)}) contains the same folders ({listed(shared, 4)}). "
            "Which of them are the classes? If the outer ones, pass --depth 1; if the inner ones, --depth last; if "
            f"both together, --depth 2. If the outer ones are splits: --split-names {train}=train,{test}=test."
        )
