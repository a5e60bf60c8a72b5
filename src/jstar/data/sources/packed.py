"""Tars packed with gzip: they can only be read from the front, which is done twice."""

import gzip
import itertools
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.data.image import Decoding
from jstar.data.sources.base import Job, Shape, damaged
from jstar.data.sources.decoding import BytesJob
from jstar.data.sources.index import PACKED, TAR_DAMAGE, each_member
from jstar.errors import JstarError

BUFFER = 1 << 20
Read = Callable[[int], bytes]  # the content, at most so many bytes


def is_packed(path: Path) -> bool:
    return path.name.endswith(PACKED)


def packed_members(path: Path) -> Iterator[tuple[str, int, Read]]:
    """(name, size, read) of every regular file; `read` it before the next is asked for.

    To its end, where gzip's check sum stands: a tar by itself does not say that it was cut short.
    Raises tarfile's and gzip's errors (TAR_DAMAGE).
    """
    with (gzip.open if is_packed(path) else open)(path, "rb") as file:
        with tarfile.open(fileobj=file, mode="r|", bufsize=BUFFER) as archive:
            for member in each_member(archive):
                if member.isfile():
                    yield member.name, member.size, _reader(path, archive, member)
        while file.read(BUFFER):
            pass


def _reader(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Read:
    def read(limit: int) -> bytes:
        if member.size > limit:
            raise JstarError(
                f"{path}, {member.name}: has {member.size} bytes, allowed are {limit}; where it is "
                "an image, dataset.max_pixels raises that"
            )
        stream = archive.extractfile(member)
        data = stream.read() if stream else b""
        if len(data) < member.size:
            raise EOFError(f"it ends inside '{member.name}'")
        return data

    return read


def packed_images(
    paths: Sequence[Path], facts_N3: NDArray[np.int64], limit: int
) -> Iterator[tuple[bytes, str]]:
    """(content, how an error names it) of the files (number of the tar, number in it, size)."""
    for tar, rows in itertools.groupby(facts_N3[:, :2].tolist(), key=lambda row: row[0]):
        path, wanted = paths[tar], [number for _, number in rows]
        at = 0
        try:
            for number, (name, _, read) in enumerate(packed_members(path)):
                if number == wanted[at]:
                    yield read(limit), f"{path}, {name}"
                    if (at := at + 1) == len(wanted):
                        break
        except TAR_DAMAGE as error:
            raise damaged(path, error, "a packed tar archive") from error
        if at < len(wanted):
            raise damaged(path, EOFError("it has fewer files than before"))


def packed_jobs(
    paths: Sequence[Path],
    facts_N3: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    decoding: Decoding,
    shape: Shape,
) -> Callable[[int, int, int], Iterator[Job]]:
    """`Source.jobs`: unpacked here, decoded by whoever runs the job."""

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        images = packed_images(paths, facts_N3[start:stop], decoding.max_bytes)
        for low in range(start, stop, block):
            labels_B = labels_N[low : min(low + block, stop)]
            found = list(itertools.islice(images, len(labels_B)))
            yield BytesJob(
                [data for data, _ in found], [name for _, name in found], labels_B, decoding, shape
            )

    return jobs
