"""Hugging Face tables, parquet or save_to_disk: images in a column, read group by group."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.image import Decoding
from jstar.data.sources.base import (
    DECODING_KEYS,
    Job,
    Reader,
    Ready,
    Rows,
    Shape,
    Source,
    source_path,
    stamp,
)
from jstar.data.sources.decoding import BytesJob, first_shape
from jstar.data.sources.labels import (
    NO_CLASS,
    Facts,
    class_fact,
    select_split,
    split_fact,
    split_name,
)
from jstar.data.sources.tables import CACHE, Table, stored_pixels, table_files
from jstar.errors import JstarError

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "pixel_values")
LABEL_COLUMN = re.compile(r".*label.*|class(_id|es)?|cls|target", re.IGNORECASE)
PARQUET_KEYS = frozenset({"split", "image_column", "label_column"})
PARQUET_LABELS = ("column", "none")
SUFFIXES = (".parquet", ".arrow")


def is_parquet(config: DatasetConfig) -> bool:
    """Whether `path` is a parquet or Arrow file or a folder of them."""
    path = source_path(config)
    if path.is_dir():
        return any(next(path.rglob(f"*{end}"), None) for end in SUFFIXES)
    return path.suffix in SUFFIXES


def _parts(config: DatasetConfig) -> tuple[list[Path], int, Facts]:
    """The file itself, or of a folder the files of one split; how many were left out.

    Of ImageNet the training files, where the study does not ask for others.
    """
    path = source_path(config)
    if path.is_file():
        return [path], 0, ()
    found, left_out = table_files(path)
    if not found:
        raise JstarError(f"{path}: holds no {' or '.join(SUFFIXES)} file")
    splits = [split_name(p.relative_to(path).as_posix()) for p in found]
    if config.source == "imagenet" and config.split is None and "train" in splits:
        config = config.model_copy(update={"split": "train"})
    taken = [found[at] for at in select_split(config, splits)]
    return taken, len(left_out), split_fact(config, splits)


def glance_parquet(config: DatasetConfig) -> tuple[int, Shape]:
    """Rows of all files, from their footers, and the shape of the first image."""
    parts, _, _ = _parts(config)
    count = sum(Table(path).rows for path in parts)
    decoding = Decoding(config.channels, config.size, True, config.max_pixels)
    return count, _shape(parts, _columns(config, parts[0]), decoding)


def _shape(parts: list[Path], columns: "Columns", decoding: Decoding) -> Shape:
    """[C, H, W] of the first image."""
    for path in parts:
        for images, _ in _batches(path, columns, 0, 1, 1):
            if isinstance(images, list):
                return first_shape(images[0], f"{path}, row 0", decoding)
            channels, rows, width = images[0].shape
            if decoding.size is not None or channels != decoding.channels:
                raise JstarError(
                    f"{path}: the column '{columns.image}' holds pixels of {channels} channel(s), "
                    f"which are not converted or cropped; dataset.channels: {channels}, no size"
                )
            return channels, rows, width
    raise JstarError(f"{parts[0].parent}: the parquet files hold no row")


def open_parquet(
    config: DatasetConfig,
    *,
    convert: bool = False,
    classes: int | None = None,
    license: str = "as stated by its source",
    citation: str = "",
) -> Source:
    """The images of a parquet or Arrow file or folder, in the order of the files and rows.

    The column `image` (or `img` ...) holds image files, bare or as {bytes, path}, or 8-bit pixels;
    the column `label`, if any, integers. Raises JstarError where several columns could be meant.
    """
    parts, left_out, facts = _parts(config)
    columns = _columns(config, parts[0])
    counts = [Table(path).rows for path in parts]
    decoding = Decoding(config.channels, config.size, convert, config.max_pixels)
    shape = _shape(parts, columns, decoding)

    def all_labels() -> NDArray[np.int64]:
        return np.concatenate([_labels(path, columns) for path in parts])

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        first = 0
        for path, count in zip(parts, counts, strict=True):
            low, high = max(start - first, 0), min(stop - first, count)
            first += count
            if low < high:
                for images, labels in _batches(path, columns, low, high, block):
                    labels_B = np.asarray(labels, np.int64)
                    if isinstance(images, list):
                        names = [f"{path}, row {low + n}" for n in range(len(images))]
                        yield BytesJob(images, names, labels_B, decoding, shape)
                    else:
                        rows = _same(images, shape, f"{path}, rows from {low}")
                        yield Ready(Rows(rows, labels_B))
                    low += len(images)

    return Source(
        count=sum(counts), shape=shape, jobs=jobs, identity=[stamp(path) for path in parts],
        classes=classes if columns.label else 1, parallel=True, license=license,
        citation=citation, labels=all_labels,
        left_out=((f"{CACHE}*.arrow", left_out),) if left_out else (),
        facts=(*facts, ("image", f"column '{columns.image}'"),
               *class_fact(f"column '{columns.label}'" if columns.label else NO_CLASS)),
    )  # fmt: skip


def _same(images_BCHW: NDArray[np.uint8], shape: Shape, where: str) -> NDArray[np.uint8]:
    if images_BCHW.shape[1:] != shape:
        raise JstarError(
            f"{where}: images have shape {images_BCHW.shape[1:]}, the first image has {shape}"
        )
    return images_BCHW


def _batches(
    path: Path, columns: "Columns", start: int, stop: int, block: int
) -> Iterator[tuple[list[bytes] | NDArray[np.uint8], list[int]]]:
    """(image files or pixels, labels) of the rows start..stop."""
    table = Table(path)
    image, label = columns.image, columns.label
    table.require((image, label))
    for found in table.batches([image, *([label] if label else [])], start, stop, block):
        pixels = stored_pixels(path, image, found[0])
        images = [_content(path, c) for c in found[0].to_pylist()] if pixels is None else pixels
        labels = found[1].to_pylist() if label else [0] * len(images)
        yield images, _integers(path, label, labels)


def _labels(path: Path, columns: "Columns") -> NDArray[np.int64]:
    """The labels of a whole file, without its images."""
    table = Table(path)
    table.require((columns.image, columns.label))
    if columns.label is None:
        return np.zeros(table.rows, np.int64)
    return np.asarray(_integers(path, columns.label, table.column(columns.label)), np.int64)


def _integers(path: Path, label: str | None, values: list[Any]) -> list[int]:
    if not all(type(value) is int for value in values):
        raise JstarError(
            f"{path}: the column '{label}' must hold integers in every row; dataset.label_column "
            "names another, dataset.labels: none takes no classes"
        )
    if values and not 0 <= min(values) <= max(values) < 1 << 63:
        wrong = min(values) if min(values) < 0 else max(values)
        raise JstarError(
            f"{path}: the column '{label}' holds {wrong}, allowed are classes from 0 on; "
            "dataset.labels: none takes no classes"
        )
    return values


@dataclass(frozen=True)
class Columns:
    """The columns that are read; without `label` every image is of class 0."""

    image: str
    label: str | None


def _columns(config: DatasetConfig, path: Path) -> Columns:
    """The study's columns, or those of a usual name. Raises JstarError unless it is one each."""
    schema = Table(path).schema
    images = [name for name in schema.names if name in IMAGE_COLUMNS]
    image = _one(path, "image_column", config.image_column, images, schema.names)
    if image is None:
        raise JstarError(
            f"{path}: has no column '{IMAGE_COLUMNS[0]}', found are {', '.join(schema.names)}; "
            "dataset.image_column names it"
        )
    if config.labels == "none":
        return Columns(image, None)
    labels = [name for name in schema.names if name != image and LABEL_COLUMN.fullmatch(name)]
    # Beside the number of a class its name may stand, as text.
    numbers = [name for name in labels if "int" in str(schema.field(name).type)] or labels
    label = _one(path, "label_column", config.label_column, numbers, schema.names)
    if label is None and config.labels == "column":
        raise JstarError(
            f"dataset.labels = column: {path} has no column 'label', found are "
            f"{', '.join(schema.names)}; dataset.label_column names it"
        )
    return Columns(image, label)


def _one(
    path: Path, key: str, stated: str | None, likely: list[str], names: Sequence[str]
) -> str | None:
    if stated is not None:
        if stated not in names:
            raise JstarError(
                f"dataset.{key} = {stated}: {path} has no such column, found are "
                + ", ".join(names)
            )
        return stated
    if len(likely) > 1:
        raise JstarError(
            f"{path}: has the columns {', '.join(likely)}; dataset.{key} says which to read"
        )
    return likely[0] if likely else None


def _content(path: Path, cell: Any) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise JstarError(
            f"{path}: an image must be stored as bytes, found is {type(data).__name__}"
        )
    return data


PARQUET = Reader(
    open_parquet,
    glance_parquet,
    DECODING_KEYS | PARQUET_KEYS,
    PARQUET_LABELS,
    "give a .parquet or .arrow file or a folder of them",
)
