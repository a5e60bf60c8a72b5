"""The datasets of EDM, EDM2 and REPA: dataset.json beside images, or beside latents as .npy."""

import zlib
from functools import partial
from pathlib import Path

from jstar.config import DatasetConfig
from jstar.data.sources.base import DECODING_KEYS, Reader, Shape, Source, source_path
from jstar.data.sources.files import (
    file_source,
    is_image,
    is_labels,
    shape_of,
    take_labels,
)
from jstar.data.sources.index import Index, Item, is_hidden, open_index
from jstar.data.sources.labels import (
    NO_CLASS,
    OF_JSON,
    Marks,
    class_fact,
    json_labels,
    without_labels,
)
from jstar.data.sources.latents import (
    EDM2_SCALING,
    GAUSSIANS,
    MEANS,
    SD_SCALING,
    Scaling,
    latent_jobs,
    read_latent,
)
from jstar.errors import JstarError

REPA_LATENTS = "vae-sd"  # beside `images`, in the folder that REPA's training is given


def is_latent(name: str) -> bool:
    return name.endswith(".npy") and not is_hidden(name)


def _index(config: DatasetConfig) -> tuple[Index, Marks | None]:
    """Images or latents, and dataset.json."""
    index = open_index(
        _path(config), lambda name: is_image(name) or is_latent(name) or is_labels(name)
    )
    return index, take_labels(config, index)


def _path(config: DatasetConfig) -> Path:
    """Where the latents are. Raises JstarError where they are REPA's and EDM2's are asked for."""
    path = source_path(config)
    if not (path / REPA_LATENTS).is_dir():
        return path
    if config.source == "edm2":
        raise JstarError(
            f"{path}: holds the folder {REPA_LATENTS}, so these are REPA's latents, which are of "
            "another scale; dataset.source: repa reads them"
        )
    return path / REPA_LATENTS


def _latent_shape(item: Item) -> Shape:
    """[C, H, W] of a latent whose file holds means and deviations, [2C, H, W]."""
    both, rows, columns = read_latent(item).shape
    if both % 2:
        raise JstarError(
            f"{item.label}: has {both} channels, allowed is an even number, mean and standard "
            "deviation"
        )
    return both // 2, rows, columns


def open_edm2(config: DatasetConfig, published: Scaling) -> Source:
    """An EDM, EDM2 or REPA dataset, zip or folder, in the order of its file names."""
    index, marks = _index(config)
    latent = [is_latent(name) for name in index.names]
    if (marks is None and config.labels is None) or config.labels == "none":
        (labels, classes), facts = without_labels(len(index.names)), class_fact(NO_CLASS)
    else:
        (labels, classes), facts = json_labels(config, marks, index.names), class_fact(OF_JSON)
    if not any(latent):
        return file_source(config, index, labels, classes, facts=facts)
    if not all(latent):
        raise JstarError(f"{config.path}: mixes images and .npy latents, allowed is one kind")
    if config.vae or config.size:
        raise JstarError(f"dataset.vae, dataset.size: {config.path} holds latents already")
    shape = _latent_shape(index.item(0))
    scaling = published.of(config, shape[0])
    gaussian = config.posterior == "gaussian"
    return Source(
        count=len(index.names), shape=shape,
        jobs=latent_jobs(index, labels, shape, scaling, gaussian),
        identity=[index.identity(), zlib.crc32(labels.tobytes())],
        dtype="float16", offset=0.0, scale=config.latent_std,
        classes=classes, sampled=gaussian, labels=lambda: labels,
        latents=GAUSSIANS if gaussian else MEANS,
        left_out=tuple(sorted(index.left_out.items())), facts=facts,
        channel_mean=scaling.mean, channel_std=scaling.std, parallel=True,
    )  # fmt: skip


def glance_edm2(config: DatasetConfig) -> tuple[int, Shape]:
    index, _ = _index(config)
    first = index.item(0) if index.names else None
    if first is None or not is_latent(first.name):
        return len(index.names), shape_of(config, first)
    return len(index.names), _latent_shape(first)


EDM2, REPA = (
    Reader(partial(open_edm2, published=scaling), glance_edm2, DECODING_KEYS,
           ("json", "none"), where)
    for scaling, where in (
        (EDM2_SCALING, "give the dataset zip or folder that EDM's dataset_tool.py wrote"),
        (SD_SCALING, f"give the folder that holds {REPA_LATENTS}, or {REPA_LATENTS} itself"),
    )
)  # fmt: skip
