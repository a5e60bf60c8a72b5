"""One cheap pass over the points: norms about an anchor, and variances along main directions.

They give the strata of the draws and the known means of the control variates. Anchor and
directions may be anything (they come from a sample of the points); the averages over all points
are exact, and only those enter as known means. Eight-bit data get an int8 anchor and int8
directions, so that this pass, too, is one exact int8 product.

Averages are taken over the groups that a posterior runs over: the classes for class-conditional
data, else one group of all points.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.optimal.exact.distances import column_moments, int8_product
from jstar.optimal.points import TILE, DataPoints

SAMPLE = 768  # points from which anchor and directions are taken
DIRECTIONS = 64
DIRECTION_TOLERANCE = 1e-6  # directions below this share of the largest variance are left out

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DataMoments:
    """First and second moments of all N points in centred stored units, by group.

    half_norm_N: |z_n - anchor|^2 / 2. square_N: |z_n|^2 exactly (int8 data). group_N: the group of
    each point, None if there is one. share_G: of the points in each group. total_G: mean of
    |z_n - anchor|^2. shift_GD: mean - anchor. power_GP: variance along the directions, which have
    unit length.
    """

    anchor_D: torch.Tensor
    direction_DP: torch.Tensor
    half_norm_N: Floats
    square_N: torch.Tensor | None
    group_N: NDArray[np.int64] | None
    share_G: Floats
    total_G: Floats
    shift_GD: Floats
    power_GP: Floats

    @property
    def total(self) -> float:
        """Mean of |z_n - anchor|^2."""
        return 2 * float(self.half_norm_N.mean())

    @property
    def variance_G(self) -> Floats:
        """Total variance about each group's mean."""
        variance_G: Floats = np.maximum(self.total_G - np.square(self.shift_GD).sum(1), 0.0)
        return variance_G

    @property
    def variance(self) -> float:
        """Mean variance within the groups: J* at infinite sigma."""
        return float(self.share_G @ self.variance_G)

    @property
    def rest_G(self) -> Floats:
        """Mean variance of the dimensions that the directions leave."""
        dim, known = self.direction_DP.shape
        rest_G: Floats = np.maximum(self.variance_G - self.power_GP.sum(1), 0.0)
        return rest_G / max(dim - known, 1)

    def merged(self) -> "DataMoments":
        """The same of all points as one group."""
        known_DP = self.direction_DP.double().numpy()
        shift_1D = self.share_G[None] @ self.shift_GD
        between_GP = (self.shift_GD - shift_1D) @ known_DP
        power_1P = self.share_G[None] @ (self.power_GP + between_GP**2)
        return replace(
            self, group_N=None, share_G=np.ones(1), total_G=np.array([self.total]),
            shift_GD=shift_1D, power_GP=power_1P,
        )  # fmt: skip


def measure_moments(
    points: DataPoints,
    device: torch.device,
    advance: Callable[[float], None] | None = None,
    labels_N: NDArray[np.int64] | None = None,
) -> DataMoments:
    """Read all points once; `labels_N` (mirror images too) names their groups.

    Raises JstarError at NaN or infinite values.
    """
    size = min(len(points), SAMPLE)
    sample_ND = points.take((np.arange(size) * len(points)) // size).float()
    anchor_D = sample_ND.mean(0)
    if points.integer:
        anchor_D = anchor_D.round()
    direction_DP = _main_directions(sample_ND - anchor_D)
    group_N, groups = None, 1
    if labels_N is not None:
        names, group_N = np.unique(labels_N, return_inverse=True)
        groups = len(names)
    scan = _Int8Scan if points.integer else _FloatScan
    pass_over = scan(anchor_D, direction_DP, len(points), groups, device)
    for start, stop in points.tiles(TILE):
        tile_group_N = None if group_N is None else torch.from_numpy(group_N[start:stop]).to(device)
        pass_over.add(points.tile(start, stop).to(device), start, stop, tile_group_N)
        if advance is not None:
            advance(stop - start)
    return pass_over.finish(group_N)


def _main_directions(centred_ND: torch.Tensor) -> torch.Tensor:
    """Leading principal directions of a sample of the points, unit columns [D, P]."""
    gram_NN = (centred_ND @ centred_ND.t()).double()
    value_N, vector_NN = torch.linalg.eigh(gram_NN)
    kept = int((value_N > DIRECTION_TOLERANCE * value_N[-1].clamp_min(1e-300)).sum())
    chosen_NP = vector_NN.flip(1)[:, : min(kept, DIRECTIONS)].float()
    return torch.nn.functional.normalize(centred_ND.t() @ chosen_NP, dim=0)


def _add_by_group(sums: torch.Tensor, rows: torch.Tensor, group_N: torch.Tensor | None) -> None:
    """Add the rows of a tile, [N, ...], to the sums of their groups, float64 [G, ...]."""
    if group_N is None:
        sums[0] += rows.sum(0, dtype=sums.dtype)
        return
    # A tile's sums in the rows' own precision: exact for int8 values, and half the bytes.
    present, place_N = torch.unique(group_N, return_inverse=True)
    part = rows.new_zeros((len(present), rows.shape[1]))
    sums[present] += part.index_add_(0, place_N, rows).double()


class _Scan:
    """Sums over tiles of points, by group: what both kinds of points share."""

    def __init__(self, dim: int, known: int, size: int, groups: int, device: torch.device) -> None:
        def zeros(columns: int) -> torch.Tensor:
            return torch.zeros((groups, columns), dtype=torch.float64, device=device)

        self.along_GP, self.power_GP, self.sum_GD = zeros(known), zeros(known), zeros(dim)
        self.half_norm_N = np.empty(size)

    def add_along(self, along_NP: torch.Tensor, group_N: torch.Tensor | None) -> None:
        """Projections of a tile, about the anchor."""
        _add_by_group(self.along_GP, along_NP, group_N)
        _add_by_group(self.power_GP, along_NP.square(), group_N)

    def result(
        self,
        anchor_D: torch.Tensor,
        direction_DP: torch.Tensor,
        origin_D: torch.Tensor,
        square_N: torch.Tensor | None,
        group_N: NDArray[np.int64] | None,
    ) -> DataMoments:
        """From sums to means; `sum_GD` was taken about `origin_D`."""
        size, groups = len(self.half_norm_N), len(self.sum_GD)
        label_N = np.zeros(size, dtype=np.int64) if group_N is None else group_N
        count_G = np.bincount(label_N, minlength=groups).astype(np.float64)
        total_G = 2 * np.bincount(label_N, self.half_norm_N, groups) / count_G
        along_GP = self.along_GP.cpu().numpy() / count_G[:, None]
        power_GP = self.power_GP.cpu().numpy() / count_G[:, None] - along_GP**2
        shift_GD = self.sum_GD.cpu().numpy() / count_G[:, None]
        shift_GD -= (anchor_D - origin_D).double().numpy()
        return DataMoments(
            anchor_D, direction_DP, self.half_norm_N, square_N, group_N, count_G / size, total_G,
            shift_GD, np.maximum(power_GP, 0.0),
        )  # fmt: skip


class _FloatScan(_Scan):
    """Sums over tiles of float points."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, groups: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(len(anchor_D), direction_DP.shape[1], size, groups, device)
        self.anchor, self.direction = anchor_D.to(device), direction_DP.to(device)

    def add(
        self, tile_ND: torch.Tensor, start: int, stop: int, group_N: torch.Tensor | None
    ) -> None:
        z_ND = tile_ND - self.anchor
        half_N = 0.5 * z_ND.square().sum(1, dtype=torch.float64)
        self.half_norm_N[start:stop] = half_N.cpu().numpy()
        self.add_along((z_ND @ self.direction).double(), group_N)
        _add_by_group(self.sum_GD, z_ND, group_N)

    def finish(self, group_N: NDArray[np.int64] | None) -> DataMoments:
        if not np.isfinite(self.half_norm_N.mean()):
            raise JstarError("images: their squares overflow float32, scale the data down")
        anchor_D = self.anchor.cpu()
        return self.result(anchor_D, self.direction.cpu(), anchor_D, None, group_N)


class _Int8Scan(_Scan):
    """Sums over tiles of int8 points; everything that enters a known mean is exact."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, groups: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(len(anchor_D), direction_DP.shape[1], size, groups, device)
        whole_DP = (direction_DP * (127 / direction_DP.abs().amax(0).clamp_min(1e-30))).round()
        length_P = whole_DP.double().square().sum(0).sqrt().clamp_min(1.0)
        self.direction_DP = (whole_DP / length_P.float()).float()
        self.anchor_D = anchor_D
        self.anchor_square = float(anchor_D.double().square().sum())
        self.operand = torch.cat([anchor_D[None], whole_DP.t()]).to(torch.int8).to(device)
        self.offset_P = (anchor_D.double() @ whole_DP.double()).to(device)
        self.length_P = length_P.to(device)
        self.square_N = torch.empty(size, dtype=torch.int32, device=device)

    def add(self, z_ND: torch.Tensor, start: int, stop: int, group_N: torch.Tensor | None) -> None:
        square_N, sum_D = column_moments(z_ND)
        raw_NQ = int8_product(z_ND, self.operand).double()
        half_N = 0.5 * (square_N + self.anchor_square) - raw_NQ[:, 0]
        self.half_norm_N[start:stop] = half_N.cpu().numpy()
        self.add_along((raw_NQ[:, 1:] - self.offset_P) / self.length_P, group_N)
        self.square_N[start:stop] = square_N
        if group_N is None:
            self.sum_GD[0] += sum_D.double()
        else:
            _add_by_group(self.sum_GD, z_ND.float(), group_N)

    def finish(self, group_N: NDArray[np.int64] | None) -> DataMoments:
        origin_D = torch.zeros_like(self.anchor_D)
        return self.result(self.anchor_D, self.direction_DP, origin_D, self.square_N, group_N)
