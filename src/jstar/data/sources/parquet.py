"""Hugging Face parquet files: image files in a column, read row group by row group."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jstar.config import DatasetConfig
from jstar.data.image import Decoding
from jstar.data.sources.base import (
    Job,
    Reader,
    Shape,
    Source,
    damaged,
    first_line,
    source_path,
    stamp,
)
from jstar.data.sources.decoding import BytesJob, first_shape
from jstar.errors import JstarError

IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels")


def is_parquet(config: DatasetConfig) -> bool:
    """Whether `path` is a parquet file or a folder of them."""
    path = source_path(config)
    return path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet")))


def _parts(config: DatasetConfig) -> list[Path]:
    """The file itself; or of a folder the training files, or else all."""
    path = source_path(config)
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise JstarError(f"{path}: holds no .parquet file")
    return [p for p in found if p.name.startswith("train")] or found


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
    return count, _shape(parts, Decoding(config.channels, config.size, convert=True))


def _shape(parts: list[Path], decoding: Decoding) -> Shape:
    for path in parts:
        for files, _ in _batches(path, 0, 1, 1):
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

    The column `image` (or `img`) holds image files, bare or as {bytes, path}; the column `label`,
    if any, integers.
    """
    parts = _parts(config)
    counts = [_open(path).metadata.num_rows for path in parts]
    decoding = Decoding(config.channels, config.size, convert)
    shape = _shape(parts, decoding)

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        first = 0
        for path, count in zip(parts, counts, strict=True):
            low, high = max(start - first, 0), min(stop - first, count)
            first += count
            if low < high:
                for files, labels in _batches(path, low, high, block):
                    labels_B = np.asarray(labels, np.int64)
                    yield BytesJob(files, f"{path}, rows from {low}", labels_B, decoding, shape)
                    low += len(files)

    return Source(
        count=sum(counts), shape=shape, jobs=jobs, identity=[stamp(path) for path in parts],
        classes=classes, parallel=True, license=license, citation=citation,
    )  # fmt: skip


def _batches(path: Path, start: int, stop: int, block: int) -> Iterator[tuple[list[bytes], Any]]:
    """(image files, labels) of the rows start..stop, one row group in memory at a time."""
    file = _open(path)
    image = _column(path, file, IMAGE_COLUMNS)
    label = next((c for c in LABEL_COLUMNS if c in file.schema_arrow.names), None)
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
            if not all(isinstance(value, int) for value in labels):
                raise JstarError(f"{path}: the column '{label}' must hold integers in every row")
            yield files, labels


def _column(path: Path, file: Any, allowed: tuple[str, ...]) -> str:
    found = [name for name in allowed if name in file.schema_arrow.names]
    if not found:
        raise JstarError(
            f"{path}: has no column '{allowed[0]}', found are {', '.join(file.schema_arrow.names)}"
        )
    return found[0]


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
    frozenset({"size", "channels", "vae", "channel_mean", "latent_std"}),
    "give a .parquet file or a folder of them",
)
