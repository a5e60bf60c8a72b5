"""The paper's form A - |D*|^2 of each draw (arXiv 2506.13763, theorem 1), for comparison.

It needs D* itself: a third product for every noise scale and sign, where the pair form needs none.
All posterior means of a chunk of draws come from the same two products, tile by tile.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.optimal.exact.distances import Queries
from jstar.optimal.exact.softmax_sums import UNDERFLOW
from jstar.optimal.points import Points

MEAN_BYTES = 1 << 28  # of the posterior means that are summed at a time


def rows_at_a_time(scales: int, signs: int, dim: int) -> int:
    """Draws whose posterior means at all noise scales fit into the memory allowed."""
    return max(16, MEAN_BYTES // (4 * scales * signs * dim))


def mean_squares(
    points: Points, queries: Queries, beta_S: list[float], signs: int, anchor_D: torch.Tensor
) -> NDArray[np.float64]:
    """|D* - anchor|^2 of each draw, averaged over the antithetic pair, stored units, [S, M].

    beta = 1 / sigma in stored units. Weights are relative to the source's own, as in `sums`.
    """
    device, count = queries.operand_AD.device, len(queries)
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
            for g in range(signs):
                w = torch.add(base, e, alpha=-beta if g else beta).exp_()
                if float(w.max()) < math.exp(UNDERFLOW):
                    continue  # no product for a tile without weight
                weight[s, g] += w.sum(1, dtype=torch.float64)
                total[s, g].addmm_(w, near_ND)
    square = torch.linalg.vecdot(total, total).double() / weight.square()
    if not bool(torch.isfinite(square).all()):
        raise JstarError("images: their distances overflow float32, scale the data down")
    mean_SM: NDArray[np.float64] = square.mean(1).cpu().numpy()
    return mean_SM
