"""What every reader returns: a `Source`, opened but not yet read."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.errors import JstarError
from jstar.records import fingerprint

PIXEL_OFFSET, PIXEL_SCALE = 127.5, 1 / 127.5  # 8-bit pixels to -1..1


# Keys of the study that every reader of image files takes.
DECODING_KEYS = frozenset(
    {"size", "channels", "max_pixels", "vae", "channel_mean", "latent_std", "posterior"}
)
Shape = tuple[int, int, int]  # C, H, W


@dataclass(frozen=True)
class Rows:
    """Consecutive images of a source, in the stored unit, with their labels.

    `stds` are the component standard deviations of sampled latents, in the same unit.
    """

    images_BCHW: NDArray[Any]
    labels_B: NDArray[np.int64]
    stds_BCHW: NDArray[Any] | None = None
    traits: Mapping[str, int] = field(default_factory=dict)  # what is counted of the files


class Job(Protocol):
    """Some rows still to be read: how many they are is known before."""

    def __len__(self) -> int: ...
    def __call__(self) -> Rows: ...


@dataclass(frozen=True)
class Ready:
    """A job whose rows are at hand."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows.labels_B)

    def __call__(self) -> Rows:
        return self.rows


@dataclass(frozen=True)
class Source:
    """A dataset as it is distributed. `jobs(start, stop, block)` yields its images in order.

    Each job gives at most `block` rows; rows from `start` on are reached without decoding those
    before. `parallel` jobs can be pickled and are worth another process; the others have read
    their rows already. `identity` changes whenever the files do.
    """

    count: int
    shape: Shape  # as stored
    jobs: Callable[[int, int, int], Iterator[Job]]
    identity: Any
    labels: Callable[[], NDArray[np.int64]]  # of all images, read without them
    dtype: str = "uint8"
    offset: float = PIXEL_OFFSET
    scale: float = PIXEL_SCALE
    classes: int | None = None  # None: as many as the largest label says
    sampled: bool = False
    latents: str = ""  # what latents hold: means, Gaussians, draws; empty for pixels
    channel_mean: tuple[float, ...] = ()
    channel_std: tuple[float, ...] = ()
    parallel: bool = False
    decoded_bytes: int = 0  # of one image on the way, where that is more than what is stored
    finish: Callable[[Rows], Rows] | None = None  # done to all rows, in this process (a VAE)
    encoder: str = ""
    left_out: tuple[tuple[str, int], ...] = ()  # (suffix or reason, files) that are not read
    facts: tuple[tuple[str, str], ...] = ()  # what was recognised: (split, train), (class, folder)
    license: str = "as stated by its source"
    citation: str = ""


@dataclass(frozen=True)
class Reader:
    """One format: how to open it, how to glance at it, and which keys of the study it takes.

    `glance` gives (N, (C, H, W)) from headers and names alone; N is None where only reading a
    whole archive would tell. `published` is the same from the literature, for a set whose files
    are not there yet. `where` is what the error says of a path that is missing.
    """

    open: Callable[[DatasetConfig], Source]
    glance: Callable[[DatasetConfig], tuple[int | None, Shape]]
    keys: frozenset[str] = frozenset()  # of those that not every reader takes
    labels: tuple[str, ...] = ()  # what dataset.labels may say
    where: str = "put the data there"
    published: Callable[[DatasetConfig], tuple[int, Shape]] | None = None
    needs_path: bool = True
    free: bool = False  # whether it is downloaded where the study names no path
    flips: bool = False  # with dataset.mirror each image is followed by its mirrored one

    @property
    def decodes(self) -> bool:
        """Whether it reads image files, which are worth worker processes."""
        return "size" in self.keys


def source_path(config: DatasetConfig) -> Path:
    """`dataset.path`, which is known to exist."""
    return Path(config.path or "")


def regular_files(folder: Path, pattern: str) -> list[Path]:
    """Files below `folder` that match, sorted; hidden ones and those in hidden folders are not.

    Raises JstarError for a pipe or another thing that is no regular file.
    """
    found = []
    for path in sorted(folder.glob(pattern)):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or path.is_dir():
            continue
        found.append(regular(path))
    return found


def regular(path: Path) -> Path:
    """The path itself. Raises JstarError where it is a pipe, a device or a link to nothing."""
    if not path.is_file():
        raise JstarError(f"{path}: is not a regular file, no other is read")
    return path


def stamp(path: Path) -> list[Any]:
    """What tells that a file changed, without reading it."""
    facts = path.stat()
    return [str(path), facts.st_size, facts.st_mtime_ns]


def tree_stamp(path: Path) -> str:
    """Fingerprint of the names, sizes and times of a file, or of all files below a folder.

    A million files take seconds: none is read. Hidden ones are not looked at, no reader takes them.
    Raises JstarError where a folder cannot be listed.
    """
    if not path.is_dir():
        return fingerprint(stamp(path)[1:])
    digest, seen = hashlib.sha256(), set()
    try:
        for folder, inside, names in os.walk(path, followlinks=True, onerror=_refuse_folder):
            facts = os.stat(folder)
            place = (facts.st_dev, facts.st_ino)
            # Links may lead in a circle: no folder is walked twice.
            inside[:] = [] if place in seen else sorted(n for n in inside if n[0] != ".")
            for name in sorted(n for n in names if place not in seen and n[0] != "."):
                file = os.path.join(folder, name)
                found = os.stat(file) if os.path.exists(file) else os.lstat(file)
                known = [os.path.relpath(file, path), found.st_size, found.st_mtime_ns]
                digest.update(repr(known).encode())
            seen.add(place)
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:16]


def _refuse_folder(error: OSError) -> None:
    raise error


def in_memory(images_NCHW: NDArray[Any], labels_N: NDArray[Any]) -> Callable[..., Iterator[Job]]:
    """`Source.jobs` of a set that is small enough to be held."""
    labels = labels_N.astype(np.int64)

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        for low in range(start, stop, block):
            rows = slice(low, min(low + block, stop))
            yield Ready(Rows(images_NCHW[rows], labels[rows]))

    return jobs


def same_length(path: Path, images: int, labels: int) -> None:
    """Refuse a source whose labels do not match its images. Raises JstarError."""
    if images != labels:
        raise JstarError(f"{path}: has {images} images but {labels} labels")


def first_line(error: Exception) -> str:
    """What a library says, cut to one line: an error is one sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":. ")


def damaged(where: object, error: Exception, kind: str = "") -> JstarError:
    """The error of a file that cannot be read to its end, or is not of its kind at all."""
    other = f", or not {kind}" if kind else ""
    return JstarError(f"{where}: is damaged or cut short{other} ({first_line(error)})")
