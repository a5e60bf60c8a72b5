"""SNIS, DOL and cDOL: the estimators from random subsets of L points (arXiv 2506.13763, section 3).

They are there for comparison, and for data too large to pass over. DOL draws its sources from the
subset itself; its mean is the mean optimal loss of random L-subsets, a lower bound of J*. The risk
of the SNIS denoiser, whose subset does not depend on the draw, is an upper bound, as any
denoiser's risk is. cDOL is DOL with weight 1/C on the source's own term.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.constants import NORMAL_95
from jstar.curve import OptimalLoss
from jstar.errors import JstarError
from jstar.optimal.exact.data_moments import DataMoments, measure_moments
from jstar.optimal.exact.distances import choose_precision, make_queries
from jstar.optimal.exact.problem import Floats
from jstar.optimal.points import DataPoints

SUBSET_ESTIMATORS = ("dol", "cdol", "snis")
DEFAULT_SUBSET = 5000
DEFAULT_REPEATS = 8
OWN_FACTOR = 4.0  # C = 4 N / L, the paper's constant for its moment form
SOURCE_STREAM, SUBSET_STREAM = 1 << 40, 1 << 41  # apart from the streams of the noise


@dataclass(frozen=True)
class SubsetPlan:
    """L points in each of `repeats` random subsets; C = own_weight. None: the default."""

    subset: int | None
    repeats: int
    own_weight: float | None

    def size(self, count: int) -> int:
        """L. Raises JstarError."""
        size = min(DEFAULT_SUBSET, count) if self.subset is None else self.subset
        if not 1 <= size <= count:
            raise JstarError(f"subset = {size} is not allowed, it must be 1 to {count} points")
        if self.repeats < 2:
            raise JstarError(
                f"repeats = {self.repeats} is not allowed, a standard error needs at least 2"
            )
        return size

    def constant(self, count: int) -> float:
        """C, at least 1. Raises JstarError."""
        size = self.size(count)
        if self.own_weight is None:
            return 1.0 if size == count else OWN_FACTOR * count / size
        if not self.own_weight >= 1:
            raise JstarError(f"own_weight = {self.own_weight:g} is not allowed, it is at least 1")
        return self.own_weight


def subset_curve(
    points: DataPoints, sigma_S: Floats, estimator: str, plan: SubsetPlan, queries: int, seed: int,
    device: torch.device,
) -> OptimalLoss:  # fmt: skip
    """The curve of `snis`, `dol` or `cdol`, with DOL and SNIS as its bounds.

    Errors come from the scatter of the subsets' means: the draws of one subset share its luck.
    """
    size, constant = plan.size(len(points)), plan.constant(len(points))
    moments = measure_moments(points, device)
    mean_ERS = subset_means(
        points, moments, sigma_S, size, [constant], plan.repeats, queries, seed, device
    )
    value_ES = mean_ERS.mean(axis=1)
    error_ES = standard_errors(mean_ERS)
    k = SUBSET_ESTIMATORS.index(estimator)
    residual_RS = mean_ERS[k] - value_ES[k]
    spread_S = np.sqrt((residual_RS**2).sum(0))
    spread_S = np.where(spread_S > 0, spread_S, 1.0)
    correlation_SS = residual_RS.T @ residual_RS / np.outer(spread_S, spread_S)
    np.fill_diagonal(correlation_SS, 1.0)
    return OptimalLoss(
        sigma=sigma_S,
        loss=value_ES[k],
        stderr=error_ES[k],
        lower=np.maximum(value_ES[0] - NORMAL_95 * error_ES[0], 0.0),
        upper=value_ES[2] + NORMAL_95 * error_ES[2],
        correlation_SS=correlation_SS,
        form=(("pair", "moment", "risk")[k],) * len(sigma_S),
        estimator=estimator,
        queries=queries // plan.repeats * plan.repeats,
        count=len(points),
        dim=points.dim,
        variance=points.scale**2 / points.dim * moments.variance,
        log_count=float(np.log(len(points))),
        subset=size,
        repeats=plan.repeats,
    )


def subset_means(
    points: DataPoints, moments: DataMoments, sigma_S: Floats, size: int,
    constants: Sequence[float], repeats: int, queries: int, seed: int, device: torch.device,
) -> Floats:  # fmt: skip
    """Means of each random subset of `size` points, data scale, per dimension, [E, R, S].

    E: DOL, cDOL for each constant C, SNIS. Each subset has queries / repeats draws.
    Raises JstarError for fewer than two draws a subset.
    """
    each = queries // repeats
    if each < 2:
        raise JstarError(
            f"queries = {queries} is not allowed, {repeats} subsets need at least {2 * repeats}"
        )
    means = [
        _one_subset(
            points, moments, sigma_S, size, constants, np.arange(r * each, (r + 1) * each), seed,
            device,
        )
        for r in range(repeats)
    ]  # fmt: skip
    return np.stack(means, axis=1)


def standard_errors(mean_ERS: Floats) -> Floats:
    """Of the mean over the subsets, [E, S]."""
    error_ES: Floats = mean_ERS.std(axis=1, ddof=1) / np.sqrt(mean_ERS.shape[1])
    return error_ES


def _one_subset(
    points: DataPoints, moments: DataMoments, sigma_S: Floats, size: int,
    constants: Sequence[float], number_M: NDArray[np.int64], seed: int, device: torch.device,
) -> Floats:  # fmt: skip
    """Mean DOL (pair form), cDOL (moment form) of each C and SNIS (risk) of one subset, [E, S]."""
    stream = int(number_M[0])
    chosen = _random(seed, SUBSET_STREAM + stream)
    member_L = np.sort(chosen.choice(len(points), size, replace=False))
    z_LD = points.take(member_L).to(device)
    draw = _random(seed, SOURCE_STREAM + stream)
    few = len(number_M) <= size
    inside_M = member_L[np.sort(draw.choice(size, len(number_M), replace=not few))]
    outside_M = draw.integers(0, len(points), len(number_M))
    unit = points.scale**2 / points.dim
    precision = choose_precision("auto", points, device)
    out_ES = np.empty((2 + len(constants), len(sigma_S)))
    near_LD = z_LD.float() - moments.anchor_D.to(device)
    for own, source_M in ((True, inside_M), (False, outside_M)):
        queries = make_queries(
            points, source_M, number_M, seed, precision, device, moments.anchor_D
        )
        own_M = np.searchsorted(member_L, source_M)
        found = (own_M < size) & (member_L[np.minimum(own_M, size - 1)] == source_M)
        local = replace(queries, source_M=np.where(found, own_M, -1))  # places in the subset
        q, e = local.tile(z_LD, 0)
        y_MD = (queries.z_MD.cpu() - moments.anchor_D).to(device)
        for s, sigma in enumerate(sigma_S):
            logit_ML = (q.double() * -((points.scale / sigma) ** 2)).add_(
                e, alpha=points.scale / sigma
            )
            if not own:
                mean_MD = torch.softmax(logit_ML, dim=1).float() @ near_LD
                risk_M = (y_MD - mean_MD).square().sum(1, dtype=torch.float64)
                out_ES[-1, s] = unit * float(risk_M.mean())
                continue
            pair_M = (torch.softmax(logit_ML, dim=1) * q).sum(1)
            out_ES[0, s] = unit * float(pair_M.mean())
            place = torch.arange(len(own_M)), torch.from_numpy(own_M)
            for k, constant in enumerate(constants, 1):
                logit_ML[place] = -np.log(constant)  # the source's own logit is 0
                mean_MD = torch.softmax(logit_ML, dim=1).float() @ near_LD
                square_M = mean_MD.square().sum(1, dtype=torch.float64)
                out_ES[k, s] = unit * (moments.total - float(square_M.mean()))
    return out_ES


def _random(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream]))
