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
    group_N, groups = None, 1
    if labels_N is not None:
        names, group_N = np.unique(labels_N, return_inverse=True)
        groups = len(names)
    scan = (_Int8Scan if points.integer else _Scan)(
        anchor_D, _main_directions(sample_ND - anchor_D), len(points), groups, device
    )
    for start, stop in points.tiles(TILE):
        tile_group_N = None if group_N is None else torch.from_numpy(group_N[start:stop]).to(device)
        scan.add(points.tile(start, stop).to(device), slice(start, stop), tile_group_N)
        if advance is not None:
            advance(stop - start)
    return scan.finish(group_N)


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
    """Sums over tiles of float points, by group."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, groups: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        def zeros(columns: int) -> torch.Tensor:
            return torch.zeros((groups, columns), dtype=torch.float64, device=device)

        self.anchor_D, self.direction_DP = anchor_D.to(device), direction_DP.to(device)
        self.origin_D = self.anchor_D  # `sum_GD` is taken about the origin
        self.square_N: torch.Tensor | None = None
        known = direction_DP.shape[1]
        self.along_GP, self.power_GP, self.sum_GD = zeros(known), zeros(known), zeros(len(anchor_D))
        self.half_norm_N = np.empty(size)

    def add(self, z_ND: torch.Tensor, part: slice, group_N: torch.Tensor | None) -> None:
        """Add a tile of points, which are `part` of all."""
        near_ND = z_ND - self.anchor_D
        half_N = 0.5 * near_ND.square().sum(1, dtype=torch.float64)
        self.half_norm_N[part] = half_N.cpu().numpy()
        self.add_along((near_ND @ self.direction_DP).double(), group_N)
        _add_by_group(self.sum_GD, near_ND, group_N)

    def add_along(self, along_NP: torch.Tensor, group_N: torch.Tensor | None) -> None:
        """Projections of a tile, about the anchor."""
        _add_by_group(self.along_GP, along_NP, group_N)
        _add_by_group(self.power_GP, along_NP.square(), group_N)

    def finish(self, group_N: NDArray[np.int64] | None) -> DataMoments:
        """From sums to means. Raises JstarError."""
        if not np.isfinite(self.half_norm_N.mean()):
            raise JstarError("images: their squares overflow float32, scale the data down")
        size, groups = len(self.half_norm_N), len(self.sum_GD)
        label_N = np.zeros(size, dtype=np.int64) if group_N is None else group_N
        count_G = np.bincount(label_N, minlength=groups).astype(np.float64)
        total_G = 2 * np.bincount(label_N, self.half_norm_N, groups) / count_G
        along_GP = self.along_GP.cpu().numpy() / count_G[:, None]
        power_GP = self.power_GP.cpu().numpy() / count_G[:, None] - along_GP**2
        shift_GD = self.sum_GD.cpu().numpy() / count_G[:, None]
        shift_GD -= (self.anchor_D - self.origin_D).double().cpu().numpy()
        return DataMoments(
            self.anchor_D.cpu(), self.direction_DP.cpu(), self.half_norm_N, self.square_N, group_N,
            count_G / size, total_G, shift_GD, np.maximum(power_GP, 0.0),
        )  # fmt: skip


class _Int8Scan(_Scan):
    """Sums over tiles of int8 points; everything that enters a known mean is exact."""

    def __init__(
        self, anchor_D: torch.Tensor, direction_DP: torch.Tensor, size: int, groups: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        whole_DP = (direction_DP * (127 / direction_DP.abs().amax(0).clamp_min(1e-30))).round()
        length_P = whole_DP.double().square().sum(0).sqrt().clamp_min(1.0)
        super().__init__(anchor_D, (whole_DP / length_P.float()).float(), size, groups, device)
        self.origin_D = torch.zeros_like(self.anchor_D)
        self.anchor_square = float(anchor_D.double().square().sum())
        self.operand_QD = torch.cat([anchor_D[None], whole_DP.t()]).to(torch.int8).to(device)
        self.offset_P = (anchor_D.double() @ whole_DP.double()).to(device)
        self.length_P = length_P.to(device)
        self.square_N = self.square_out = torch.empty(size, dtype=torch.int32, device=device)

    def add(self, z_ND: torch.Tensor, part: slice, group_N: torch.Tensor | None) -> None:
        """Add a tile of points, which are `part` of all."""
        square_N, sum_D = column_moments(z_ND)
        raw_NQ = int8_product(z_ND, self.operand_QD).double()
        half_N = 0.5 * (square_N + self.anchor_square) - raw_NQ[:, 0]
        self.half_norm_N[part] = half_N.cpu().numpy()
        self.add_along((raw_NQ[:, 1:] - self.offset_P) / self.length_P, group_N)
        self.square_out[part] = square_N
        if group_N is None:
            self.sum_GD[0] += sum_D.double()
        else:
            _add_by_group(self.sum_GD, z_ND.float(), group_N)
