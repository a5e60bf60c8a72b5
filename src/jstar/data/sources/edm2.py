"""The datasets of EDM and EDM2: dataset.json beside images, or beside latents as .npy."""

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import Job, Reader, Rows, Shape, Source, source_path
from jstar.data.sources.files import (
    KEYS,
    file_source,
    is_image,
    is_labels,
    shape_of,
    take_labels,
)
from jstar.data.sources.index import Index, Item, is_hidden, open_index
from jstar.data.sources.labels import Marks, json_labels, without_labels
from jstar.data.sources.latents import latent_rows, standardisation
from jstar.errors import JstarError

# What EDM2 assumes of its raw latents (arXiv 2312.02696, its code): the VAE there is fed pixels
# in 0..1, so these are not the numbers of the VAE's own scaling_factor.
EDM2_MEAN, EDM2_STD = (5.81, 3.25, 0.12, -2.15), (4.17, 4.62, 3.71, 3.28)


def _is_latent(name: str) -> bool:
    return name.endswith(".npy") and not is_hidden(name)


def _index(config: DatasetConfig) -> tuple[Index, Marks | None]:
    """Images or latents, and dataset.json."""
    index = open_index(
        source_path(config), lambda name: is_image(name) or _is_latent(name) or is_labels(name)
    )
    return index, take_labels(config, index)


def read_latent(item: Item) -> NDArray[np.floating]:
    """One latent file: mean and standard deviation, [2C, H, W]."""
    try:
        latent = np.load(io.BytesIO(item.read()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise JstarError(f"{item.label}: is not a .npy file of plain numbers") from error
    if latent.dtype.kind != "f" or latent.ndim != 3 or latent.shape[0] % 2:
        raise JstarError(
            f"{item.label}: is {latent.dtype} of shape {latent.shape}, allowed are floats "
            "[2C, H, W], mean and standard deviation"
        )
    return np.asarray(latent)


@dataclass(frozen=True)
class LatentJob:
    """Read and scale some latents."""

    items: Sequence[Item]
    labels_B: NDArray[np.int64]
    shape: tuple[int, int, int]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels_B)

    def __call__(self) -> Rows:
        channels, rows, columns = self.shape
        both = np.empty((len(self.items), 2 * channels, rows, columns), np.float32)
        for row, item in zip(both, self.items, strict=True):
            latent = read_latent(item)
            if latent.shape != row.shape:
                raise JstarError(
                    f"{item.label}: has shape {latent.shape}, the first latent has {row.shape}"
                )
            row[...] = latent
        return latent_rows(
            both[:, :channels], both[:, channels:], self.labels_B,
            self.channel_mean, self.channel_std, f"{self.items[0].label} on",
        )  # fmt: skip


def open_edm2(config: DatasetConfig) -> Source:
    """An EDM or EDM2 dataset, zip or folder, in the order of its file names."""
    index, marks = _index(config)
    latent = [_is_latent(name) for name in index.names]
    if (marks is None and config.labels is None) or config.labels == "none":
        labels, classes = without_labels(len(index.names))
    else:
        labels, classes = json_labels(config, marks, index.names)
    if not any(latent):
        return file_source(config, index, labels, classes)
    if not all(latent):
        raise JstarError(f"{config.path}: mixes images and .npy latents, allowed is one kind")
    if config.vae or config.size:
        raise JstarError(f"dataset.vae, dataset.size: {config.path} holds latents already")
    both, rows, columns = read_latent(index.item(0)).shape
    shape = (both // 2, rows, columns)
    known = shape[0] == len(EDM2_MEAN)
    mean, std = standardisation(
        config, shape[0], EDM2_MEAN if known else (), EDM2_STD if known else ()
    )

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        for low in range(start, stop, block):
            high = min(low + block, stop)
            items = index.items(low, high)
            yield LatentJob(items, labels[low:high], shape, mean, std)

    return Source(
        count=len(index.names), shape=shape, jobs=jobs,
        identity=[index.identity(), zlib.crc32(labels.tobytes())],
        dtype="float16", offset=0.0, scale=config.latent_std,
        classes=classes, sampled=True, labels=lambda: labels,
        left_out=tuple(sorted(index.left_out.items())),
        channel_mean=mean, channel_std=std, parallel=True,
    )  # fmt: skip


def glance_edm2(config: DatasetConfig) -> tuple[int, Shape]:
    index, _ = _index(config)
    first = index.item(0) if index.names else None
    if first is None or not _is_latent(first.name):
        return len(index.names), shape_of(config, first)
    both, rows, columns = read_latent(first).shape
    return len(index.names), (both // 2, rows, columns)


EDM2 = Reader(
    open_edm2,
    glance_edm2,
    KEYS,
    ("json", "none"),
    "give the dataset zip or folder that EDM's dataset_tool.py wrote",
)
