"""Which data points are noised, and with what noise: a pure function of (seed, M, N).

Sources are a systematic sample along the points sorted by class and distance from the mean: each
source at most once while M <= N (whole rounds beyond), every point equally likely. It is the
stratification of METHOD section 1, item 3.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.noise import gaussian

LEVELS = 127  # an int8 term holds -127..127
NOISE_LEVELS = 32  # of noise: four products with a byte fit into 16 bits (products.c)


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


def split_int8(
    value_MD: torch.Tensor, terms: int, levels: int = LEVELS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split float [M, D] row by row: value = sum_k step_k * term_k, each term twice `levels`
    times finer, of whole numbers up to `levels`.

    Returns int8 terms [K, M, D] and float32 steps [K, M].
    """
    step_M = value_MD.abs().amax(dim=1).clamp_min(1e-30) / levels
    rest_MD = value_MD.clone()
    term_KMD = torch.empty((terms, *value_MD.shape), dtype=torch.int8)
    step_KM = torch.empty((terms, len(value_MD)), dtype=torch.float32)
    for k in range(terms):
        step_KM[k] = step_M
        exact_M1 = step_KM[k].to(value_MD.dtype)[:, None]  # the step as stored
        whole_MD = (rest_MD / exact_M1).round_().clamp_(-levels, levels)
        term_KMD[k] = whole_MD
        rest_MD.sub_(whole_MD.mul_(exact_M1))
        step_M = step_M / (2 * levels)
    return term_KMD, step_KM


def quantised_noise(noise_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit noise as one int8 term: the draw *is* step * term, so nothing downstream rounds.

    Returns int8 [M, D], at most NOISE_LEVELS, and float32 steps [M]. The step is chosen so that the
    draw's length is that of the Gaussian noise exactly; only its direction is rounded, to a grid of
    step h = max|eps| / 32, about 1/8. That leaves the moments of a Gaussian (Sheppard) but for
    -h^4 / 120 in the fourth cumulant, 2e-6; aliasing is exp(-2 pi^2 / h^2). One term, and two
    thirds of the products saved, is thus as good as exact Gaussian noise.
    """
    term_KMD, _ = split_int8(noise_MD, 1, NOISE_LEVELS)
    length_M, whole_M = (x.double().square().sum(1).sqrt() for x in (noise_MD, term_KMD[0]))
    return term_KMD[0], (length_M / whole_M.clamp_min(1.0)).float()


def gaussian_noise(seed: int, index_M: NDArray[np.int64], dim: int) -> torch.Tensor:
    """Standard normal noise, float32 [M, dim], row m a function of (seed, index_M[m])."""
    return torch.from_numpy(gaussian(seed, index_M, dim))
