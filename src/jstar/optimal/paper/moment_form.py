"""The paper's form A - |D*|^2 of each draw (arXiv 2506.13763, theorem 1), for comparison.

It needs D* itself: a third product for every noise scale and sign, where the pair form needs none.
All posterior means of a chunk of draws come from the same two products, tile by tile.
"""

import math

import numpy as np
import torch

from jstar.errors import JstarError
from jstar.optimal.exact.distances import Queries
from jstar.optimal.exact.problem import Advance, DrawForm, ExactProblem, Floats, chunks_of
from jstar.optimal.exact.softmax_sums import UNDERFLOW
from jstar.optimal.points import DataPoints

MEAN_BYTES = 1 << 28  # of the posterior means that are summed at a time


class MomentForm(DrawForm):
    """A - |D*|^2, both taken about the anchor."""

    name = "moment"

    def values(self, problem: ExactProblem, advance: Advance | None) -> Floats:
        """The moment form of each draw, averaged over the antithetic pair, [M, S]."""
        moments, points, signs = problem.moments, problem.points, problem.signs
        value_MS = np.full((len(problem.source_M), len(problem.sigma_S)), moments.total)
        beta_S = [points.scale / float(sigma) for sigma in problem.sigma_S]
        draws = max(16, MEAN_BYTES // (4 * len(beta_S) * signs * points.dim))
        for group in problem.groups():
            for part in chunks_of(len(group.rows_M), draws):
                chunk = problem.queries(group, part)
                square_SM = mean_squares(group.points, chunk, beta_S, signs, moments.anchor_D)
                value_MS[group.rows_M[part]] -= square_SM.T
                if advance is not None:
                    advance(len(group.points) * len(chunk) / len(group.rows_M))
        return value_MS


def mean_squares(
    points: DataPoints, queries: Queries, beta_S: list[float], signs: int, anchor_D: torch.Tensor
) -> Floats:
    """|D* - anchor|^2 of each draw, averaged over the antithetic pair, stored units, [S, M].

    beta = 1 / sigma in stored units. Weights are relative to the source's own, as in `sums`.
    """
    device, count = queries.operand_QD.device, len(queries)
    anchor_D = anchor_D.to(device)
    shape = (len(beta_S), signs, count)
    total = torch.zeros((*shape, points.dim), device=device)
    weight = torch.zeros(shape, dtype=torch.float64, device=device)
    for start, stop in points.tiles():
        z_ND = points.tile(start, stop).to(device)
        q, e = queries.tile(z_ND, start)
        near_ND = z_ND.float() - anchor_D
        for s, beta in enumerate(beta_S):
            base = q * (-beta * beta)
            for a in range(signs):
                w = torch.add(base, e, alpha=-beta if a else beta).exp_()
                if float(w.max()) < math.exp(UNDERFLOW):
                    continue  # no product for a tile without weight
                weight[s, a] += w.sum(1, dtype=torch.float64)
                total[s, a].addmm_(w, near_ND)
    square = torch.linalg.vecdot(total, total).double() / weight.square()
    if not bool(torch.isfinite(square).all()):
        raise JstarError("images: their distances overflow float32, scale the data down")
    mean_SM: Floats = square.mean(1).cpu().numpy()
    return mean_SM
