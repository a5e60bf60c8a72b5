"""NumPy files: .npz and .npy, streamed row by row, never loaded whole and never unpickled."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import (
    Job,
    Reader,
    Ready,
    Rows,
    Shape,
    Source,
    damaged,
    same_length,
    source_path,
    stamp,
)
from jstar.data.sources.latents import AS_GIVEN, GAUSSIANS, MEANS, Scaling, latent_rows
from jstar.errors import JstarError

DEFLATE_RATIO = 1032  # the most that deflate can pack
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError)


@dataclass(frozen=True)
class ArrayFile:
    """One array of a .npz (`member` names it) or a .npy (`member` is empty)."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def open(cls, path: Path, member: str) -> "ArrayFile":
        """Read the header only. Raises JstarError if it is no array of plain numbers."""
        try:
            with _stream(path, member) as stream:
                shape, fortran, dtype = _header(stream)
                start = stream.tell()
            size = _size(path, member)
        except KeyError:
            found = ", ".join(members(path))
            raise JstarError(f"{path}: holds no array '{member}', found are {found}") from None
        except DAMAGE as error:
            raise JstarError(f"{path}: is not a .npz archive of plain arrays") from error
        if (fortran and len(shape) > 1) or dtype.kind not in "biuf":
            raise JstarError(
                f"{path}: the array '{member}' is {dtype} in Fortran order={fortran}, "
                "allowed are plain numbers in C order"
            )
        row = math.prod(shape[1:]) * dtype.itemsize
        if min(shape, default=1) < 1:
            raise JstarError(
                f"{path}: the array '{member}' has shape {shape}, no axis may be empty"
            )
        if size < start + math.prod(shape[:1]) * row:  # before memory is taken for so many
            raise damaged(path, EOFError(f"row {max(size - start, 0) // row} is missing"))
        return cls(path, member, shape, dtype)

    def blocks(self, start: int, stop: int, block: int) -> Iterator[NDArray[Any]]:
        """Rows start..stop, at most `block` at a time. Raises JstarError where the file is cut."""
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        try:
            with _stream(self.path, self.member) as stream:
                _header(stream)
                stream.seek(stream.tell() + start * row)
                for low in range(start, stop, block):
                    rows = min(block, stop - low)
                    data = stream.read(rows * row)
                    if len(data) < rows * row:
                        raise EOFError(f"row {low + len(data) // max(row, 1)} is missing")
                    yield np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
        except DAMAGE as error:
            raise damaged(self.path, error) from error

    def read(self) -> NDArray[Any]:
        """The whole array: for labels."""
        return next(self.blocks(0, self.shape[0], max(self.shape[0], 1)), np.empty(0, self.dtype))


def _size(path: Path, member: str) -> int:
    """Bytes that the array's file can have: of a .npz what its directory and packing allow."""
    size = path.stat().st_size
    if not member:
        return size
    with zipfile.ZipFile(path) as archive:
        facts = archive.getinfo(f"{member}.npy")
    return min(facts.file_size, DEFLATE_RATIO * min(facts.compress_size, size))


def members(path: Path) -> list[str]:
    """Names of the arrays in a .npz; none for a .npy. Raises JstarError if it is neither."""
    if path.suffix == ".npy":
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except DAMAGE as error:
        raise JstarError(f"{path}: is not a .npz archive of plain arrays") from error


@contextmanager
def _stream(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            yield file


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in read:
        raise ValueError(f"unknown .npy version {version}")
    return read[version](stream)


# --- the source npz -------------------------------------------------------------------------------


def _arrays(config: DatasetConfig) -> tuple[ArrayFile, ArrayFile | None, ArrayFile | None]:
    """Images or latents, and where the file has them labels and standard deviations."""
    path = source_path(config)
    found = members(path)
    if path.suffix == ".npy":
        return ArrayFile.open(path, ""), None, None
    # ADM's image_sample.py saves without names: NumPy makes arr_0 of its images, arr_1 of classes.
    unnamed = "arr_0" in found and not {"images", "latents", "labels"} & set(found)
    image, label = ("arr_0", "arr_1") if unnamed else ("images", "labels")
    images = ArrayFile.open(path, "latents" if "latents" in found else image)
    labels = ArrayFile.open(path, label) if label in found else None
    stds = ArrayFile.open(path, "stds") if {"stds", "latents"} <= set(found) else None
    return images, labels, stds


def glance_npz(config: DatasetConfig) -> tuple[int, Shape]:
    images = _arrays(config)[0]
    count, *shape = images.shape if len(images.shape) == 4 else (*images.shape, 1, 1, 1)[:4]
    first, second, third = shape
    return count, (first, second, third) if images.dtype.kind == "f" else (third, first, second)


def open_npz(config: DatasetConfig) -> Source:
    """A .npz with `images` uint8 [N,H,W,C] (or [N,H,W]), or `latents` float [N,C,H,W] with, if
    sampled, `stds`; and, if any, `labels` int [N]. ADM's have `arr_0` and `arr_1` instead. A .npy
    holds the images or latents alone."""
    images, labels, stds = _arrays(config)
    path = images.path
    if labels is not None:
        same_length(path, images.shape[0], labels.shape[0] if labels.shape else 0)
        if labels.dtype.kind not in "iu" or len(labels.shape) != 1:
            raise JstarError(f"{path}: labels are {labels.dtype} of shape {labels.shape}, "
                             "allowed are integers [N]")  # fmt: skip
    labels_N = _labels(config, images.shape[0], labels)
    if images.dtype.kind == "f" and (images.member == "latents" or not images.member):
        return _latents(config, images, labels_N, stds)
    if config.channel_mean is not None:
        raise JstarError(f"dataset.channel_mean: {path} holds pixels, not latents")
    if images.dtype != np.uint8 or len(images.shape) not in (3, 4):
        raise JstarError(
            f"{path}: images are {images.dtype} with {len(images.shape)} axes, "
            "allowed is uint8 [N,H,W,C]"
        )
    count, rows, columns, channels = (*images.shape, 1)[:4]
    if rows * columns > config.max_pixels:
        raise JstarError(
            f"{path}: images are {columns}x{rows} pixels, dataset.max_pixels allows "
            f"{config.max_pixels}"
        )
    if channels > 4:
        raise JstarError(f"{path}: images have shape {images.shape}, allowed is [N,H,W,C] "
                         "with 1 to 4 channels last")  # fmt: skip

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        for data in images.blocks(start, stop, block):
            pixels = data.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
            labels_B = labels_N[start : start + len(pixels)]
            yield Ready(Rows(np.ascontiguousarray(pixels), labels_B))
            start += len(pixels)

    return Source(count, (channels, rows, columns), jobs, stamp(path), lambda: labels_N)


def _labels(config: DatasetConfig, count: int, labels: ArrayFile | None) -> NDArray[np.int64]:
    if labels is None or config.labels == "none":
        return np.zeros(count, np.int64)
    found = labels.read()
    if len(found) and not 0 <= (low := int(found.min())) <= (high := int(found.max())) < 1 << 63:
        raise JstarError(
            f"{labels.path}: has the label {low if low < 0 else high}, allowed are classes from 0 "
            "on; dataset.labels: none takes no classes"
        )
    return found.astype(np.int64)


def _latents(
    config: DatasetConfig,
    means: ArrayFile,
    labels_N: NDArray[np.int64],
    stds: ArrayFile | None,
) -> Source:
    last = means.shape[-1] if len(means.shape) == 4 else 0
    if 1 <= last <= 4 and means.shape[2] != last:
        raise JstarError(
            f"{means.path}: floats of shape {means.shape} look like images with channels last; "
            "allowed are images as uint8 [N,H,W,C], or latents as floats [N,C,H,W]"
        )
    if len(means.shape) != 4 or (stds is not None and stds.shape != means.shape):
        raise JstarError(f"{means.path}: latents have shape {means.shape}"
                         + (f" and stds {stds.shape}" if stds else "")
                         + ", allowed is [N,C,H,W], the same for both")  # fmt: skip
    channels = means.shape[1]
    scaling = Scaling().of(config, channels)
    kind = AS_GIVEN if stds is None else GAUSSIANS
    if config.posterior == "mean":
        if stds is None:
            raise JstarError(f"dataset.posterior = mean: {means.path} holds no 'stds' to leave out")
        stds, kind = None, MEANS

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        spread = stds.blocks(start, stop, block) if stds else None
        for data in means.blocks(start, stop, block):
            labels = labels_N[start : start + len(data)]
            where = f"{means.path}, image {start} on"
            std_B = next(spread) if spread else None
            yield Ready(latent_rows(data, std_B, labels, scaling, where))
            start += len(data)

    count, *shape = means.shape
    return Source(
        count, (shape[0], shape[1], shape[2]), jobs, stamp(means.path), lambda: labels_N,
        dtype="float16", offset=0.0, scale=config.latent_std,
        sampled=stds is not None, latents=kind,
        channel_mean=scaling.mean, channel_std=scaling.std,
    )  # fmt: skip


NPZ = Reader(
    open_npz,
    glance_npz,
    frozenset({"channel_mean", "latent_std", "posterior", "max_pixels"}),
    ("none",),
    "give a .npz or .npy file",
)
