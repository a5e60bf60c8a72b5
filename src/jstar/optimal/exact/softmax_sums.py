"""Softmax sums over the points for every draw and noise scale, without a matrix product.

Relative to the source's own logit, which is 0, no logit exceeds about ln N + 10 for Gaussian
noise (max over n of g_n^2 / 2), and the full sum is at least 1: float32 exponentials need no
running maximum, plain sums over tiles are exact enough, and sums of different shards just add.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from jstar.errors import JstarError
from jstar.optimal.exact import fast_sums, products
from jstar.optimal.exact.distances import Queries, has_int8_units, int_dots
from jstar.optimal.points import DataPoints

FIELDS = 4  # sums of w, w q, w e, w h
UNDERFLOW = -40.0  # a term below e^-40 of the source's own cannot change a printed digit
CHUNK = 1 << 17  # elements that stay in a core's second-level cache


def add_sums_torch(
    q_MN: torch.Tensor, e_MN: torch.Tensor, h_N: torch.Tensor, beta_S: torch.Tensor,
    out_AMSF: torch.Tensor,
) -> None:  # fmt: skip
    """Add sum_n w {1, q, e, h} with w = exp(beta (+-e - beta q)) to out, float64.

    In torch: on a GPU, and where there is no C compiler. beta = 1 / sigma, float64 [S]. A = 1, or
    2 for the antithetic pair (the second has -e for e).
    """
    rows = q_MN.shape[0] if q_MN.is_cuda else max(1, CHUNK // q_MN.shape[1])
    one_h = torch.stack([torch.ones_like(h_N), h_N], dim=1)
    for first in range(0, len(q_MN), rows):
        part = slice(first, first + rows)
        q, e = q_MN[part], e_MN[part]
        nearest, widest = float(q.min()), float(e.abs().max())
        for s, beta in enumerate(beta_S.tolist()):
            if beta * (widest - beta * nearest) < UNDERFLOW:
                continue
            base = q * (-beta * beta)
            for a in range(len(out_AMSF)):
                w = torch.add(base, e, alpha=-beta if a else beta).exp_()
                target = out_AMSF[a, part, s]
                target[:, 0::3] += w @ one_h
                target[:, 1] += torch.linalg.vecdot(w, q)
                target[:, 2] += torch.linalg.vecdot(w, e)


def _products(chunk: Queries, z_ND: torch.Tensor) -> tuple[Callable[[int, int], torch.Tensor], int]:
    """What gives the int8 products of some draws with a tile, and how many draws at a time.

    torch makes all at once; those of products.c are summed while they are in the cache.
    """
    if has_int8_units() or products.products_kernel() is None:
        raw_2MN = chunk.raw(z_ND).reshape(2, len(chunk), -1)
        return lambda first, stop: raw_2MN[:, first:stop], fast_sums.ROWS_A_PIECE
    packed = products.PackedPoints.of(z_ND, narrow=True)
    return partial(chunk.raw_rows, packed), products.ROWS_A_PIECE


def stream_sums(
    points: DataPoints, chunks: list[Queries], beta_S: torch.Tensor, half_norm_N: torch.Tensor,
    square_N: torch.Tensor | None, *, signs: int = 2, tiles: Iterable[tuple[int, int]],
    advance: Callable[[float], None] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Sums [A, M, S, F] over the tiles of points for all chunks of draws, float64 on the CPU.

    half_norm_N: h of every point, float32 (a control variate of known mean). square_N: |z_n|^2.
    """
    device, sizes = chunks[0].operand_QD.device, [len(chunk) for chunk in chunks]
    shape = (len(beta_S), FIELDS)
    outs = [
        torch.zeros((signs, size, *shape), dtype=torch.float64, device=device) for size in sizes
    ]
    kernel = fast_sums.sums_kernel() if device.type == "cpu" else None
    for start, stop in tiles:
        z_ND = points.tile(start, stop).to(device)
        h_N = half_norm_N[start:stop]
        for chunk, out in zip(chunks, outs, strict=True):
            if kernel is None:
                add_sums_torch(*chunk.tile(z_ND, start), h_N, beta_S, out)
            elif chunk.step_M is None:
                q_MN, e_MN = chunk.tile(z_ND, start)
                fast_sums.sums_float(kernel, q_MN, e_MN, h_N, beta_S, UNDERFLOW, out)
            else:
                norm_N = int_dots(z_ND, z_ND) if square_N is None else square_N[start:stop]
                raw, piece = _products(chunk, z_ND)
                fast_sums.sums_int(
                    kernel, raw, chunk.norm_M, norm_N, chunk.own_M, chunk.step_M, h_N, beta_S,
                    UNDERFLOW, out, piece,
                )  # fmt: skip
        if advance is not None:
            advance(stop - start)
    sums = torch.cat(outs, dim=1).cpu()
    if not bool(torch.isfinite(sums).all()):
        raise JstarError("images: their distances overflow float32, scale the data down")
    return sums
