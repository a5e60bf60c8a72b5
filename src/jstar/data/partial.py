"""The dataset while it is being written: arrays of known size and a journal of what is done.

All of it lies in a folder `partial` inside the dataset's folder, until it is renamed into place.
After SIGKILL the journal says how many images are safe; a journal of another source is dropped.
"""

import fcntl
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.records import read_json, write_json

FOLDER, JOURNAL = "partial", "journal.json"
SHEET = "samples.png"  # the page of samples, in the dataset's folder


class ResumableError(JstarError):
    """An error after which the images written so far are kept: another call goes on there."""


class ArrayWriter:
    """A .npy file of fixed shape, written in any order through plain writes.

    Not memory-mapped: dirty pages would count as the process's memory, and a full disk would kill
    it instead of raising an error. The space is reserved when the file is made. Pickled, it opens
    the same file in the other process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.row = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if not path.exists():
            self._reserve()
        self.file = path.open("r+b")
        npy.read_magic(self.file)
        npy.read_array_header_1_0(self.file)
        self.start = self.file.tell()

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayWriter, (self.path, self.shape, self.dtype.str)

    def _reserve(self) -> None:
        with self.path.open("wb") as file:
            header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False}
            npy.write_array_header_1_0(file, {**header, "shape": self.shape})
            file.flush()
            size = file.tell() + self.shape[0] * self.row
            os.truncate(file.fileno(), size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)

    def write(self, at: int, rows: NDArray[Any]) -> None:
        """Write rows from row `at` on. Raises JstarError."""
        try:
            data = np.ascontiguousarray(rows, self.dtype).data.cast("B")
            place = self.start + at * self.row
            while data:
                done = os.pwrite(self.file.fileno(), data, place)
                data, place = data[done:], place + done
        except OSError as error:
            raise JstarError(f"{self.path}: cannot be written ({error.strerror})") from error

    def read(self, at: int, count: int) -> NDArray[Any]:
        """Rows at..at+count, read at their place: safe from several threads."""
        data = os.pread(self.file.fileno(), count * self.row, self.start + at * self.row)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def sync(self) -> None:
        """Everything written is on the disk afterwards. Raises JstarError."""
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise JstarError(f"{self.path}: cannot be written ({error.strerror})") from error

    def close(self) -> None:
        self.file.close()


class Partial:
    """The folder `out`/partial. Use as a context: an error of the user's leaves nothing behind."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / FOLDER
        self.arrays: dict[str, ArrayWriter] = {}
        self.done = 0
        self.traits: Counter[str] = Counter()
        self._key = ""
        self._made: list[Path] = []  # the folder and those around it that were not there

    def __enter__(self) -> "Partial":
        """Take the folder for this process alone. Raises JstarError if another one has it."""
        self._made = [self.out, *(path for path in self.out.parents if not path.exists())]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise JstarError(f"{self.out}: cannot be written ({error.strerror})") from error
        try:
            # Not flock: the decoding processes would inherit it and outlive this one.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise JstarError(
                f"{self.out}: another 'jstar prepare' is writing this dataset, wait for it to end"
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        for array in self.arrays.values():
            array.close()
        if kind is not None and issubclass(kind, JstarError) and kind is not ResumableError:
            self.remove()
        self._lock.close()

    def open(self, key: str, arrays: dict[str, tuple[tuple[int, ...], str]]) -> None:
        """Make the arrays {file name: (shape, dtype)}, or go on with those that `key` began.

        Raises JstarError if they do not fit on the disk.
        """
        self._key = key
        self.done, self.traits = self._resumable(key, arrays)
        if not self.done:
            for name in (*arrays, JOURNAL):
                (self.folder / name).unlink(missing_ok=True)
        try:
            for name, (shape, dtype) in arrays.items():
                self.arrays[name] = ArrayWriter(self.folder / name, shape, dtype)
        except OSError as error:
            need = sum(int(np.prod(s, dtype=np.int64)) * np.dtype(d).itemsize
                       for s, d in arrays.values())  # fmt: skip
            raise JstarError(
                f"{self.out}: cannot be written ({error.strerror}): {need / 1e9:.3g} GB are needed,"
                f" {shutil.disk_usage(self.folder).free / 1e9:.3g} GB are free"
            ) from error

    def _resumable(
        self, key: str, arrays: dict[str, tuple[tuple[int, ...], str]]
    ) -> tuple[int, Counter[str]]:
        names = (JOURNAL, *arrays)
        if not all((self.folder / name).is_file() for name in names):
            return 0, Counter()
        journal = read_json(self.folder / JOURNAL)
        if journal.get("key") != key:
            return 0, Counter()
        return int(journal["done"]), Counter(journal["traits"])

    def record(self, done: int, traits: Counter[str]) -> None:
        """Note that the first `done` images are safely on the disk. Raises JstarError."""
        for array in self.arrays.values():
            array.sync()
        self.done, self.traits = done, traits
        journal = {"key": self._key, "done": done, "traits": traits}
        write_json(self.folder / JOURNAL, journal)

    def publish(self) -> None:
        """Rename the arrays into place. The caller writes the card afterwards, last."""
        (self.out / "card.json").unlink(missing_ok=True)
        (self.out / SHEET).unlink(missing_ok=True)
        for prefix in ("", "holdout_"):
            for stem in ("images", "labels", "stds"):
                (self.out / f"{prefix}{stem}.npy").unlink(missing_ok=True)
        for name in self.arrays:
            (self.folder / name).replace(self.out / name)

    def remove(self) -> None:
        """Remove the folder, and those around it that were made for it and are empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._made:
            if not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()
