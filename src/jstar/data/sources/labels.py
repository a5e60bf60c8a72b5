"""Which files belong to the wanted split, and their classes: read where stated, never guessed."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.index import Item, ranks
from jstar.errors import JstarError

LABELS = "dataset.json"  # of StyleGAN, EDM and EDM2
SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
ENTRY_BYTES = 1000  # of dataset.json an image, far more than it needs
CHUNK = re.compile(r"\d{5,}")  # 00000, 00001: folders that only keep a folder from being too full

Facts = tuple[tuple[str, str], ...]  # of Source.facts
NO_CLASS = "none, one for all"
OF_JSON = f"as {LABELS} states"
Labels = tuple[NDArray[np.int64], int]  # of every image, and how many classes there are


def without_labels(count: int) -> Labels:
    """One class for all."""
    return np.zeros(count, np.int64), 1


# --- splits ---------------------------------------------------------------------------------------


def split_folder(name: str) -> str:
    """The split that one of the file's folders is named after, or an empty string."""
    folders = name.split("/")[:-1]
    return next((SPLITS[f.lower()] for f in reversed(folders) if f.lower() in SPLITS), "")


def split_name(name: str) -> str:
    """The split that a word of the file's name or of its folders states: train-00000.parquet."""
    for part in reversed(name.split("/")):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def select_split(
    config: DatasetConfig, splits: Sequence[str], *, none_is_split: bool = True
) -> list[int]:
    """Positions of what belongs to dataset.split, of all where there is but one split.

    none_is_split: files of no split beside those of one leave open what to read.
    Raises JstarError where several splits are found and none is asked for, or another one is.
    """
    found = sorted(set(splits))
    named = [split for split in found if split]
    if config.split is None:
        if len(found if none_is_split and named else named) > 1:
            raise JstarError(
                f"{config.path}: holds the splits {', '.join(s or '(none)' for s in found)}; "
                f"dataset.split says which to read, for example split: {named[0]}"
            )
        return list(range(len(splits)))
    wanted = SPLITS.get(config.split.lower())
    if wanted not in named:
        raise JstarError(
            f"dataset.split = {config.split}: {config.path} holds no such split, found are "
            f"{', '.join(named) or 'none at all'}"
        )
    return [at for at, split in enumerate(splits) if split == wanted]


def split_fact(config: DatasetConfig, splits: Sequence[str]) -> Facts:
    """For the report: the split that is read, and those that are there."""
    found = sorted(set(splits))
    if not any(found):
        return ()
    taken = SPLITS[config.split.lower()] if config.split else ", ".join(s for s in found if s)
    return (("split", f"{taken}; there: {', '.join(s or '(none)' for s in found)}"),)


def class_fact(kind: str) -> Facts:
    """For the report: what the class of an image is taken from."""
    return (("class", kind),)


# --- classes by folder ----------------------------------------------------------------------------


def folder_labels(config: DatasetConfig, names: Sequence[str]) -> Labels:
    """The rank of each file's folder among the class folders.

    Raises JstarError where folders do not say what a class is: files beside class folders,
    folders inside them, and folders that look like parts of one set.
    """
    places = [name.rpartition("/")[0] for name in names]
    folders = {place: _below_split(config, place) for place in set(places)}
    shared = _shared({tuple(parts) for parts in folders.values()})
    below = {place: parts[shared:] for place, parts in folders.items()}
    bare = [place for place, parts in below.items() if not parts]
    if bare and len(below) > 1 and config.labels is None:
        file = names[places.index(bare[0])]
        raise JstarError(
            f"{config.path}: holds '{file}' beside folders of images; dataset.labels: none takes "
            "no classes, and folder makes one class of such files"
        )
    first = {place: "".join(parts[:1]) for place, parts in below.items()}
    last = {place: "/".join(parts) for place, parts in below.items()}
    if len(set(first.values())) != len(set(last.values())) and config.nested is None:
        deep = min(place for place in below if len(below[place]) > 1)
        raise JstarError(
            f"{config.path}: holds folders inside folders, as '{deep}'; dataset.nested says what a "
            f"class is: top ({len(set(first.values()))} classes) or leaf "
            f"({len(set(last.values()))}), and dataset.labels: none takes no classes"
        )
    classes = first if config.nested == "top" else last
    if (
        config.labels is None
        and len(below) > 1
        and all(CHUNK.fullmatch(name.rpartition("/")[2]) for name in classes.values())
    ):
        raise JstarError(
            f"{config.path}: its folders ({min(places)} ... {max(places)}) may be classes or parts "
            "of one set; dataset.labels says it: folder or none"
        )
    return ranks([classes[place] for place in places])


def _below_split(config: DatasetConfig, folder: str) -> list[str]:
    """The folders on the way to a file, without that of the split that was asked for."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if config.split is not None:
        wanted = SPLITS[config.split.lower()]
        at = [n for n, part in enumerate(parts) if SPLITS.get(part.lower()) == wanted]
        if at:
            parts.pop(at[-1])
    return parts


def _shared(folders: set[tuple[str, ...]]) -> int:
    """How many first folders all have in common."""
    low, high = min(folders), max(folders)
    pairs = list(zip(low, high, strict=False))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))


# --- dataset.json ---------------------------------------------------------------------------------


class Marks(NamedTuple):
    """A dataset.json, and its name among those of the images."""

    item: Item
    name: str


def json_labels(config: DatasetConfig, marks: Marks | None, names: Sequence[str]) -> Labels:
    """The classes that EDM's and StyleGAN's dataset.json states, in the order of `names`.

    Zeros where its labels are null. Raises JstarError unless it states a class for each of the
    images, and for nothing else.
    """
    if marks is None:
        raise JstarError(f"dataset.labels = json: {config.path} holds no {LABELS}")
    where = marks.item.label
    of, stated = _stated(marks.item.read((1 << 20) + ENTRY_BYTES * len(names)), where)
    if of is None:
        return without_labels(len(names))
    if wrong := [name for name, label in of.items() if type(label) is not int or label < 0]:
        raise JstarError(
            f"{where}: the label of '{wrong[0]}' is {of[wrong[0]]!r}, allowed are integers from 0"
        )
    # Its names begin in the folder it lies in.
    inside = [name.removeprefix(marks.name.removesuffix(LABELS)) for name in names]
    if missing := next((name for name in inside if name not in of), None):
        raise JstarError(f"{where}: has no label of '{missing}'")
    if config.split is None and stated != len(inside):
        there = set(inside)
        extra = next((name for name in of if name not in there), next(iter(of)))
        raise JstarError(
            f"{where}: states {stated} labels, there are {len(inside)} images; '{extra}' is "
            "not there, not an image, or stated twice"
        )
    labels = [of[name] for name in inside]
    if max(labels) >= 1 << 63:
        raise JstarError(f"{where}: holds the label {max(labels)}, which is no class")
    return np.array(labels, np.int64), max(labels) + 1


def _stated(text: bytes, where: str) -> tuple[dict[str, Any] | None, int]:
    """The label of each name, and how many are stated; None where they are null."""
    try:
        pairs = json.loads(text)["labels"]
        if pairs is None:
            return None, 0
        of = dict(pairs)
        if type(pairs) is not list or not all(type(name) is str for name in of):
            raise ValueError
        return of, len(pairs)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise JstarError(
            f"{where}: must hold labels as [name, class] pairs, or dataset.labels says where they "
            "are: folder or none"
        ) from error
