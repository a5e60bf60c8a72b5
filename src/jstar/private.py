"""Folders and files that no other user of the machine can have planted or may change.

A name in a shared folder can be taken first by anybody. So a folder is used only if it is this
user's and closed to others; a file is opened without following a link and without emptying it,
and used only if it is this user's (or root's) and others may not write to it.
"""

import os
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from jstar.errors import JstarError
from jstar.temporary import temporary

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def user_cache() -> Path | None:
    """$XDG_CACHE_HOME/jstar or ~/.cache/jstar, made or not; None: the user cannot write there."""
    # Without HOME and without a passwd entry "~" stays as it is; Path.home() would raise.
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    writable = os.access(base if os.path.exists(base) else base.parent, os.W_OK)
    return base / "jstar" if writable and base.is_absolute() else None


def private_folder(*candidates: Path) -> Path:
    """The first candidate that is, or can be made, a closed folder of this user.

    If none is: a fresh one, the same while this process lives, and a line on stderr that says why.
    """
    flaws = []
    for path in candidates:
        flaw = flaw_of(path)
        if flaw is None:
            return path
        flaws.append(flaw)
    return _fresh("; ".join(flaws))


def flaw_of(path: Path) -> str | None:
    """Why the folder `path`, made if it is missing, could be another user's; None: it could not.

    A sticky folder of this user or root will do: there nobody can remove another's file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        return f"{path} cannot be made ({error.strerror})"
    sticky = bool(found.st_mode & stat.S_ISVTX)
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is a link or a file, not a folder"
    if found.st_uid != os.geteuid() and not (sticky and found.st_uid == 0):
        return f"{path} belongs to another user (uid {found.st_uid})"
    if found.st_mode & OTHERS_WRITE and not sticky:
        return f"{path} can be written to by other users (mode {stat.S_IMODE(found.st_mode):o})"
    if not os.access(path, os.W_OK | os.X_OK):
        return f"{path} cannot be written to"
    return None


def open_private(path: Path, *, create: bool = False) -> int:
    """Descriptor of the file, never emptied and never through a link; `create`: also to write to.

    Raises FileNotFoundError, and JstarError where another user may have made or changed the file.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    try:  # O_NONBLOCK: a planted pipe must not stop us
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "is a link" if os.path.islink(path) else f"cannot be opened ({error.strerror})"
        raise JstarError(f"{path}: {what}; allowed is a file of this user") from error
    found = os.fstat(handle)
    if (
        stat.S_ISREG(found.st_mode)
        and found.st_uid in (os.geteuid(), 0)
        and not found.st_mode & OTHERS_WRITE
    ):
        return handle
    os.close(handle)
    raise JstarError(
        f"{path}: belongs to uid {found.st_uid} and has mode {stat.filemode(found.st_mode)}; "
        "allowed is a file of this user that others may not write to"
    )


def write_private(path: Path, content: bytes) -> None:
    """Put a file of mode 0600 in the place of whatever `path` is. Raises OSError."""
    with temporary(path) as (handle, name):
        with os.fdopen(handle, "wb", closefd=False) as file:  # the name may be another's by now
            file.write(content)
        name.replace(path)


@cache
def _fresh(flaws: str) -> Path:
    fresh = Path(tempfile.mkdtemp(prefix="jstar-"))
    print(f"jstar: {flaws}; {fresh} is used, by this process alone", file=sys.stderr)
    return fresh
