"""CIFAR-10 from its original archives or folders, python and binary (cs.toronto.edu/~kriz)."""

import io
import math
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import (
    Reader,
    Shape,
    Source,
    damaged,
    first_line,
    in_memory,
    regular_files,
    source_path,
    stamp,
)
from jstar.errors import JstarError

NO_BATCH = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
NAMES = tuple(f"data_batch_{i}" for i in range(1, 6))
FILE_BYTES = 1 << 26  # a batch has 31 million
_ARRAY = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}


class _Numbers:
    """Stands in for NumPy's types: takes what a pickled array states, and makes nothing of it."""

    state: Any = None

    def __init__(self, *stated: Any) -> None:
        self.stated = stated

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[np.uint8]:
        """Raises ValueError unless it is bytes, as many as its shape says."""
        _, shape, kind, fortran, raw = self.state
        if kind.stated[0] not in ("u1", b"u1") or fortran or not isinstance(raw, bytes):
            raise ValueError("its data are no unsigned bytes")
        if math.prod(shape) != len(raw):
            raise ValueError(f"{math.prod(shape)} numbers promised, {len(raw)} found")
        return np.frombuffer(raw, np.uint8).reshape(shape)


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


class _BatchUnpickler(pickle.Unpickler):
    """Reads a batch and calls nothing that it names: a pickle could name any function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (*_ARRAY, ("numpy", "ndarray"), ("numpy", "dtype")):
            return _Numbers
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _python_batch(data: bytes) -> tuple[Any, Any]:
    # Its instructions first, one by one: some have a length, and memory is taken for it.
    for code, value, _ in pickletools.genops(data):
        if code.name in ("LONG_BINPUT", "PUT") and (value or 0) > len(data):
            raise pickle.UnpicklingError("it numbers more objects than it has bytes")
    batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
    return batch[b"data"].array(), batch[b"labels"]


def _binary_batch(data: bytes) -> tuple[Any, Any]:
    rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return rows[:, 1:], rows[:, 0]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of the batches in a folder or a .tar[.gz]."""
    if path.is_dir():
        for file in regular_files(path, "**/data_batch_*"):
            _require_small(file.stat().st_size, file)
            yield file.name, file.read_bytes()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            stream = archive.extractfile(member) if name.startswith("data_batch_") else None
            if stream is not None:
                _require_small(member.size, f"{path}, {name}")
                yield name, stream.read()


def _require_small(size: int, where: object) -> None:
    if size > FILE_BYTES:
        raise JstarError(f"{where}: has {size} bytes, a batch of CIFAR-10 has 31 million")


def read_batches(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Training images [N, 3, 32, 32] and labels [N], in the order of the five batches."""
    images: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    at = str(path)
    try:
        for name, data in _files(path):
            at = f"{path}, {name}"
            pixels, classes = (_binary_batch if name.endswith(".bin") else _python_batch)(data)
            stem = name.removesuffix(".bin")
            images[stem] = np.asarray(pixels, dtype=np.uint8).reshape(-1, 3, 32, 32)
            labels[stem] = np.asarray(classes, dtype=np.int64)
            if len(images[stem]) != len(labels[stem]) or not (
                0 <= labels[stem].min() <= labels[stem].max() <= 9
            ):
                raise ValueError("labels do not match the images")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise damaged(at, error) from error
    except (pickle.UnpicklingError, *NO_BATCH) as error:
        raise JstarError(f"{at}: is not a batch of CIFAR-10 ({first_line(error)})") from error
    missing = [name for name in NAMES if name not in images]
    if missing:
        raise JstarError(f"{path}: holds no batch '{missing[0]}', needed are {', '.join(NAMES)}")
    return np.concatenate([images[n] for n in NAMES]), np.concatenate([labels[n] for n in NAMES])


def open_cifar10(config: DatasetConfig) -> Source:
    """The 50,000 training images, 32x32x3, of either archive (or its unpacked folder)."""
    path = source_path(config)
    images, labels = read_batches(path)
    return Source(
        count=len(images),
        shape=(3, 32, 32),
        jobs=in_memory(images, labels),
        identity=stamp(path),
        classes=10,
        labels=lambda: labels.astype(np.int64),
        license="none stated by the authors",
        citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    )


def published_cifar10(config: DatasetConfig) -> tuple[int, Shape]:
    """Always taken: counting would mean unpacking the archive."""
    return 50_000, (3, 32, 32)


CIFAR10 = Reader(
    open_cifar10,
    published_cifar10,
    where="give cifar-10-python.tar.gz, cifar-10-binary.tar.gz or the unpacked folder, "
    "or no path to download it",
    published=published_cifar10,
    needs_path=False,
    free=True,
)
