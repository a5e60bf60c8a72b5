"""Which data points are noised, and with what noise: a pure function of (seed, M, N).

Sources are a systematic sample along the points sorted by class and distance from the mean: each
source at most once while M <= N (whole rounds beyond), every point equally likely. It is the
stratification of METHOD section 1, item 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.noise import gaussian

LEVELS = 127  # an int8 term holds -127..127


def systematic_sources(
    key_N: NDArray[np.float64], count: int, seed: int, labels_N: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Indices [count] of the sources, ordered by (label, key): the order of the strata."""
    size = len(key_N)
    order = np.argsort(key_N, kind="stable") if labels_N is None else np.lexsort((key_N, labels_N))
    start = np.random.Generator(np.random.Philox(key=[seed, size])).random()
    place_M = np.floor((np.arange(count) + start) * (size / count)).astype(np.int64)
    picked: NDArray[np.int64] = order[np.minimum(place_M, size - 1)].astype(np.int64)
    return picked


@dataclass(frozen=True)
class SplitNoise:
    """Noise as a sum of int8 terms: eps = sum_k step_k * term_k, `step` one number a draw.

    The draw *is* this sum, so nothing downstream rounds. With two terms its distance from the
    float32 normal number it came from is at most max|eps| / 127 / 254 / 2, about 7e-5: it adds
    less than 2e-9 of the variance.
    """

    term_KMD: torch.Tensor  # int8
    step_KM: torch.Tensor  # float32

    @property
    def value_MD(self) -> torch.Tensor:
        """The noise, float64 [M, D]."""
        return (self.term_KMD.double() * self.step_KM.double()[:, :, None]).sum(0)


def split_int8(value_MD: torch.Tensor, terms: int) -> SplitNoise:
    """Split float [M, D] row by row into `terms` int8 terms, each 254 times finer."""
    step_M = value_MD.abs().amax(dim=1).clamp_min(1e-30).double() / LEVELS
    rest_MD = value_MD.double()
    term_KMD = torch.empty((terms, *value_MD.shape), dtype=torch.int8)
    step_KM = torch.empty((terms, len(value_MD)), dtype=torch.float32)
    for k in range(terms):
        step_KM[k] = step_M
        exact_M = step_KM[k].double()[:, None]  # the step as stored, so that value_MD is exact
        whole_MD = (rest_MD / exact_M).round_().clamp_(-LEVELS, LEVELS)
        term_KMD[k] = whole_MD
        rest_MD = rest_MD - whole_MD * exact_M
        step_M = step_M / (2 * LEVELS)
    return SplitNoise(term_KMD, step_KM)


def noise(seed: int, index_M: NDArray[np.int64], dim: int) -> torch.Tensor:
    """Standard normal noise, float32 [M, dim], row m a function of (seed, index_M[m])."""
    return torch.from_numpy(gaussian(seed, index_M, dim))
