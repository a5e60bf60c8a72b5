"""MNIST and Fashion-MNIST in the IDX format, plain or gzipped (yann.lecun.com/exdb/mnist)."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import (
    Reader,
    Shape,
    Source,
    damaged,
    in_memory,
    same_length,
    source_path,
    stamp,
)
from jstar.errors import JstarError

GZIP_RATIO = 1032  # the most that deflate can pack
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
FACTS = {
    "mnist": (
        "CC BY-SA 3.0",
        "LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning",
    ),
    "fashion-mnist": (
        "MIT, Copyright (c) 2017 Zalando SE",
        "Xiao, Rasul & Vollgraf (2017), Fashion-MNIST, arXiv 1708.07747",
    ),
}


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes with `axes` axes. Raises JstarError."""
    kind = f"IDX file of unsigned bytes with {axes} axes"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            head = stream.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes([0, 0, 8, axes]):
                raise JstarError(f"{path}: is not an {kind}")
            shape = struct.unpack(f">{axes}I", head[4:])
            size = math.prod(shape)
            if size > GZIP_RATIO * path.stat().st_size:  # before memory is taken for so many
                raise EOFError(f"{size} bytes promised")
            if size == 0:
                raise JstarError(f"{path}: has shape {shape}, no axis may be empty")
            data = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        raise JstarError(f"{path}: is damaged or cut short ({size} bytes promised, {found} found)")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _files(config: DatasetConfig) -> tuple[Path, Path]:
    """The images and the labels: `path` is the images' file or the folder of both."""
    path = source_path(config)
    if path.is_file():
        return path, path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    for end in ("", ".gz"):
        if (path / (IMAGES + end)).is_file():
            return path / (IMAGES + end), path / (LABELS + end)
    raise JstarError(f"{path}: holds neither {IMAGES} nor {IMAGES}.gz")


def open_idx(config: DatasetConfig) -> Source:
    """The training images (28x28, grey) and labels of an IDX pair."""
    images_file, labels_file = _files(config)
    if labels_file == images_file or not labels_file.is_file():
        raise JstarError(f"{images_file}: its labels, {LABELS}[.gz], are not beside it")
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    same_length(images_file, len(images), len(labels))
    license, citation = FACTS[config.source]
    return Source(
        count=len(images),
        shape=(1, images.shape[1], images.shape[2]),
        jobs=in_memory(images[:, None], labels),
        identity=[stamp(images_file), stamp(labels_file)],
        classes=10,
        labels=lambda: labels.astype(np.int64),
        license=license,
        citation=citation,
    )


def glance_idx(config: DatasetConfig) -> tuple[int, Shape]:
    """What the header promises; the published size where the set is yet to be downloaded."""
    if config.path is None:
        return published_mnist(config)
    path = _files(config)[0]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            head = stream.read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    if len(head) < 16 or head[:4] != bytes([0, 0, 8, 3]):
        raise JstarError(f"{path}: is not an IDX file of unsigned bytes with 3 axes")
    count, rows, columns = struct.unpack(">III", head[4:])
    return count, (1, rows, columns)


def published_mnist(config: DatasetConfig) -> tuple[int, Shape]:
    return 60_000, (1, 28, 28)


IDX = Reader(
    open_idx,
    glance_idx,
    where=f"give the folder of {IMAGES}[.gz] and {LABELS}[.gz], or no path to download them",
    published=published_mnist,
    needs_path=False,
    free=True,
)
