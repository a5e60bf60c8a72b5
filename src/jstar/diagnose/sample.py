"""A few noisy draws of a dataset, for what can be told before J* is known."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.data import Dataset
from jstar.evaluate.losses import Denoiser
from jstar.noise import gaussian

DRAWS, SEED = 32, 5
MOMENTS = 4096  # images of which mean and variance are taken

# Of the data's standard deviation: the noise scales at which readings of a network are told apart.
PLACES = (0.1, 0.25, 0.6, 1.5, 4.0, 12.0)


@dataclass(frozen=True)
class Sample:
    """Clean images and unit noise, labels or None; the mean image and the variance about it.

    level, spread: mean and standard deviation of all pixels.
    """

    x0_MCHW: Tensor
    noise_MCHW: Tensor
    labels_M: Tensor | None
    mean_CHW: Tensor
    variance: float
    level: float
    spread: float

    def places(self, low: float, high: float) -> NDArray[np.float64]:
        """Noise scales [S] between low and high at which readings are told apart."""
        low, high = max(low, PLACES[0] * self.spread), min(high, PLACES[-1] * self.spread)
        if low >= high:
            return np.array([low])
        return np.geomspace(low, high, len(PLACES))

    def linear(self) -> Denoiser:
        """m + v / (v + sigma^2) (x - m), of the mean image m and the variance v of all pixels."""

        def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
            centre, s = self.mean_CHW.to(x.device), sigma.reshape(-1, *[1] * (x.ndim - 1))
            return centre + self.variance / (self.variance + s * s) * (x - centre)

        return denoise


def take_sample(data: Dataset, conditional: bool, device: str = "cpu") -> Sample:
    """DRAWS images spread evenly over the dataset, with noise of their own."""
    count = len(data)
    index_M = np.unique(np.linspace(0, count - 1, min(DRAWS, count)).round().astype(np.int64))
    few = np.unique(np.linspace(0, count - 1, min(MOMENTS, count)).round().astype(np.int64))
    known = data.scaled(few).astype(np.float64)
    mean = known.mean(axis=0)
    x0 = data.scaled(index_M)
    noise = gaussian(SEED, np.arange(len(x0)), x0[0].size).reshape(x0.shape)
    labels = data.labels_N[index_M] if conditional else None
    return Sample(
        torch.from_numpy(x0).to(device),
        torch.from_numpy(noise).to(device),
        None if labels is None else torch.from_numpy(np.asarray(labels)).to(device),
        torch.from_numpy(mean.astype(np.float32)).to(device),
        float(np.square(known - mean).mean()),
        float(known.mean()),
        float(known.std()),
    )
