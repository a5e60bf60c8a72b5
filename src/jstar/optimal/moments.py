"""One cheap pass over the points: norms about an anchor, and variances along main directions.

They give the strata of the draws and the known means of the control variates. Anchor and
directions may be anything (they come from a sample of the points); the averages over all points
are exact, and only those enter as known means. Eight-bit data get an int8 anchor and int8
directions, so that this pass, too, is one exact int8 product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.optimal.points import TILE, Points
from jstar.optimal.products import column_moments, int8_product

SAMPLE = 768  # points from which anchor and directions are taken
DIRECTIONS = 64
RANK_TOLERANCE = 1e-6  # directions below this share of the largest variance are left out

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Second moments of all N points about the anchor, in centred stored units.

    half_norm_N: |z_n - anchor|^2 / 2. power_P: mean over n of (direction_p . (z_n - anchor))^2,
    the directions of unit length. square_N: |z_n|^2 exactly (int8 data). variance: total variance
    about the true mean.
    """

    anchor_D: torch.Tensor
    direction_DP: torch.Tensor
    half_norm_N: Floats
    power_P: Floats
    variance: float
    square_N: torch.Tensor | None = None

    @property
    def total(self) -> float:
        """Mean of |z_n - anchor|^2."""
        return 2 * float(self.half_norm_N.mean())


def measure_moments(
    points: Points, device: torch.device, advance: Callable[[float], None] | None = None
) -> Moments:
    """Read all points once. Raises JstarError at NaN or infinite values."""
    size = min(len(points), SAMPLE)
    sample_MD = points.take((np.arange(size) * len(points)) // size).float()
    anchor_D = sample_MD.mean(0)
    if points.integer:
        anchor_D = anchor_D.round()
    direction_DP = _main_directions(sample_MD - anchor_D)
    scan = _Int8Scan if points.integer else _FloatScan
    pass_over = scan(anchor_D, direction_DP, len(points), device)
    for start, stop in points.tiles(TILE):
        pass_over.add(points.tile(start, stop).to(device), start, stop)
        if advance is not None:
            advance(stop - start)
    return pass_over.finish()


def _main_directions(centred_MD: torch.Tensor) -> torch.Tensor:
    """Leading principal directions of a sample of M points, unit columns [D, P]."""
    gram_MM = (centred_MD @ centred_MD.t()).double()
    value_M, vector_MM = torch.linalg.eigh(gram_MM)
    kept = int((value_M > RANK_TOLERANCE * value_M[-1].clamp_min(1e-300)).sum())
    chosen_MP = vector_MM.flip(1)[:, : min(kept, DIRECTIONS)].float()
    return torch.nn.functional.normalize(centred_MD.t() @ chosen_MP, dim=0)


class _FloatScan:
    """Sums over tiles of float points."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, device: torch.device
    ) -> None:
        self.anchor, self.direction = anchor_D.to(device), direction_DP.to(device)
        self.half_norm_N = np.empty(size)
        self.power_P = torch.zeros(direction_DP.shape[1], dtype=torch.float64, device=device)
        self.shift_D = torch.zeros(len(anchor_D), dtype=torch.float64, device=device)

    def add(self, tile_ND: torch.Tensor, start: int, stop: int) -> None:
        z_ND = tile_ND - self.anchor
        half_N = 0.5 * z_ND.square().sum(1, dtype=torch.float64)
        self.half_norm_N[start:stop] = half_N.cpu().numpy()
        self.power_P += (z_ND @ self.direction).double().square().sum(0)
        self.shift_D += z_ND.sum(0, dtype=torch.float64)

    def finish(self) -> Moments:
        size = len(self.half_norm_N)
        total = 2 * float(self.half_norm_N.mean())
        if not np.isfinite(total):
            raise JstarError("images: their squares overflow float32, scale the data down")
        variance = max(total - float((self.shift_D / size).square().sum()), 0.0)
        power_P = (self.power_P / size).cpu().numpy()
        return Moments(self.anchor.cpu(), self.direction.cpu(), self.half_norm_N, power_P, variance)


class _Int8Scan:
    """Sums over tiles of int8 points; everything that enters a known mean is exact."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, device: torch.device
    ) -> None:
        whole_DP = (direction_DP * (127 / direction_DP.abs().amax(0).clamp_min(1e-30))).round()
        self.length_P = whole_DP.double().square().sum(0).sqrt().clamp_min(1.0)
        self.direction_DP = (whole_DP / self.length_P.float()).float()
        self.anchor_D = anchor_D
        self.anchor_square = float(anchor_D.double().square().sum())
        self.operand = torch.cat([anchor_D[None], whole_DP.t()]).to(torch.int8).to(device)
        self.offset_P = (anchor_D.double() @ whole_DP.double()).to(device)
        self.square_N = torch.empty(size, dtype=torch.int32, device=device)
        self.half_norm_N = np.empty(size)
        self.power_P = torch.zeros(len(self.length_P), dtype=torch.float64, device=device)
        self.sum_D = torch.zeros(len(anchor_D), dtype=torch.float64, device=device)

    def add(self, z_ND: torch.Tensor, start: int, stop: int) -> None:
        square_N, sum_D = column_moments(z_ND)
        raw_NA = int8_product(z_ND, self.operand).double()
        half_N = 0.5 * (square_N + self.anchor_square) - raw_NA[:, 0]
        self.half_norm_N[start:stop] = half_N.cpu().numpy()
        self.power_P += (raw_NA[:, 1:] - self.offset_P).square().sum(0)
        self.square_N[start:stop] = square_N
        self.sum_D += sum_D.double()

    def finish(self) -> Moments:
        size = len(self.half_norm_N)
        shift_D = self.sum_D.cpu() / size - self.anchor_D.double()
        variance = 2 * float(self.half_norm_N.mean()) - float(shift_D.square().sum())
        power_P = (self.power_P.cpu() / self.length_P.square() / size).numpy()
        return Moments(
            self.anchor_D, self.direction_DP, self.half_norm_N, power_P, max(variance, 0.0),
            self.square_N,
        )  # fmt: skip
