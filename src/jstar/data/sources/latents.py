"""Latents: float16 means and, where they are Gaussians, standard deviations, of unit scale."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import Job, Rows, Shape
from jstar.data.sources.index import Index, Item
from jstar.errors import JstarError

GAUSSIANS, MEANS = "Gaussians: a mean and a deviation of each value", "means alone"
DRAWS = "one draw of each from its Gaussian"
FLIPPED = f"{DRAWS}, and of the mirrored image"
AS_GIVEN = "as given"  # an array does not say whether it holds means or draws


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each channel, as the maker of some latents states them.

    One value stands for all channels.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def of(self, config: DatasetConfig, channels: int) -> "Scaling":
        """Of each of `channels`, the study's before the maker's. Raises JstarError."""
        mean = tuple(config.channel_mean or self.mean)
        std = tuple(config.channel_std or self.std)
        if config.channel_mean is None and len(mean) == 1:
            mean, std = mean * channels, std * channels
        if len(mean) != channels:
            raise JstarError(
                f"dataset.channel_mean, channel_std: have {len(mean)} value(s), "
                f"the latents of '{config.name}' have {channels} channels"
            )
        return Scaling(mean, std)


# What EDM2 assumes of its raw latents (arXiv 2312.02696, training/encoders.py). Its VAE is fed
# pixels in 0..1, so these are not the numbers of the VAE's own scaling_factor.
EDM2_SCALING = Scaling((5.81, 3.25, 0.12, -2.15), (4.17, 4.62, 3.71, 3.28))
# Stable Diffusion's factor, of latents of pixels in -1..1: REPA multiplies by it when it trains.
SD_SCALING = Scaling((0.0,), (1 / 0.18215,))


def latent_rows(
    mean_BCHW: NDArray[Any],
    std_BCHW: NDArray[Any] | None,
    labels_B: NDArray[np.int64],
    scaling: Scaling,
    where: str,
) -> Rows:
    """Latents of zero mean and unit standard deviation a channel, float16.

    `where` names the latents in an error. Raises JstarError if they are not finite, if a standard
    deviation is negative, or if float16 cannot hold them.
    """
    shift = np.asarray(scaling.mean, np.float32)[:, None, None]
    factor = 1 / np.asarray(scaling.std, np.float32)[:, None, None]
    with np.errstate(over="ignore"):
        # Plus 0: of -0 and 0, which are one value, the same bytes.
        means = ((mean_BCHW - shift) * factor).astype(np.float16) + np.float16(0)
        stds = None if std_BCHW is None else (std_BCHW * factor).astype(np.float16)
    for values in (means, stds):
        if values is not None and not np.isfinite(values).all():
            raise JstarError(f"{where}: latents must be finite and below 65504 after scaling")
    if stds is not None and (stds < 0).any():
        raise JstarError(f"{where}: a standard deviation is negative")
    return Rows(means, labels_B, stds)


# --- one .npy file a latent -----------------------------------------------------------------------


def read_latent(item: Item) -> NDArray[np.floating]:
    """One latent file, [C, H, W]; fast-DiT's have a first axis of one. Raises JstarError."""
    try:
        latent = np.load(io.BytesIO(item.read()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise JstarError(f"{item.label}: is not a .npy file of plain numbers") from error
    if latent.ndim == 4 and latent.shape[0] == 1:
        latent = latent[0]
    if latent.dtype.kind != "f" or latent.ndim != 3 or min(latent.shape) < 1:
        raise JstarError(
            f"{item.label}: is {latent.dtype} of shape {latent.shape}, allowed are floats [C, H, W]"
        )
    return np.asarray(latent)


@dataclass(frozen=True)
class LatentJob:
    """Read and scale some latent files.

    gaussian: the second half of the channels are standard deviations, which are kept; None where
    there are none, False where they are left out.
    """

    items: Sequence[Item]
    labels_B: NDArray[np.int64]
    shape: Shape
    scaling: Scaling
    gaussian: bool | None

    def __len__(self) -> int:
        return len(self.labels_B)

    def __call__(self) -> Rows:
        channels, rows, columns = self.shape
        stored = channels if self.gaussian is None else 2 * channels
        both = np.empty((len(self.items), stored, rows, columns), np.float32)
        for row, item in zip(both, self.items, strict=True):
            latent = read_latent(item)
            if latent.shape != row.shape:
                raise JstarError(
                    f"{item.label}: has shape {latent.shape}, the first latent has {row.shape}"
                )
            row[...] = latent
        stds = both[:, channels:] if self.gaussian else None
        where = f"{self.items[0].label} on"
        return latent_rows(both[:, :channels], stds, self.labels_B, self.scaling, where)


def latent_jobs(
    index: Index,
    labels_N: NDArray[np.int64],
    shape: Shape,
    scaling: Scaling,
    gaussian: bool | None,
) -> Callable[[int, int, int], Iterator[Job]]:
    """`Source.jobs` of the latent files of `index`."""

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        for low in range(start, stop, block):
            high = min(low + block, stop)
            items, labels = index.items(low, high), labels_N[low:high]
            yield LatentJob(items, labels, shape, scaling, gaussian)

    return jobs
