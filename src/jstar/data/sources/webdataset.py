"""WebDataset tars: samples of files that share a key, as 000123.jpg and 000123.cls."""

import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.image import Decoding
from jstar.data.sources.base import (
    DECODING_KEYS,
    Reader,
    Shape,
    Source,
    damaged,
    regular_files,
    source_path,
)
from jstar.data.sources.decoding import first_shape
from jstar.data.sources.files import file_source, is_image, shape_of
from jstar.data.sources.index import PACKED, TAR_DAMAGE, TarIndex, first_of_tar, is_hidden
from jstar.data.sources.labels import (
    NO_CLASS,
    Facts,
    class_fact,
    select_split,
    split_fact,
    split_name,
)
from jstar.data.sources.packed import is_packed, packed_images, packed_jobs, packed_members
from jstar.errors import JstarError

MARKS = (".cls", ".json")
TEXT_BYTES = 1 << 24  # of one of them
FIELD = re.compile(r".*label.*|class(_id|_index)?|cls|target", re.IGNORECASE)


class SampleIndex(TarIndex):
    """The images of WebDataset tars, in the order they stand in, and their labels."""

    def __init__(self, paths: list[Path], config: DatasetConfig) -> None:
        self.packed = any(is_packed(path) for path in paths)
        # Not in memory: a million of them may be a gigabyte. It has no name, so that it is gone
        # with this process however that ends.
        self._texts = tempfile.TemporaryFile() if self.packed else None  # noqa: SIM115
        super().__init__(
            paths,
            lambda name: (is_image(name) or name.endswith(MARKS)) and not is_hidden(name),
            in_order=True,
        )
        self.config = config
        images = self._images()
        self.class_kind = NO_CLASS
        self.labels_N = self._labels(images, self._rows(images))
        self.select(images)

    def _members(self, path: Path) -> Iterator[tuple[str, int, int]]:
        """As of a plain tar; of packed ones the number of an image in its tar is its offset."""
        if self._texts is None:
            yield from super()._members(path)
            return
        for number, (name, size, read) in enumerate(packed_members(path)):
            if name.endswith(MARKS):
                yield name, self._texts.seek(0, os.SEEK_END), size
                self._texts.write(read(TEXT_BYTES))
            else:
                yield name, number, size

    def _text(self, at: int) -> bytes:
        """The content of a label file."""
        if self._texts is None:
            return self.item(at).read(TEXT_BYTES)
        _, offset, size = self.facts[at].tolist()
        self._texts.flush()
        return os.pread(self._texts.fileno(), size, offset)

    def _sample(self, at: int, suffix: str | None = None) -> str:
        """The sample of a file: its tar, and its name up to the first dot, or to `suffix`."""
        folder, _, last = self.names[at].rpartition("/")
        key = last.partition(".")[0] if suffix is None else last.removesuffix(suffix)
        return f"{self.facts[at, 0]}:{folder}/{key}"

    def _images(self) -> list[int]:
        """The images; with `extension` those whose name goes on so after its first dot.

        Where none does, as `22.00.png` with `png`, those that end so: their keys have dots.
        """
        images = [at for at, name in enumerate(self.names) if is_image(name)]
        if self.config.extension is None:
            return images
        wanted = f".{self.config.extension}"
        ending = [at for at in images if self.names[at].endswith(wanted)]
        exact = [at for at in ending if "." not in self._last(at).removesuffix(wanted)]
        if not ending:
            raise JstarError(
                f"dataset.extension = {self.config.extension}: no image of {self.config.path} has "
                "it"
            )
        if exact:
            known = {self._sample(at) for at in exact}
            if strange := [at for at in ending if self._sample(at) not in known]:
                raise JstarError(
                    f"{self.item(strange[0]).label}: has a dot in its key, others have none; "
                    "dataset.extension cannot say which is meant, rename such files"
                )
        return exact or ending

    def _last(self, at: int) -> str:
        return self.names[at].rpartition("/")[2]

    def _rows(self, images: list[int]) -> dict[str, int]:
        """The row of each sample. Raises JstarError where one has several images."""
        rows: dict[str, int] = {}
        for row, at in enumerate(images):
            other = images[rows.setdefault(self._sample(at, self._suffix()), row)]
            if other != at:
                suffix = self.names[at].rpartition(".")[2]
                raise JstarError(
                    f"{self.item(other).label}: and '{self.names[at]}' are images of one sample, "
                    "whose key ends at the first dot; dataset.extension says which to read or "
                    f"what follows the key, for example extension: {suffix}"
                )
        return rows

    def _suffix(self) -> str | None:
        """What follows the key of an image: as `extension` says, or all from the first dot."""
        return f".{self.config.extension}" if self.config.extension else None

    # --- labels -----------------------------------------------------------------------------------

    def _labels(self, images: list[int], rows: dict[str, int]) -> NDArray[np.int64]:
        """The class of each image: of the .cls, else a field of the .json, else 0."""
        stated = self.config.labels
        if stated != "none":
            column = self.config.label_column
            there = any(name.endswith(".cls") for name in self.names)
            if stated != "json" and column is None and there:
                self.class_kind = "the .cls beside it"
                return self._each(images, self._marks(".cls", rows), ".cls", self._label)
            facts = self._marks(".json", rows)
            field = self._field(facts[facts >= 0])
            if field is not None:
                self.class_kind = f"field '{field}' of the .json beside it"
                return self._each(images, facts, ".json", lambda at: self._json_label(at, field))
            if stated == "json":
                raise JstarError(
                    f"dataset.labels = json: no .json in {self.config.path} holds a label; "
                    "dataset.label_column names its field"
                )
        return np.zeros(len(images), np.int64)

    def _marks(self, suffix: str, rows: dict[str, int]) -> NDArray[np.int64]:
        """Where the label file of each image stands; -1 where there is none."""
        marks = np.full(len(rows), -1, np.int64)
        for at, name in enumerate(self.names):
            if not name.endswith(suffix):
                continue
            row = rows.get(self._sample(at, suffix), rows.get(self._sample(at), -1))
            if row >= 0 and marks[row] >= 0:
                raise JstarError(
                    f"{self.item(at).label}: and '{self.names[marks[row]]}' label one sample, "
                    "whose key ends at the first dot; dataset.extension says what follows the key"
                )
            if row >= 0:
                marks[row] = at
        return marks

    def _each(
        self, images: list[int], marks: NDArray[np.int64], suffix: str, read: Callable[[int], int]
    ) -> NDArray[np.int64]:
        """The label of each image. Raises JstarError where an image has none."""
        labels = np.empty(len(images), np.int64)
        for row, at in enumerate(marks.tolist()):
            if at < 0:
                name = self.item(images[row]).label
                raise JstarError(f"{name}: has no label beside it ({suffix})")
            labels[row] = read(at)
        return labels

    def _label(self, at: int) -> int:
        item = self.item(at)
        try:
            return self._checked(int(self._text(at)), item.label)
        except ValueError as error:
            raise JstarError(f"{item.label}: must hold one integer, the class") from error

    def _checked(self, label: int, where: str) -> int:
        if not 0 <= label < 1 << 63:
            raise JstarError(
                f"{where}: holds the label {label}, allowed are classes from 0 on; "
                "dataset.labels: none takes no classes"
            )
        return label

    def _json(self, at: int) -> dict[str, Any]:
        item = self.item(at)
        try:
            found = json.loads(self._text(at))
        except (ValueError, RecursionError) as error:
            raise JstarError(f"{item.label}: is not valid JSON") from error
        return found if isinstance(found, dict) else {}

    def _field(self, facts: NDArray[np.int64]) -> str | None:
        """The field of the label, by the first .json that has a likely one.

        Raises JstarError where it may be several.
        """
        if self.config.label_column is not None:
            return self.config.label_column
        for at in facts.tolist():
            found = self._json(at)
            named = [key for key in found if FIELD.fullmatch(key)]
            likely = [key for key in named if type(found[key]) is int] or named
            if len(likely) > 1:
                raise JstarError(
                    f"{self.item(at).label}: has the fields {', '.join(likely)}; "
                    "dataset.label_column says which is the class, and dataset.labels: none takes "
                    "no classes"
                )
            if likely:
                return likely[0]
        return None

    def _json_label(self, at: int, field: str) -> int:
        facts, where = self._json(at), self.item(at).label
        if type(label := facts.get(field)) is not int:
            raise JstarError(
                f"{where}: its field '{field}' is {label!r}, a class is an integer; "
                "dataset.label_column names another, dataset.labels: none takes no classes"
            )
        return self._checked(label, where)


def _tars(config: DatasetConfig) -> tuple[list[Path], Facts]:
    """The tars of the wanted split, in the order of their names."""
    path = source_path(config)
    if path.is_file():
        return [path], ()
    tars = sorted(tar for end in (".tar", *PACKED) for tar in regular_files(path, f"*{end}"))
    if not tars:
        raise JstarError(f"{path}: holds no .tar or .tar.gz file")
    splits = [split_name(tar.name) for tar in tars]
    return [tars[at] for at in select_split(config, splits)], split_fact(config, splits)


def open_webdataset(config: DatasetConfig) -> Source:
    """A tar or a folder of tars, read in the order of their names."""
    tars, facts = _tars(config)
    index = SampleIndex(tars, config)
    facts += class_fact(index.class_kind)
    classes = int(index.labels_N.max(initial=0)) + 1
    if not index.packed:
        return file_source(config, index, index.labels_N, classes, facts=facts)
    decoding = Decoding(config.channels, config.size, False, config.max_pixels)
    first = next(packed_images(index.paths, index.facts[:1], decoding.max_bytes), None)
    shape = shape_of(config, None) if first is None else first_shape(*first, decoding)
    return Source(
        count=len(index.names), shape=shape,
        jobs=packed_jobs(index.paths, index.facts, index.labels_N, decoding, shape),
        identity=[index.identity(), zlib.crc32(index.labels_N.tobytes())],
        classes=classes, parallel=True, labels=lambda: index.labels_N,
        left_out=tuple(sorted(index.left_out.items())), facts=facts,
    )  # fmt: skip


def glance_webdataset(config: DatasetConfig) -> tuple[None, Shape]:
    """The shape of the first image; how many there are is not known before the tars are read."""
    suffix = f".{config.extension or ''}".rstrip(".")
    tars, _ = _tars(config)

    def wanted(name: str) -> bool:
        return is_image(name) and name.endswith(suffix)

    if any(is_packed(path) for path in tars):
        decoding = Decoding(config.channels, config.size, False, config.max_pixels)
        for path in tars:
            try:
                for name, _, read in packed_members(path):
                    if wanted(name):
                        data = read(decoding.max_bytes)
                        return None, first_shape(data, f"{path}, {name}", decoding)
            except TAR_DAMAGE as error:
                raise damaged(path, error, "a packed tar archive") from error
        return None, shape_of(config, None)
    found = (first_of_tar(path, wanted) for path in tars)
    return None, shape_of(config, next((item for item in found if item), None))


WEBDATASET = Reader(
    open_webdataset,
    glance_webdataset,
    DECODING_KEYS | {"split", "label_column", "extension"},
    ("json", "none"),
    "give a .tar or .tar.gz file or a folder of them",
)
