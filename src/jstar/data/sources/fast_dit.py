"""fast-DiT's features: a folder of latents as .npy and one of their labels, a file an image."""

import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import Reader, Shape, Source, same_length, source_path
from jstar.data.sources.edm2 import is_latent
from jstar.data.sources.index import FolderIndex
from jstar.data.sources.labels import NO_CLASS, class_fact, without_labels
from jstar.data.sources.latents import DRAWS, Scaling, latent_jobs, read_latent
from jstar.errors import JstarError

FEATURES, LABELS = "_features", "_labels"  # imagenet256_features, imagenet256_labels


def _folders(config: DatasetConfig) -> tuple[Path, Path]:
    """The folder of the latents and that of the labels. Raises JstarError unless it is one each."""
    path = source_path(config)
    if path.name.endswith(FEATURES):
        found = [path]
    else:
        found = sorted(p for p in path.glob(f"*{FEATURES}") if p.is_dir())
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise JstarError(
            f"{path}: must hold one folder *{FEATURES} as fast-DiT's extract_features.py writes "
            f"it, found: {names}; dataset.path may name one"
        )
    return found[0], found[0].with_name(found[0].name.removesuffix(FEATURES) + LABELS)


def _numbered(folder: Path) -> FolderIndex:
    """Its .npy files in the order of their numbers."""
    index = FolderIndex(folder, is_latent)
    stems = [name.removesuffix(".npy") for name in index.names]
    if strange := next((stem for stem in stems if not stem.isdecimal()), None):
        raise JstarError(f"{folder}/{strange}.npy: its name must be the number of an image")
    index.select(sorted(range(len(stems)), key=lambda at: int(stems[at])))
    return index


def _labels(config: DatasetConfig, folder: Path, latents: FolderIndex) -> NDArray[np.int64]:
    """The class of each latent, of the file of its name."""
    if config.labels == "none":
        return without_labels(len(latents.names))[0]
    if not folder.is_dir():
        raise JstarError(f"{folder}: is missing; dataset.labels: none takes no classes")
    index = _numbered(folder)
    same_length(folder, len(latents.names), len(index.names))
    if index.names != latents.names:
        name = next(a for a, b in zip(latents.names, index.names, strict=True) if a != b)
        raise JstarError(f"{folder}: holds no label of '{name}'")
    labels = np.empty(len(index.names), np.int64)
    for row in range(len(labels)):
        item = index.item(row)
        try:
            value = np.load(io.BytesIO(item.read(1 << 20)), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise JstarError(f"{item.label}: is not a .npy file of plain numbers") from error
        if value.dtype.kind not in "iu" or value.size != 1 or not 0 <= int(value.item()) < 1 << 63:
            raise JstarError(
                f"{item.label}: is {value.dtype} of shape {value.shape}, allowed is one class, an "
                "integer from 0"
            )
        labels[row] = value.item()
    return labels


def open_fast_dit(config: DatasetConfig) -> Source:
    """Draws of latents that were multiplied by 0.18215 already, a part of them mirrored."""
    folder, label_folder = _folders(config)
    index = _numbered(folder)
    if not index.names:
        raise JstarError(f"{folder}: holds no .npy file")
    labels = _labels(config, label_folder, index)
    channels, rows, columns = read_latent(index.item(0)).shape
    scaling = Scaling().of(config, channels)
    shape = (channels, rows, columns)
    return Source(
        count=len(index.names), shape=shape, jobs=latent_jobs(index, labels, shape, scaling, None),
        identity=[index.identity(), zlib.crc32(labels.tobytes())],
        dtype="float16", offset=0.0, scale=config.latent_std,
        classes=1 if config.labels == "none" else None,
        facts=class_fact(NO_CLASS if config.labels == "none" else f"files of {label_folder.name}"),
        labels=lambda: labels, latents=DRAWS,
        left_out=tuple(sorted(index.left_out.items())),
        channel_mean=scaling.mean, channel_std=scaling.std, parallel=True,
    )  # fmt: skip


def glance_fast_dit(config: DatasetConfig) -> tuple[int, Shape]:
    index = _numbered(_folders(config)[0])
    if not index.names:
        return 0, (1, 1, 1)
    channels, rows, columns = read_latent(index.item(0)).shape
    return len(index.names), (channels, rows, columns)


FAST_DIT = Reader(
    open_fast_dit,
    glance_fast_dit,
    frozenset({"channel_mean", "latent_std"}),
    ("none",),
    "give the folder of *_features and *_labels that fast-DiT's extract_features.py wrote",
)
