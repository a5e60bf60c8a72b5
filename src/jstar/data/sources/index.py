"""Where each image file of a folder, zip or tar lies: compact, so that millions fit in memory."""

import heapq
import os
import struct
import tarfile
import zlib
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jstar.data.sources.base import damaged, stamp
from jstar.errors import JstarError

STORED, DEFLATED = 0, 8
LIMIT = 1 << 28  # bytes of a file that is no image: latents, labels
HIDDEN, LINKED = "hidden", "a link to a folder already read"  # reasons to leave something out
_END, _END64_LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
# A header may promise more than there is memory or than an offset can say.
TAR_DAMAGE = (tarfile.TarError, OSError, EOFError, MemoryError, OverflowError, zlib.error)
PACKED = (".tar.gz", ".tgz")  # read from the front only, and only by the source webdataset
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


class Item(NamedTuple):
    """One file: `size` bytes at `offset` of `path`; size -1 means all of it."""

    path: str
    name: str
    offset: int = 0
    size: int = -1
    packing: int = STORED
    crc: int | None = None  # a zip's check sum; its data begin after a local header at `offset`
    unpacked: int = -1  # bytes a zip promises of it

    def read(self, limit: int = LIMIT) -> bytes:
        """The file's content, at most `limit` bytes.

        Raises JstarError where it is damaged or longer: before memory is taken.
        """
        try:
            with open(self.path, "rb", buffering=0) as file:
                end = os.fstat(file.fileno()).st_size
                length = max(self.size, self.unpacked) if self.size >= 0 else end
                if length > limit:
                    raise JstarError(
                        f"{self.label}: has {length} bytes unpacked, allowed are {limit}; where "
                        "it is an image, dataset.max_pixels raises that"
                    )
                if self.size < 0:
                    return file.readall()
                if self.size > end - self.offset:
                    raise EOFError("the archive ends early")
                start = self.offset
                if self.crc is not None:
                    head = os.pread(file.fileno(), 30, start)
                    if head[:4] != _LOCAL:
                        raise EOFError("no local header")
                    start += 30 + sum(struct.unpack("<HH", head[26:30]))
                data = os.pread(file.fileno(), self.size, start)
            if len(data) < self.size:
                raise EOFError("the archive ends early")
            if self.packing == DEFLATED:
                data = zlib.decompressobj(-15).decompress(data, self.unpacked + 1)
                if len(data) != self.unpacked:
                    raise EOFError("its length is not what the directory says")
            if self.crc is not None and zlib.crc32(data) != self.crc:
                raise EOFError("its check sum differs")
        except (OSError, EOFError, zlib.error, struct.error) as error:
            raise damaged(self.label, error) from error
        return data

    @property
    def label(self) -> str:
        """How an error names the file."""
        return self.name if self.size < 0 else f"{self.path}, {self.name}"


class Index(ABC):
    """File names in a fixed order, and how to read each."""

    names: list[str]  # relative, with forward slashes
    facts: NDArray[Any]  # where each lies in an archive: one row a name

    def __init__(self, keep: Callable[[str], bool]) -> None:
        self.left_out: Counter[str] = Counter()  # by suffix, or why
        self._wanted = keep

    @abstractmethod
    def items(self, start: int, stop: int) -> list[Item]: ...

    @abstractmethod
    def identity(self) -> Any: ...

    def item(self, at: int) -> Item:
        return self.items(at, at + 1)[0]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the files at `rows`."""
        self.names = [self.names[at] for at in rows]
        self.facts = self.facts[np.asarray(rows, np.int64)]

    def _kept(self, name: str) -> bool:
        """Whether the file is wanted; one that is not is counted."""
        if self._wanted(name):
            return True
        if not name.endswith("/"):  # a zip's folder
            last = name.rpartition("/")[2]
            self.left_out[HIDDEN if is_hidden(name) else PurePosixPath(last).suffix.lower()] += 1
        return False


def is_hidden(name: str) -> bool:
    """Whether a file or a folder it lies in is hidden: .ipynb_checkpoints, __MACOSX, .x.png."""
    return any((p.startswith(".") and p != ".") or p == "__MACOSX" for p in name.split("/"))


def open_index(path: Path, keep: Callable[[str], bool]) -> Index:
    """Index the files of a folder, .zip or .tar whose name passes `keep`, sorted by name.

    Raises JstarError for an archive that is damaged or whose names point outside of it.
    """
    if path.is_dir():
        return FolderIndex(path, keep)
    if path.suffix == ".zip":
        return ZipIndex(path, keep)
    if path.suffix == ".tar":
        return TarIndex([path], keep)
    remedy = f"; unpack it first: gunzip {path.name}" if path.name.endswith(PACKED) else ""
    raise JstarError(f"{path}: is no folder, .zip or .tar of image files{remedy}")


class FolderIndex(Index):
    """The files below a folder."""

    def __init__(self, root: Path, keep: Callable[[str], bool]) -> None:
        super().__init__(keep)
        self.root = root
        self.names = sorted(self._walk())
        self.facts = np.empty((len(self.names), 0))

    def items(self, start: int, stop: int) -> list[Item]:
        paths = (os.path.join(self.root, name) for name in self.names[start:stop])
        return [Item(path, path) for path in paths]

    def identity(self) -> Any:
        crc = 0
        for name in self.names:
            crc = zlib.crc32(name.encode("utf-8", "surrogateescape"), crc)
        return [str(self.root), len(self.names), crc]

    def _walk(self) -> Iterator[str]:
        """Names of the wanted files. Links are followed last, and no folder is read twice.

        Raises JstarError for a wanted file that is not a regular one, and an unreadable folder.
        """
        seen = {_inode(folder) for folder in self.root.resolve().parents}
        waiting = [(False, "")]  # whether a link leads there, folder
        while waiting:
            _, inside = heapq.heappop(waiting)
            folder = os.path.join(self.root, inside)
            try:
                if (inode := _inode(folder)) in seen:
                    self.left_out[LINKED] += 1
                    continue
                seen.add(inode)
                entries = list(os.scandir(folder))
            except OSError as error:
                raise JstarError(f"{folder}: cannot be read ({error.strerror})") from error
            for entry in entries:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir():
                    if is_hidden(entry.name):
                        self.left_out[HIDDEN] += 1
                    else:
                        heapq.heappush(waiting, (entry.is_symlink(), name))
                elif self._kept(name):
                    if not entry.is_file():
                        raise JstarError(f"{entry.path}: is not a regular file, no other is read")
                    yield name


def _inode(path: str | Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


class ZipIndex(Index):
    """The files of a zip, from its central directory alone (with its 64-bit extension)."""

    def __init__(self, path: Path, keep: Callable[[str], bool]) -> None:
        super().__init__(keep)
        self.path = path
        try:
            found = [e for e in _zip_entries(path) if _inside(path, e[0]) and self._kept(e[0])]
        except (OSError, struct.error, EOFError, UnicodeDecodeError) as error:
            raise damaged(path, error, "a zip archive") from error
        found.sort()
        self.names = [entry[0] for entry in found]
        self.facts = np.array([entry[1] for entry in found], _ZIP_FACTS)

    def items(self, start: int, stop: int) -> list[Item]:
        path, names = str(self.path), self.names[start:stop]
        facts = self.facts[start:stop].tolist()
        for name, (_, _, packing, _, _) in zip(names, facts, strict=True):
            if packing not in (STORED, DEFLATED):
                raise JstarError(
                    f"{path}, {name}: is packed with method {packing}, "
                    "allowed are stored and deflated"
                )
        return [Item(path, name, *fact) for name, fact in zip(names, facts, strict=True)]

    def identity(self) -> Any:
        return stamp(self.path)


_ZIP_FACTS = np.dtype(
    [("offset", "<i8"), ("size", "<i8"), ("packing", "<u2"), ("crc", "<u4"), ("unpacked", "<i8")]
)
ZipFacts = tuple[int, int, int, int, int]


def _zip_entries(path: Path) -> Iterator[tuple[str, ZipFacts]]:
    """(name, (offset, packed size, method, crc, size)) of every member; none is kept an object."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        tail_start = file.seek(max(0, length - 22 - 0xFFFF))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0:
            raise EOFError("its directory is missing")
        total, _, start = struct.unpack("<HII", tail[at + 10 : at + 20])
        if total == _FULL16 or start == _FULL32:
            file.seek(tail_start + at - 20)
            locator = file.read(20)
            if locator[:4] == _END64_LOCATOR:
                file.seek(struct.unpack("<Q", locator[8:16])[0])
                record = file.read(56)
                if record[:4] != _END64:
                    raise EOFError("its 64-bit directory is missing")
                total, _, start = struct.unpack("<QQQ", record[32:56])
        file.seek(start)
        for _ in range(total):
            yield _zip_entry(file.read(46), file)


def _zip_entry(head: bytes, file: Any) -> tuple[str, ZipFacts]:
    if head[:4] != _ENTRY:
        raise EOFError("its directory is cut short")
    flags, packing = struct.unpack("<HH", head[8:12])
    crc, size, unpacked, name_size, extra_size, note_size = struct.unpack("<IIIHHH", head[16:34])
    offset = struct.unpack("<I", head[42:46])[0]
    name = file.read(name_size).decode("utf-8" if flags & 0x800 else "cp437")
    extra = file.read(extra_size)
    file.seek(note_size, os.SEEK_CUR)
    if flags & 1:
        raise EOFError(f"'{name}' is encrypted")
    while len(extra) >= 4:
        kind, width = struct.unpack("<HH", extra[:4])
        if kind == 1:  # 64-bit values stand here in this order, for the fields that are full
            wide = iter(struct.unpack(f"<{width // 8}Q", extra[4 : 4 + width // 8 * 8]))
            unpacked = next(wide, 0) if unpacked == _FULL32 else unpacked
            size = next(wide, 0) if size == _FULL32 else size
            offset = next(wide, 0) if offset == _FULL32 else offset
        extra = extra[4 + width :]
    if max(offset, size, unpacked) >= 1 << 63:
        raise EOFError(f"'{name}' is said to be larger than any file")
    return name, (offset, size, packing, crc, unpacked)


class TarIndex(Index):
    """The files of one or several tars; a tar of tars, as ImageNet's, counts as one tree."""

    def __init__(
        self, paths: Iterable[Path], keep: Callable[[str], bool], in_order: bool = False
    ) -> None:
        super().__init__(keep)
        self.paths = list(paths)
        self.names, facts = [], array("q")  # a tuple a file would be most of the memory
        for number, path in enumerate(self.paths):
            try:
                for name, offset, size in self._members(path):
                    if _inside(path, name) and self._kept(name):
                        self.names.append(name)
                        facts.extend((number, offset, size))
            except TAR_DAMAGE as error:
                raise damaged(path, error, "a tar archive") from error
        self.facts = np.array(facts, np.int64).reshape(-1, 3)
        if not in_order:
            self.select(sorted(range(len(self.names)), key=self.names.__getitem__))

    def _members(self, path: Path) -> Iterator[tuple[str, int, int]]:
        """(name, offset, size) of every file of a tar."""
        return _tar_members(path)

    def items(self, start: int, stop: int) -> list[Item]:
        paths = [str(path) for path in self.paths]
        facts = zip(self.names[start:stop], self.facts[start:stop].tolist(), strict=True)
        return [Item(paths[number], name, offset, size) for name, (number, offset, size) in facts]

    def identity(self) -> Any:
        return [stamp(path) for path in self.paths]


def first_of_tar(path: Path, keep: Callable[[str], bool]) -> Item | None:
    """The first file of a tar that passes `keep`: without reading on."""
    try:
        for name, offset, size in _tar_members(path):
            if _inside(path, name) and keep(name):
                return Item(str(path), name, offset, size)
    except TAR_DAMAGE as error:
        raise damaged(path, error, "a tar archive") from error
    return None


def _tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every regular file, one level into inner tars."""
    end = path.stat().st_size
    with tarfile.open(path, "r:") as archive:
        for member in each_member(archive):
            if member.isfile() and member.name.endswith(".tar"):
                folder = PurePosixPath(member.name).with_suffix("")
                with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
                    for part in each_member(inner):
                        if part.isfile():
                            yield (
                                f"{folder}/{part.name}",
                                member.offset_data + part.offset_data,
                                (part.size),
                            )
            elif member.isfile():
                if member.offset_data + member.size > end:
                    raise EOFError(f"it ends inside '{member.name}'")
                yield member.name, member.offset_data, member.size


def each_member(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Iterate without the list of members that tarfile keeps: a kilobyte a file."""
    while (member := archive.next()) is not None:
        yield member
        archive.members = []  # type: ignore[attr-defined]


def _inside(path: Path, name: str) -> bool:
    """True. Raises JstarError if the member's name leads out of the archive."""
    if (
        name.startswith(("/", "\\"))
        or ".." in name.replace("\\", "/").split("/")
        or ":" in name[:2]
    ):
        raise JstarError(
            f"{path}: holds a file named '{name}', which lies outside of the archive; "
            "such an archive is not read"
        )
    return True


def ranks(values: list[str]) -> tuple[NDArray[np.int64], int]:
    """Rank of each value among the sorted distinct ones, and how many there are."""
    classes = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return np.fromiter((classes[v] for v in values), np.int64, len(values)), len(classes)
