"""Random images in the shape of a study's, where its own are not prepared."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.card import Card
from jstar.data.check import source_shape
from jstar.data.prepare import split_of
from jstar.data.sources.base import PIXEL_OFFSET, PIXEL_SCALE
from jstar.records import write_array

COUNT = 4096  # at most
CLASSES = 1000  # where the models see labels; a label table costs no FLOPs
SPREAD = 0.1  # of a random latent about its mean, in the stored unit


def random_images(config: DatasetConfig, folder: Path, *, labelled: bool) -> int:
    """Write a dataset as prepare does, of noise; returns how many images.

    Raises JstarError where the shape of the source is not known before its files are there.
    """
    source, *sides = source_shape(config)
    place = (sides[0], sides[1], sides[2])
    count = min(COUNT, split_of(config, source).train)
    latents = config.vae is not None or config.source == "edm2"
    random = np.random.default_rng(0)
    images: NDArray[Any]
    if latents:
        images = random.standard_normal((count, *place), dtype=np.float32).astype(np.float16)
    else:
        images = random.integers(0, 256, (count, *place), dtype=np.uint8)
    classes = min(CLASSES, count) if labelled else 1
    labels = np.arange(count, dtype=np.int64) % classes
    sampled = latents and config.posterior == "gaussian"
    folder.mkdir(parents=True, exist_ok=True)
    write_array(folder / "images.npy", images)
    write_array(folder / "labels.npy", labels)
    if sampled:
        write_array(folder / "stds.npy", np.full_like(images, SPREAD))
    Card(
        name=config.name, source="random", count=count, shape=place, dtype=str(images.dtype),
        offset=0.0 if latents else PIXEL_OFFSET,
        scale=config.latent_std if latents else PIXEL_SCALE,
        classes=classes, mirror=False, holdout=0, duplicates=0, mean=0.0, std=0.5,
        images_sha256="", labels_sha256="", license="none", citation="random numbers",
        sampled=sampled,
    ).save(folder / "card.json")  # fmt: skip
    return count
