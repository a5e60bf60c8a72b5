"""Readers: one function a format, each returns raw images, labels and how to scale them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.errors import JstarError


@dataclass(frozen=True)
class Raw:
    """Images as they come from a source: uint8 [N, C, H, W], labels int64 [N]."""

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    offset: float
    scale: float
    license: str
    citation: str


def read_digits(config: DatasetConfig) -> Raw:
    """The 1,797 8x8 digits inside scikit-learn: grey levels 0..16, scaled to -1..1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    return Raw(
        images,
        bunch.target.astype(np.int64),
        offset=8.0,
        scale=1 / 8,
        license="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits",
    )


def read_npz(config: DatasetConfig) -> Raw:
    """A .npz with `images` uint8 [N,H,W,C] (or [N,H,W]) and, if any, `labels` int [N]."""
    if config.path is None:
        raise JstarError("dataset.path: is missing, the source 'npz' needs the path of a .npz file")
    path = Path(config.path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive.files:
                raise JstarError(
                    f"{path}: holds no array 'images', found are {', '.join(archive.files)}"
                )
            images = archive["images"]
            labels = archive["labels"] if "labels" in archive.files else None
    except FileNotFoundError as error:
        raise JstarError(f"dataset.path = {str(path)!r}: no such file") from error
    except (OSError, ValueError) as error:
        raise JstarError(f"{path}: is not a .npz archive of plain arrays") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise JstarError(
            f"{path}: images are {images.dtype} with {images.ndim} axes, allowed is uint8 [N,H,W,C]"
        )
    if images.ndim == 3:
        images = images[..., None]
    if labels is None:
        labels = np.zeros(len(images), dtype=np.int64)
    if len(labels) != len(images):
        raise JstarError(f"{path}: has {len(images)} images but {len(labels)} labels")
    return Raw(
        np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        labels.astype(np.int64),
        offset=127.5,
        scale=1 / 127.5,
        license="as stated by its source",
        citation="",
    )


READERS = {"digits": read_digits, "npz": read_npz}
