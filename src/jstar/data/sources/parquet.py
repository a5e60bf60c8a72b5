"""Hugging Face parquet files: image files in a column, read row group by row group."""

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
    Shape,
    Source,
    damaged,
    first_line,
    regular_files,
    source_path,
    stamp,
)
from jstar.data.sources.decoding import BytesJob, first_shape
from jstar.data.sources.labels import select_split, split_name
from jstar.errors import JstarError

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "pixel_values")
LABEL_COLUMN = re.compile(r".*label.*|class(_id|es)?|cls|target", re.IGNORECASE)
PARQUET_KEYS = frozenset({"split", "image_column", "label_column"})
PARQUET_LABELS = ("column", "none")


def is_parquet(config: DatasetConfig) -> bool:
    """Whether `path` is a parquet file or a folder of them."""
    path = source_path(config)
    return path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet")))


def _parts(config: DatasetConfig) -> list[Path]:
    """The file itself; or of a folder the files of one split.

    Of ImageNet the training files, where the study does not ask for others.
    """
    path = source_path(config)
    if path.is_file():
        return [path]
    found = regular_files(path, "**/*.parquet")
    if not found:
        raise JstarError(f"{path}: holds no .parquet file")
    splits = [split_name(p.relative_to(path).as_posix()) for p in found]
    if config.source == "imagenet" and config.split is None and "train" in splits:
        config = config.model_copy(update={"split": "train"})
    return [found[at] for at in select_split(config, splits)]


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise JstarError(
            f"{path}: reading parquet needs pyarrow, install it with: pip install 'jstar[parquet]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise JstarError(f"{path}: is not a parquet file ({first_line(error)})") from error


def glance_parquet(config: DatasetConfig) -> tuple[int, Shape]:
    """Rows of all files, from their footers, and the shape of the first image."""
    parts = _parts(config)
    count = sum(_open(path).metadata.num_rows for path in parts)
    decoding = Decoding(config.channels, config.size, True, config.max_pixels)
    return count, _shape(parts, _columns(config, parts[0]), decoding)


def _shape(parts: list[Path], columns: "Columns", decoding: Decoding) -> Shape:
    for path in parts:
        for files, _ in _batches(path, columns, 0, 1, 1):
            return first_shape(files[0], f"{path}, row 0", decoding)
    raise JstarError(f"{parts[0].parent}: the parquet files hold no row")


def open_parquet(
    config: DatasetConfig,
    *,
    convert: bool = False,
    classes: int | None = None,
    license: str = "as stated by its source",
    citation: str = "",
) -> Source:
    """The images of a parquet file or folder, in the order of the files and rows.

    The column `image` (or `img` ...) holds image files, bare or as {bytes, path}; the column
    `label`, if any, integers. Raises JstarError where several columns could be meant.
    """
    parts = _parts(config)
    columns = _columns(config, parts[0])
    counts = [_open(path).metadata.num_rows for path in parts]
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
                for files, labels in _batches(path, columns, low, high, block):
                    labels_B = np.asarray(labels, np.int64)
                    yield BytesJob(files, f"{path}, rows from {low}", labels_B, decoding, shape)
                    low += len(files)

    return Source(
        count=sum(counts), shape=shape, jobs=jobs, identity=[stamp(path) for path in parts],
        classes=classes if columns.label else 1, parallel=True, license=license,
        citation=citation, labels=all_labels,
    )  # fmt: skip


def _batches(
    path: Path, columns: "Columns", start: int, stop: int, block: int
) -> Iterator[tuple[list[bytes], Any]]:
    """(image files, labels) of the rows start..stop, one row group in memory at a time."""
    file = _open(path)
    image, label = columns.image, columns.label
    columns.require(path, file.schema_arrow.names)
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        low, high = max(start - first, 0), min(stop - first, count)
        first += count
        if low >= high:
            continue
        try:
            table = file.read_row_group(group, columns=[image, *([label] if label else [])])
        except (OSError, ValueError) as error:
            raise damaged(path, error) from error
        for at in range(low, high, block):
            rows = table.slice(at, min(block, high - at))
            files = [_content(path, cell) for cell in rows.column(image).to_pylist()]
            labels = rows.column(label).to_pylist() if label else [0] * len(files)
            yield files, _integers(path, label, labels)


def _labels(path: Path, columns: "Columns") -> NDArray[np.int64]:
    """The labels of a whole file, without its images."""
    file = _open(path)
    columns.require(path, file.schema_arrow.names)
    if columns.label is None:
        return np.zeros(file.metadata.num_rows, np.int64)
    try:
        values = file.read(columns=[columns.label]).column(columns.label).to_pylist()
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return np.asarray(_integers(path, columns.label, values), np.int64)


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

    def require(self, path: Path, names: Sequence[str]) -> None:
        """Raises JstarError where a file has other columns than the first."""
        for name in (self.image, self.label):
            if name is not None and name not in names:
                raise JstarError(f"{path}: has no column '{name}', found are {', '.join(names)}")


def _columns(config: DatasetConfig, path: Path) -> Columns:
    """The study's columns, or those of a usual name. Raises JstarError unless it is one each."""
    schema = _open(path).schema_arrow
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
    "give a .parquet file or a folder of them",
)
