"""One cheap pass over the points: norms about an anchor, and variances along main directions.

They give the strata of the draws and the known means of the control variates. Anchor and
directions may be anything (they come from a sample of the points); the averages over all points
are exact, and only those enter as known means.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.optimal.points import TILE, Points

SAMPLE = 2048  # points from which anchor and directions are taken
DIRECTIONS = 128
ITERATIONS = 3  # of the subspace iteration


@dataclass(frozen=True)
class Moments:
    """Second moments of all N points about the anchor.

    half_norm_N: |z_n - anchor|^2 / 2. power_P: mean over n of (direction_p . (z_n - anchor))^2 for
    P orthonormal directions. total: mean of |z_n - anchor|^2.
    """

    anchor_D: torch.Tensor  # float32
    direction_DP: torch.Tensor  # float32
    half_norm_N: NDArray[np.float64]
    power_P: NDArray[np.float64]
    variance: float  # total variance about the true mean

    @property
    def total(self) -> float:
        return 2 * float(self.half_norm_N.mean())


def measure_moments(points: Points, device: torch.device) -> Moments:
    """Read all points once. Raises JstarError at NaN or infinite values."""
    size = min(len(points), SAMPLE)
    index = (np.arange(size) * len(points)) // size
    sample_MD = points.take(index).float().to(device)
    anchor_D = sample_MD.mean(0)
    direction_DP = _main_directions(sample_MD - anchor_D)
    half_norm_N = np.empty(len(points))
    power_P = torch.zeros(direction_DP.shape[1], dtype=torch.float64, device=device)
    mean_D = torch.zeros(points.dim, dtype=torch.float64, device=device)
    for start, stop in points.tiles(TILE):
        z_ND = points.tile(start, stop).to(device).float() - anchor_D
        half_norm_N[start:stop] = (0.5 * z_ND.square().sum(1)).double().cpu().numpy()
        power_P += (z_ND @ direction_DP).square().sum(0).double()
        mean_D += z_ND.sum(0).double()
    spread = float((mean_D / len(points)).square().sum())
    return Moments(
        anchor_D.cpu(),
        direction_DP.cpu(),
        half_norm_N,
        (power_P / len(points)).cpu().numpy(),
        2 * float(half_norm_N.mean()) - spread,
    )


def _main_directions(centred_MD: torch.Tensor) -> torch.Tensor:
    """About the leading principal directions of a sample, orthonormal [D, P]."""
    count, dim = centred_MD.shape
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((dim, min(DIRECTIONS, dim, count)), generator=generator)
    basis = torch.linalg.qr(start.to(centred_MD.device)).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(centred_MD.t() @ (centred_MD @ basis)).Q
    # Rotate to the principal axes inside the subspace, so that shrinking by axis makes sense.
    axes = torch.linalg.eigh((centred_MD @ basis).t() @ (centred_MD @ basis)).eigenvectors
    rotated: torch.Tensor = basis @ axes.flip(1)
    return rotated
