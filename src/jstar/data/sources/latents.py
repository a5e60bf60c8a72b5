"""Latents: float16 means and, where they are sampled, standard deviations, of unit scale."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import Rows
from jstar.errors import JstarError


def standardisation(
    config: DatasetConfig, channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: the study's, or else the given ones."""
    chosen_mean = tuple(config.channel_mean or mean)
    chosen_std = tuple(config.channel_std or std)
    if len(chosen_mean) != channels:
        raise JstarError(
            f"dataset.channel_mean, channel_std: have {len(chosen_mean)} value(s), "
            f"the latents of '{config.name}' have {channels} channels"
        )
    return chosen_mean, chosen_std


def latent_rows(
    mean_BCHW: NDArray[Any],
    std_BCHW: NDArray[Any] | None,
    labels_B: NDArray[np.int64],
    channel_mean: Sequence[float],
    channel_std: Sequence[float],
    where: str,
) -> Rows:
    """Latents of zero mean and unit standard deviation a channel, float16.

    `where` names the latents in an error. Raises JstarError if they are not finite, if a standard
    deviation is negative, or if float16 cannot hold them.
    """
    shift = np.asarray(channel_mean, np.float32)[:, None, None]
    factor = 1 / np.asarray(channel_std, np.float32)[:, None, None]
    with np.errstate(over="ignore"):
        means = ((mean_BCHW - shift) * factor).astype(np.float16)
        stds = None if std_BCHW is None else (std_BCHW * factor).astype(np.float16)
    for values in (means, stds):
        if values is not None and not np.isfinite(values).all():
            raise JstarError(f"{where}: latents must be finite and below 65504 after scaling")
    if stds is not None and (stds < 0).any():
        raise JstarError(f"{where}: a standard deviation is negative")
    return Rows(means, labels_B, stds)
