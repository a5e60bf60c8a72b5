"""The pair form: J* of a draw is half the mean squared distance of its source and the points.

    J* = E sum_n w_n |x_i - x_n|^2 / 2        (METHOD section 1, item 2)

Given x, source and point are two independent draws of one posterior: never negative, and no D*.
"""

from collections.abc import Iterator

import numpy as np
import torch

from jstar.optimal.exact.control_variates import controls_at, project_draws
from jstar.optimal.exact.problem import (
    Advance,
    DrawForm,
    ExactProblem,
    Floats,
    PointGroup,
    chunks_of,
)
from jstar.optimal.exact.regression import LossEstimate, mean_of_draws, regress
from jstar.optimal.exact.softmax_sums import FIELDS, stream_sums

RESOLUTION = 1e-17  # of the variance: below it a draw's pair form is what underflow left over


def pair_of_draws(sums_AMF: Floats, total: float) -> Floats:
    """J* of each draw at one noise scale, [M]: the mean over its antithetic pair.

    Fields 0 and 1 are sum_n w and sum_n w |x_i - x_n|^2 / 2. total: mean |x_n - anchor|^2.
    """
    pair_AM = sums_AMF[..., 1] / sums_AMF[..., 0]
    pair_M: Floats = np.where(pair_AM > RESOLUTION * total, pair_AM, 0.0).mean(axis=0)
    return pair_M


def shard_tiles(
    problem: ExactProblem, shard: tuple[int, int]
) -> Iterator[tuple[PointGroup, list[tuple[int, int]]]]:
    """The tiles (start, stop) of points that shard k of n (1-based) sums, group by group."""
    (number, shards), seen = shard, 0
    for group in problem.groups():
        tiles = list(group.points.tiles())
        mine = [t for k, t in enumerate(tiles, seen) if k % shards == number - 1]
        seen += len(tiles)
        if mine:
            yield group, mine


class PairForm(DrawForm):
    """The pair form as it is. Its sums over the points of shards add up."""

    def sums(
        self, problem: ExactProblem, shard: tuple[int, int], advance: Advance | None
    ) -> Floats:
        """Softmax sums over the tiles of points that are the shard's, [A, M, S, F]."""
        shape = (problem.signs, len(problem.source_M), len(problem.sigma_S), FIELDS)
        out_AMSF = np.zeros(shape)
        beta_S = torch.from_numpy(problem.points.scale / problem.sigma_S).to(problem.device)
        for group, mine in shard_tiles(problem, shard):
            chunks = [problem.queries(group, part) for part in chunks_of(len(group.rows_M))]
            half_N = torch.from_numpy(group.half_norm_N.astype(np.float32)).to(problem.device)
            out_AMSF[:, group.rows_M] = stream_sums(
                group.points, chunks, beta_S, half_N, group.square_N,
                signs=problem.signs, tiles=mine, advance=advance,
            ).numpy()  # fmt: skip
        return out_AMSF

    def estimates(self, problem: ExactProblem, sums_AMSF: Floats) -> list[LossEstimate]:
        """J* at each noise scale, in stored units, summed over the dimensions."""
        return [mean_of_draws(pair_M, "pair") for pair_M in self.pairs(problem, sums_AMSF)]

    def pairs(self, problem: ExactProblem, sums_AMSF: Floats) -> list[Floats]:
        """`pair_of_draws` at each noise scale."""
        total, scales = problem.moments.total, range(len(problem.sigma_S))
        return [pair_of_draws(sums_AMSF[:, :, s], total) for s in scales]


class ControlledPairForm(PairForm):
    """The pair form regressed on control variates, where that lowers its error."""

    def estimates(self, problem: ExactProblem, sums_AMSF: Floats) -> list[LossEstimate]:
        """J* at each noise scale, in stored units, summed over the dimensions."""
        draws, moments, estimates = project_draws(problem), problem.moments, []
        for s, pair_M in enumerate(self.pairs(problem, sums_AMSF)):
            tau = problem.sigma_S[s] / problem.points.scale
            control_MV = controls_at(tau, sums_AMSF[:, :, s], draws, moments)
            estimates.append(regress(pair_M, control_MV, moments.total))
        return estimates
