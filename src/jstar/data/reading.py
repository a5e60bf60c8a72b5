"""What prepare would read: layout, classes, what is left out and the scale, without writing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.classes import require_range
from jstar.data.prepare import Split, split_of
from jstar.data.sources import Rows, Source, present
from jstar.data.vae import with_vae
from jstar.errors import JstarError

SAMPLE, BLOCKS = 256, 8  # images that are decoded, in so many places of the set
TOLERANCE = 1.25  # factor between the deviation of latents and what is asked for


@dataclass(frozen=True)
class Reading:
    """Facts of a source, its scale by a sample of the images; `std` is in the data scale."""

    config: DatasetConfig
    source: Source
    split: Split
    labels_N: NDArray[np.int64]  # of the images that are trained on
    sample: int
    low: float
    high: float
    mean: float
    std: float

    def lines(self) -> list[str]:
        """For the user, a fact a line."""
        config, source, (channels, rows, columns) = self.config, self.source, self.source.shape
        counts = np.unique(self.labels_N, return_counts=True)[1]
        classes = max(source.classes or 0, int(self.labels_N.max()) + 1)
        kind = "latents" if source.dtype == "float16" else "images"
        facts = [
            f"dataset '{config.name}': {config.path or 'no file'}, read as {config.source}",
            f"{kind}: {self.split.train} to train on, {len(self.split.held_out)} held out, of "
            f"{source.count} found; [{channels}, {rows}, {columns}] {source.dtype}",
            f"classes: {classes}, of {len(counts)} there are images: {counts.min()} to "
            f"{counts.max()} of each",
            f"values of {self.sample} of them in the model's data scale: {self.low:.3g} to "
            f"{self.high:.3g}, mean {self.mean:.3g}, deviation {self.std:.3g}",
        ]
        for reason, count in source.left_out:
            facts.append(f"left out: {count} files, {reason or 'without a suffix'}")
        return [*facts, *scale_warning(self.std, config, kind == "latents")]


def scale_warning(std: float, config: DatasetConfig, latents: bool) -> list[str]:
    """A sentence where latents are not scaled as the study says; none for pixels."""
    if not latents or 1 / TOLERANCE < std / config.latent_std < TOLERANCE:
        return []
    return [
        f"warning: the latents have the deviation {std:.3g}, dataset.latent_std says "
        f"{config.latent_std:g}; dataset.channel_mean and channel_std are to scale them"
    ]


def read_sample(config: DatasetConfig) -> Reading:
    """Open the source and decode some images, spread over it.

    Raises JstarError as prepare does, for what the names, headers, labels and these images show.
    """
    chosen = present(config)
    if chosen.free and config.path is None:
        raise JstarError(f"dataset.path: is missing, '{config.source}' would be downloaded first")
    source = with_vae(chosen.open(config), config)
    split = split_of(config, source.count)
    labels_N = source.labels()
    require_range(labels_N, source.classes, f"dataset '{config.name}'")
    rows = list(_sample(source, split.total))
    values = np.concatenate([r.images_BCHW for r in rows]).astype(np.float64)
    values = (values - source.offset) * source.scale
    variance = float(values.var())
    if source.sampled:
        stds = np.concatenate([r.stds_BCHW for r in rows if r.stds_BCHW is not None])
        variance += float(np.square(stds.astype(np.float64)).mean()) * source.scale**2
    return Reading(
        config, source, split, split.train_rows(labels_N), len(values),
        float(values.min()), float(values.max()), float(values.mean()), float(np.sqrt(variance)),
    )  # fmt: skip


def _sample(source: Source, total: int) -> list[Rows]:
    """Whole blocks, evenly spread; all of a small set."""
    block = min(SAMPLE // BLOCKS, total)
    starts = sorted({int(at) for at in np.linspace(0, total - block, BLOCKS)})
    found, done = [], 0
    for start in starts:
        start = max(start, done)
        done = start + block
        for job in source.jobs(start, min(done, total), block):
            rows = job()
            found.append(source.finish(rows) if source.finish else rows)
    return found
