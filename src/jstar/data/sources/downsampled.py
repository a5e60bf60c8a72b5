"""Downsampled ImageNet, 64x64 and 32x32, from its official .npz batches (arXiv 1707.08819)."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jstar.config import DatasetConfig
from jstar.data.sources.arrays import ArrayFile
from jstar.data.sources.base import (
    Job,
    Reader,
    Ready,
    Rows,
    Shape,
    Source,
    same_length,
    source_path,
    stamp,
)
from jstar.errors import JstarError

SIDES = {"imagenet32": 32, "imagenet64": 64}
WHERE = (
    "downsampled ImageNet is never downloaded: get the npz archives "
    "(Imagenet64_train_part*_npz.zip, Imagenet32_train_npz.zip) from image-net.org/download-images "
    "after registering, unzip them, and give the folder of the train_data_batch_*.npz"
)


def _batches(config: DatasetConfig) -> list[tuple[ArrayFile, ArrayFile]]:
    """(data, labels) of every batch, in the order of their numbers."""
    path = source_path(config)
    files = [path] if path.is_file() else sorted(path.glob("train_data*.npz"), key=_number)
    if not files:
        pickled = any(path.glob("train_data_batch_*"))
        raise JstarError(
            f"{path}: holds no train_data_batch_*.npz"
            + (", only pickled batches; take the npz variant" if pickled else "")
        )
    width = 3 * SIDES[config.source] ** 2
    batches = []
    for file in files:
        data, labels = ArrayFile.open(file, "data"), ArrayFile.open(file, "labels")
        if data.dtype != np.uint8 or data.shape[1:] != (width,):
            raise JstarError(
                f"{file}: data are {data.dtype} of shape {data.shape}, '{config.source}' has "
                f"uint8 [N, {width}]"
            )
        same_length(file, data.shape[0], labels.shape[0])
        batches.append((data, labels))
    return batches


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0, path.name


def open_downsampled(config: DatasetConfig) -> Source:
    """ImageNet at 64 or 32 pixels; labels 1..1000, in the files' own class order, become 0..999."""
    batches = _batches(config)
    side = SIDES[config.source]

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        first = 0
        for data, labels in batches:
            low, high = max(start - first, 0), min(stop - first, data.shape[0])
            first += data.shape[0]
            if low >= high:
                continue
            labels_N = labels.read().astype(np.int64) - 1
            if labels_N.min() < 0:
                raise JstarError(f"{data.path}: has the label 0, allowed are 1 to 1000")
            for rows in data.blocks(low, high, block):
                pixels = rows.reshape(-1, 3, side, side)
                yield Ready(Rows(pixels, labels_N[low : low + len(rows)]))
                low += len(rows)

    return Source(
        count=sum(data.shape[0] for data, _ in batches),
        shape=(3, side, side),
        jobs=jobs,
        identity=[stamp(data.path) for data, _ in batches],
        classes=1000,
        license="ImageNet terms: non-commercial research and education",
        citation="Chrabaszcz, Loshchilov & Hutter (2017), arXiv 1707.08819",
    )


def glance_downsampled(config: DatasetConfig) -> tuple[int, Shape]:
    side = SIDES[config.source]
    return sum(data.shape[0] for data, _ in _batches(config)), (3, side, side)


def published_small(config: DatasetConfig) -> tuple[int, Shape]:
    side = SIDES[config.source]
    return 1_281_167, (3, side, side)


DOWNSAMPLED = Reader(open_downsampled, glance_downsampled, where=WHERE, published=published_small)
