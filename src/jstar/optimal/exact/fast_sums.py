"""The fused kernel of the optimal loss: see softmax_sums.c and `jstar.native`."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from jstar.native import address as _at
from jstar.native import load

SOURCE = Path(__file__).with_name("softmax_sums.c")
FLAGS = ("-ffast-math",)
WIDE = ("-mprefer-vector-width=512",)
ROWS_A_PIECE = 32


@cache
def sums_kernel() -> ctypes.CDLL | None:
    """The compiled kernel, or None: no compiler, it failed, or JSTAR_NATIVE=0."""
    return load(SOURCE, (*FLAGS, *WIDE), FLAGS)


def _long(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def moments_int8(
    kernel: ctypes.CDLL, z_ND: torch.Tensor, norm_N: torch.Tensor, sum_D: torch.Tensor
) -> None:
    """Squared norms of the rows of an int8 tile, and its column sums added to `sum_D`."""
    rows, dim = z_ND.shape
    kernel.jstar_moments_int8(_at(z_ND), _long(rows), _long(dim), _at(norm_N), _at(sum_D))


def sums_int(
    kernel: ctypes.CDLL, raw: Callable[[int, int], torch.Tensor], norm_M: torch.Tensor,
    norm_N: torch.Tensor, own_M: torch.Tensor, step_M: torch.Tensor, h_N: torch.Tensor,
    beta_S: torch.Tensor, underflow: float, out_AMSF: torch.Tensor, piece: int = ROWS_A_PIECE,
) -> None:  # fmt: skip
    """Add the softmax sums of exact int32 products to `out_AMSF` (float64).

    raw(first, stop): the products of these draws, [2, n, N]; called by each thread for its own.
    """
    signs, count, scales, fields = out_AMSF.shape
    columns = len(h_N)

    def work(first: int, stop: int) -> None:
        raw_2MN = raw(first, stop)
        kernel.jstar_sums_int(
            _at(raw_2MN[0]), _long(raw_2MN.stride(0)), _at(norm_M, first), _at(norm_N),
            _at(own_M, first), _at(step_M, first), _at(h_N), _long(stop - first), _long(columns),
            _at(beta_S), ctypes.c_int(scales), ctypes.c_int(signs), ctypes.c_float(underflow),
            _at(out_AMSF[0], first), _long(count * scales * fields),
        )  # fmt: skip

    over_rows(count, work, piece)


def sums_float(
    kernel: ctypes.CDLL, q_MN: torch.Tensor, e_MN: torch.Tensor, h_N: torch.Tensor,
    beta_S: torch.Tensor, underflow: float, out_AMSF: torch.Tensor,
) -> None:  # fmt: skip
    """Add the softmax sums of q and e to `out_AMSF` (float64)."""
    signs, count, scales, fields = out_AMSF.shape
    columns = q_MN.shape[1]

    def work(first: int, stop: int) -> None:
        kernel.jstar_sums_float(
            _at(q_MN, first), _at(e_MN, first), _at(h_N), _long(stop - first), _long(columns),
            _at(beta_S), ctypes.c_int(scales), ctypes.c_int(signs),
            ctypes.c_float(underflow), _at(out_AMSF[0], first), _long(count * scales * fields),
        )  # fmt: skip

    over_rows(count, work)


def over_rows(count: int, work: Callable[[int, int], None], piece: int = ROWS_A_PIECE) -> None:
    """Call work(first, stop) for pieces of range(count) on torch's number of threads.

    ctypes releases the interpreter lock, so plain threads do. Every piece owns its rows of the
    result: the answer does not depend on the number of threads.
    """
    pieces = [(a, min(a + piece, count)) for a in range(0, count, piece)]
    if torch.get_num_threads() == 1 or len(pieces) == 1:
        for first, stop in pieces:
            work(first, stop)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda ends: work(*ends), pieces))
