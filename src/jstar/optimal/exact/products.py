"""Products of int8 matrices on a CPU without 8-bit dot products: see products.c."""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from jstar.native import address, load
from jstar.optimal.exact.fast_sums import over_rows

SOURCE = Path(__file__).with_name("products.c")
COLUMNS, DEPTH = 16, 8  # a packed matrix ends at multiples of these
ROWS_A_PIECE = 192  # of a, and columns of b


@dataclass(frozen=True)
class PackedPoints:
    """int8 [count, dim] as products.c reads it; narrow: for factors of at most NOISE_LEVELS, or
    None."""

    count: int
    dim: int
    wide: torch.Tensor
    narrow: torch.Tensor | None

    @classmethod
    def of(cls, z_ND: torch.Tensor, *, narrow: bool) -> "PackedPoints":
        """Pack a tile of points, for narrow products too if asked."""
        (count, dim), z_ND, kernel = z_ND.shape, z_ND.contiguous(), _kernel()
        size = -(-count // COLUMNS) * COLUMNS * (-(-dim // DEPTH) * DEPTH)
        wide = torch.empty(size, dtype=torch.int16)
        small = torch.empty(size, dtype=torch.uint8) if narrow else None

        def work(first: int, stop: int) -> None:
            kernel.jstar_pack(
                address(z_ND), _long(first), _long(stop), _long(count), _long(dim), address(wide),
                None if small is None else address(small),
            )  # fmt: skip

        over_rows(count, work, ROWS_A_PIECE)
        return cls(count, dim, wide, small)

    def product(self, a_MD: torch.Tensor, out_MN: torch.Tensor, *, narrow: bool = False) -> None:
        """Write a z^T, exact int32, to `out_MN`; narrow: |a| <= NOISE_LEVELS. On this thread."""
        small = address(self.narrow) if narrow and self.narrow is not None else None
        _kernel().jstar_product(
            address(a_MD), _long(len(a_MD)), address(self.wide), small, _long(self.count),
            _long(self.dim), address(out_MN),
        )  # fmt: skip


def _kernel() -> ctypes.CDLL:
    kernel = products_kernel()
    assert kernel is not None
    return kernel


@cache
def products_kernel() -> ctypes.CDLL | None:
    """The compiled kernel, or None: no AVX2, no compiler, it failed, or JSTAR_NATIVE=0."""
    return load(SOURCE, ())


def packed_product(a_MD: torch.Tensor, z_ND: torch.Tensor) -> torch.Tensor:
    """a z^T, exact int32 [M, N]."""
    a_MD, packed = a_MD.contiguous(), PackedPoints.of(z_ND, narrow=False)
    out_MN = torch.empty((len(a_MD), len(z_ND)), dtype=torch.int32)
    over_rows(len(a_MD), lambda a, b: packed.product(a_MD[a:b], out_MN[a:b]), ROWS_A_PIECE)
    return out_MN


def _long(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)
