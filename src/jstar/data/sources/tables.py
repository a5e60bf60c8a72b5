"""Columns of parquet files and of Arrow files, as Hugging Face's `save_to_disk` writes those."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.data.sources.base import damaged, first_line, regular_files
from jstar.errors import JstarError

STATE = "state.json"  # of save_to_disk: which files belong to the set
CACHE = "cache-"  # how names of intermediate results of `datasets` begin


class Table:
    """One file: rows in groups, of which one is in memory at a time. Raises JstarError."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.ipc
            import pyarrow.parquet
        except ImportError:
            raise JstarError(
                f"{path}: reading parquet needs pyarrow, install it with: "
                "pip install 'jstar[parquet]'"
            ) from None
        self.path = path
        self._file = self._batches = None
        try:
            if path.suffix == ".parquet":
                self._file = pyarrow.parquet.ParquetFile(path)
                self.schema = self._file.schema_arrow
                counts = [
                    self._file.metadata.row_group(n).num_rows
                    for n in range(self._file.num_row_groups)
                ]
            else:  # mapped: a batch is read when its cells are
                stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
                self._batches, self.schema = list(stream), stream.schema
                counts = [batch.num_rows for batch in self._batches]
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            kind = "a parquet" if path.suffix == ".parquet" else "an Arrow stream"
            raise JstarError(f"{path}: is not {kind} file ({first_line(error)})") from error
        self.counts: list[int] = counts

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def require(self, names: Sequence[str | None]) -> None:
        """Raises JstarError where a column is missing."""
        for name in names:
            if name is not None and name not in self.names:
                found = ", ".join(self.names)
                raise JstarError(f"{self.path}: has no column '{name}', found are {found}")

    def batches(
        self, columns: Sequence[str], start: int, stop: int, block: int
    ) -> Iterator[list[Any]]:
        """The columns of the rows start..stop, at most `block` at a time."""
        first = 0
        for group, count in enumerate(self.counts):
            low, high = max(start - first, 0), min(stop - first, count)
            first += count
            if low >= high:
                continue
            table = self._group(group, columns)
            for at in range(low, high, block):
                rows = table.slice(at, min(block, high - at))
                yield [_storage(rows.column(name)) for name in columns]

    def column(self, name: str) -> list[Any]:
        """All its values."""
        return [
            value
            for (part,) in self.batches([name], 0, self.rows, max(self.rows, 1))
            for value in part.to_pylist()
        ]

    def _group(self, group: int, columns: Sequence[str]) -> Any:
        import pyarrow

        try:
            if self._file is not None:
                return self._file.read_row_group(group, columns=list(columns))
            assert self._batches is not None
            table = pyarrow.Table.from_batches([self._batches[group]]).select(list(columns))
            table.validate(full=True)  # a cell of a mapped file must not point beyond it
        except (OSError, ValueError) as error:
            raise damaged(self.path, error) from error
        return table


def _storage(column: Any) -> Any:
    """One array of the plain values; an array type of `datasets` is one where that is imported."""
    import pyarrow

    array = column.combine_chunks()
    if isinstance(array, pyarrow.ChunkedArray):
        array = array.chunk(0)
    return array.storage if isinstance(array.type, pyarrow.ExtensionType) else array


def stored_pixels(path: Path, column: str, array: Any) -> NDArray[np.uint8] | None:
    """Pixels [B, C, H, W] of nested lists, [H, W, C], [C, H, W] or [H, W]; None of other cells.

    Raises JstarError unless they are 8-bit and of one shape.
    """
    import pyarrow.compute as compute
    import pyarrow.types as types

    shape, kind = [len(array)], array.type
    while types.is_list(array.type) or types.is_fixed_size_list(array.type):
        lengths = compute.list_value_length(array).unique().to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise JstarError(f"{path}: the images of the column '{column}' differ in shape")
        shape.append(lengths[0])
        array = array.flatten()
    if len(shape) == 1:
        return None
    if len(shape) == 3:
        shape.append(1)
    last, first = shape[-1] in (1, 3), shape[1] in (1, 3)
    if not types.is_uint8(array.type) or array.null_count or len(shape) != 4 or last == first:
        raise JstarError(
            f"{path}: the column '{column}' holds {kind} of shape {tuple(shape[1:])}, allowed are "
            "image files, or uint8 pixels [H, W, C] or [C, H, W]"
        )
    pixels: NDArray[np.uint8] = array.to_numpy().reshape(shape)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if last else pixels)


# --- files of a folder ----------------------------------------------------------------------------


def table_files(path: Path) -> tuple[list[Path], list[Path]]:
    """Parquet or Arrow files below a folder, in the order of the set, and those left out.

    Raises JstarError where it holds both kinds, or a set that save_to_disk keeps by an index.
    """
    parquet = regular_files(path, "**/*.parquet")
    arrow = regular_files(path, "**/*.arrow")
    if parquet and arrow:
        raise JstarError(f"{path}: holds .parquet and .arrow files; dataset.path may name one")
    taken = [file for file in arrow if not file.name.startswith(CACHE)]
    for state in regular_files(path, f"**/{STATE}"):
        listed = _listed(state)
        taken = [file for file in taken if file.parent != state.parent] + listed
    return parquet or taken, [file for file in arrow if file not in set(taken)]


def _listed(state: Path) -> list[Path]:
    """The files of a set that save_to_disk wrote. Raises JstarError."""
    try:
        facts = json.loads(state.read_text(encoding="utf-8"))
        names = [str(file["filename"]) for file in facts["_data_files"]]
        indices = facts.get("_indices_data_files") or facts.get("_indices_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JstarError(f"{state}: is not the {STATE} of save_to_disk") from error
    if indices:
        raise JstarError(
            f"{state}: its set is a selection of rows; dataset.flatten_indices() before "
            "save_to_disk writes them out"
        )
    files = [state.parent / name for name in names]
    for name, file in zip(names, files, strict=True):
        if Path(name).name != name or not file.is_file():
            raise JstarError(f"{state}: names the file '{name}', which is not beside it")
    return files
