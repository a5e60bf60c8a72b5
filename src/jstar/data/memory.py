"""Images of a Python program as a file that the source npz reads."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from jstar.errors import JstarError

BUFFER = 4 << 20
ROWS = 1024  # of an array at a time
SLACK = 1e-3  # of a level: what float32 may be off of k / 255


def save_images(data: Any, path: str | Path, labels: Any = None) -> int:
    """Write `data` to the .npz file `path`, which `dataset: {source: npz}` reads.

    data: an array [N, H, W, C] or tensor [N, C, H, W], a torch Dataset or DataLoader, or any
    iterable of images or (image, label), one at a time or in batches. Of tensors the channels come
    first, of arrays and PIL images last. Pixels are 8-bit, or floats k/255 as torchvision's
    ToTensor makes them: these come back exactly. labels: [N] integers, where `data` has none.

    Returns how many images there are. What is random in `data` (augmentation, shuffling) is frozen
    as it falls: a distribution needs neither. One batch is in memory at a time. Raises JstarError
    for other values, and leaves no file then.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise JstarError(f"{path}: the images are written as .npz, give such a name")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with tempfile.TemporaryFile(dir=path.parent) as raw:
        shape, found = _spool(data, raw)
        if labels is not None:
            found = _labels(labels)
        if found is not None and len(found) != shape[0]:
            raise JstarError(f"labels: are {len(found)}, there are {shape[0]} images")
        try:
            _write(part, raw, shape, found)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return shape[0]


def _spool(data: Any, raw: Any) -> tuple[tuple[int, ...], NDArray[np.int64] | None]:
    """Write all pixels to the file `raw`; their shape [N, H, W, C], and the labels if any."""
    count, shape, classes = 0, (), []
    for entry in _entries(data):
        image, label = entry if isinstance(entry, tuple | list) else (entry, None)
        pixels_BHWC = _pixels(image, f"image {count}")
        if count and pixels_BHWC.shape[1:] != shape:
            raise JstarError(
                f"image {count}: has shape {pixels_BHWC.shape[1:]}, the first one has {shape}"
            )
        shape = pixels_BHWC.shape[1:]
        raw.write(np.ascontiguousarray(pixels_BHWC).data)
        count += len(pixels_BHWC)
        classes.append(None if label is None else _labels(label))
    stated = [labels_B for labels_B in classes if labels_B is not None]
    if not count:
        raise JstarError("data: yields no image")
    if len(stated) not in (0, len(classes)):
        raise JstarError("data: yields a label with some of the images only")
    return (count, *shape), np.concatenate(stated) if stated else None


def _entries(data: Any) -> Iterable[Any]:
    """What `data` yields. A Dataset has places and a length; its own iteration need not end."""
    if hasattr(data, "__array__") and len(data.shape) == 4:
        return (data[at : at + ROWS] for at in range(0, len(data), ROWS))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[at] for at in range(len(data)))
    if isinstance(data, Iterable):
        return data
    raise JstarError(
        f"data: is {type(data).__name__}, allowed are an array, a torch Dataset or DataLoader, or "
        "an iterable of images or (image, label)"
    )


def _pixels(image: Any, where: str) -> NDArray[np.uint8]:
    """Pixels [B, H, W, C] of one image or a batch. Raises JstarError."""
    first = hasattr(image, "detach")  # a tensor
    values = np.asarray(image.detach().cpu() if first else image)
    kind = f"{values.dtype} of shape {values.shape}"
    if values.ndim == 2:
        values = values[None, :, :, None]
    elif values.ndim in (3, 4):
        values = values if values.ndim == 4 else values[None]
        values = values.transpose(0, 2, 3, 1) if first else values
    if values.ndim != 4 or not 1 <= values.shape[-1] <= 4 or min(values.shape) < 1:
        order = "[C, H, W]" if first else "[H, W, C]"
        raise JstarError(f"{where}: is {kind}, allowed is {order} with 1 to 4 channels, or a batch")
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        levels = values.astype(np.float64) * 255
        exact = np.rint(levels)
        if np.abs(levels - exact).max() < SLACK and exact.min() >= 0 and exact.max() <= 255:
            return exact.astype(np.uint8)
    raise JstarError(
        f"{where}: is {kind}, from {values.min()} to {values.max()}; allowed are 8-bit pixels, or "
        "floats k/255: leave out what scales them, as Normalize"
    )


def _labels(label: Any) -> NDArray[np.int64]:
    """One label or those of a batch, [B]. Raises JstarError."""
    values = np.atleast_1d(np.asarray(label.detach().cpu() if hasattr(label, "detach") else label))
    if values.dtype.kind not in "iu" or values.ndim != 1 or values.min(initial=0) < 0:
        raise JstarError(f"labels: {label!r} is no class, allowed are integers from 0")
    return values.astype(np.int64)


def _write(
    path: Path, raw: Any, shape: tuple[int, ...], labels_N: NDArray[np.int64] | None
) -> None:
    raw.seek(0)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(stream, header)
            shutil.copyfileobj(raw, stream, BUFFER)
        if labels_N is not None:
            with archive.open("labels.npy", "w") as stream:
                np.save(stream, labels_N)
