"""Softmax sums over the points for every draw and noise scale, without a matrix product.

Relative to the source's own logit, which is 0, no logit exceeds about ln N + 10 for Gaussian
noise (max over n of g_n^2 / 2), and the full sum is at least 1: float32 exponentials need no
running maximum, plain sums over tiles are exact enough, and sums of different shards just add.
"""

from collections.abc import Callable

import torch

from jstar.errors import JstarError
from jstar.optimal.points import TILE, Points
from jstar.optimal.products import Queries

FIELDS = 4  # sum of w, w q, w e, w h
UNDERFLOW = -40.0  # a term below e^-40 of the source's own cannot change a printed digit
CHUNK = 1 << 17  # elements that stay in a core's second-level cache
ROWS = 1024  # draws in one product


def add_sums(
    out_GMSF: torch.Tensor,
    q_MN: torch.Tensor,
    e_MN: torch.Tensor,
    h_N: torch.Tensor,
    beta_S: list[float],
    shift_GMS: torch.Tensor | None = None,
) -> None:
    """Add sum_n w {1, q, e, h} with w = exp(beta (+-e - beta q) - shift) to out, float64.

    beta = 1 / sigma. G = 1, or 2 for the antithetic pair (the second has -e for e).
    """
    rows = q_MN.shape[0] if q_MN.is_cuda else max(1, CHUNK // q_MN.shape[1])
    one_h = torch.stack([torch.ones_like(h_N), h_N], dim=1)
    for first in range(0, len(q_MN), rows):
        part = slice(first, first + rows)
        q, e = q_MN[part], e_MN[part]
        finite_q = q.masked_fill(q.isinf(), 0.0)
        nearest, widest = float(q.min()), float(e.abs().max())
        for s, beta in enumerate(beta_S):
            if shift_GMS is None and beta * (widest - beta * nearest) < UNDERFLOW:
                continue
            base = q * (-beta * beta)
            for g in range(len(out_GMSF)):
                w = torch.add(base, e, alpha=-beta if g else beta)
                if shift_GMS is not None:
                    w -= shift_GMS[g, part, s, None]
                w.exp_()
                target = out_GMSF[g, part, s]
                target[:, 0::3] += w @ one_h
                target[:, 1] += torch.linalg.vecdot(w, finite_q)
                target[:, 2] += torch.linalg.vecdot(w, e)


def stream_sums(
    points: Points,
    queries: Queries,
    beta_S: list[float],
    half_norm_N: torch.Tensor,
    *,
    signs: int = 2,
    tiles: list[tuple[int, int]] | None = None,
    advance: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """Sums [G, M, S, F] over the points (or over `tiles` of them), float64, on the CPU.

    half_norm_N: h of every point, float32 (a control variate of known mean).
    """
    device = queries.operand_AD.device
    out = torch.zeros(
        (signs, len(queries), len(beta_S), FIELDS), dtype=torch.float64, device=device
    )
    for start, stop in tiles if tiles is not None else list(points.tiles(TILE)):
        z_ND = points.tile(start, stop).to(device)
        q, e = queries.tile(z_ND, start)
        add_sums(out, q, e, half_norm_N[start:stop], beta_S)
        if advance is not None:
            advance(stop - start)
    if not bool(torch.isfinite(out).all()):
        raise JstarError("images: their distances overflow float32, scale the data down")
    return out.cpu()
