"""The prepare stage: from a source to images.npy, labels.npy and card.json."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.card import Card
from jstar.data.sources import READERS
from jstar.errors import JstarError
from jstar.records import write_array


def prepare(config: DatasetConfig, out: str | Path) -> Card:
    """Read `config.source`, write the store to the folder `out`, return its card.

    The card is written last: a folder without card.json is not a dataset.
    """
    out = Path(out)
    raw = READERS[config.source](config)
    images, labels = raw.images_NCHW[: config.limit], raw.labels_N[: config.limit]
    if config.holdout >= len(images):
        raise JstarError(
            f"dataset.holdout = {config.holdout} must be below the number of images, {len(images)}"
        )
    train = len(images) - config.holdout
    if config.holdout:
        # Spread evenly over the set, so that a set sorted by class keeps its proportions.
        held = np.zeros(len(images), dtype=bool)
        held[(np.arange(config.holdout) * len(images)) // config.holdout] = True
        write_array(out / "holdout_images.npy", images[held])
        write_array(out / "holdout_labels.npy", labels[held])
        images, labels = images[~held], labels[~held]
    if train < 2:
        raise JstarError(
            f"dataset '{config.name}': {train} image(s) to train on, at least 2 needed"
        )
    mean, std = _moments(images, raw.offset, raw.scale)
    card = Card(
        name=config.name,
        source=config.source,
        count=train,
        shape=(images.shape[1], images.shape[2], images.shape[3]),
        dtype=str(images.dtype),
        offset=raw.offset,
        scale=raw.scale,
        classes=int(labels.max()) + 1,
        mirror=config.mirror,
        holdout=config.holdout,
        duplicates=_duplicates(images),
        mean=mean,
        std=std,
        images_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
        labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
        license=raw.license,
        citation=raw.citation,
    )
    write_array(out / "images.npy", images)
    write_array(out / "labels.npy", labels)
    card.save(out / "card.json")
    return card


def _moments(images_NCHW: NDArray[np.uint8], offset: float, scale: float) -> tuple[float, float]:
    """Mean of x, and root of the mean over dimensions of its variance."""
    u_ND = images_NCHW.reshape(len(images_NCHW), -1)
    mean_D = u_ND.mean(axis=0, dtype=np.float64)
    var_D = u_ND.var(axis=0, dtype=np.float64)
    return float((mean_D.mean() - offset) * scale), float(np.sqrt(var_D.mean()) * scale)


def _duplicates(images_NCHW: NDArray[np.uint8]) -> int:
    """Number of images that equal an earlier one."""
    seen = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images_NCHW}
    return len(images_NCHW) - len(seen)
