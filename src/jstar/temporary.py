"""Files that are being written: locked meanwhile, so that what a killed process left is told apart.

SIGKILL and power cuts leave the file that was being written, under a name of its own beside the one
that it was to have. Nobody would ever look there again.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def temporary(path: Path) -> Iterator[tuple[int, Path]]:
    """A private file beside `path` to be renamed to it: descriptor and name; gone if it is not.

    What killed processes left of the same file goes first. Raises OSError.
    """
    _remove_left(path)
    handle, name = _begin(path)
    try:
        yield handle, name
    finally:
        name.unlink(missing_ok=True)
        os.close(handle)


def _begin(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
        with suppress(OSError):  # a file system without locks: nothing is removed there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # before it was locked another process took it for one that was left


def _remove_left(path: Path) -> None:
    """Remove what was begun for `path` and is locked by nobody any more."""
    random = "[a-z0-9_]{8}"  # of mkstemp
    mine = re.compile(rf"\.{re.escape(path.stem)}\.{random}{re.escape(path.suffix)}")
    for name in filter(mine.fullmatch, os.listdir(path.parent)):
        with suppress(OSError):  # it is written right now, another's, or gone
            left = os.open(path.parent / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path.parent / name)
            finally:
                os.close(left)
