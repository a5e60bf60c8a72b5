"""Downsampled ImageNet, 64x64 and 32x32, from its official .npz batches (arXiv 1707.08819)."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.arrays import ArrayFile
from jstar.data.sources.base import (
    Job,
    Reader,
    Ready,
    Rows,
    Shape,
    Source,
    regular_files,
    same_length,
    source_path,
    stamp,
)
from jstar.errors import JstarError

BATCHES, CLASSES = 10, 1000
SIDES = {"imagenet32": 32, "imagenet64": 64}
WHERE = (
    "downsampled ImageNet is never downloaded: get the npz archives "
    "(Imagenet64_train_part*_npz.zip, Imagenet32_train_npz.zip) from image-net.org/download-images "
    "after registering, unzip them, and give the folder of the train_data_batch_*.npz"
)


def _batches(config: DatasetConfig) -> list[tuple[ArrayFile, ArrayFile]]:
    """(data, labels) of every batch, in the order of their numbers."""
    path = source_path(config)
    files = [path]
    if not path.is_file():
        files = sorted(regular_files(path, "train_data*.npz"), key=_number)
    if not files:
        pickled = any(path.glob("train_data_batch_*"))
        raise JstarError(
            f"{path}: holds no train_data_batch_*.npz"
            + (", only pickled batches; take the npz variant" if pickled else "")
        )
    if path.is_dir():
        _require_all(path, [_number(file)[0] for file in files])
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


def _require_all(path: Path, numbers: list[int]) -> None:
    """Refuse a folder that lacks a batch or has one twice: its images would be another set."""
    expected = range(1, max(BATCHES, *numbers) + 1)
    if missing := [number for number in expected if number not in numbers]:
        raise JstarError(
            f"{path}: lacks train_data_batch_{missing[0]}.npz, it must hold the batches 1 to "
            f"{BATCHES}; one alone is read where dataset.path is its file"
        )
    if len(numbers) != len(set(numbers)) or min(numbers) < 1:
        raise JstarError(f"{path}: holds the batches {numbers}, allowed is each number from 1 once")


def _labels(file: ArrayFile) -> NDArray[np.int64]:
    """Labels of a batch, from 0 on."""
    labels_N = file.read()
    if file.dtype.kind not in "iu" or len(file.shape) != 1:
        raise JstarError(f"{file.path}: labels are {file.dtype} of shape {file.shape}, allowed are "
                         "integers [N]")  # fmt: skip
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 1 or high > CLASSES:
        raise JstarError(
            f"{file.path}: has the label {low if low < 1 else high}, allowed are 1 to {CLASSES}"
        )
    return labels_N.astype(np.int64) - 1


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
            labels_N = _labels(labels)
            for rows in data.blocks(low, high, block):
                pixels = rows.reshape(-1, 3, side, side)
                yield Ready(Rows(pixels, labels_N[low : low + len(rows)]))
                low += len(rows)

    return Source(
        count=sum(data.shape[0] for data, _ in batches),
        shape=(3, side, side),
        jobs=jobs,
        identity=[stamp(data.path) for data, _ in batches],
        classes=CLASSES,
        labels=lambda: np.concatenate([_labels(labels) for _, labels in batches]),
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
