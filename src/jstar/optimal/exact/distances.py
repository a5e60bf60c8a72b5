"""The two matrix products that serve every noise scale (METHOD section 1, items 1 and 5).

For x = x_i + sigma eps_i all that the posterior weights need is, per source i and point n,

    q_in = |x_i - x_n|^2 / 2        e_in = <eps_i, x_n - x_i>
    logit_in = -q_in / sigma^2 + e_in / sigma        (the source's own logit is 0)

Eight-bit data go through exact int8 -> int32 products, the noise drawn on an int8 grid; other data
through float32.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.native import cpu_features, files_of
from jstar.optimal.draws import gaussian_noise, quantised_noise
from jstar.optimal.exact import fast_sums, products
from jstar.optimal.points import DataPoints
from jstar.probe import Way, measured

PRECISIONS = ("auto", "int8", "fp32")
INT8_MAX_DIM = 33_000  # dim * 255^2 stays below 2^31
ALIGN = 8  # int8 products on a GPU need multiples of 8
MIN_ROWS = 17  # and more than 16 rows
EXACT_DIM = 1024  # 1024 * 128^2 = 2^24: a float32 sum of so many products of int8 is exact


def int8_is_fast(device: torch.device) -> bool:
    """Whether int8 matrix products are faster than float32 ones here.

    Of the machine alone, not timed on it: int8 draws have other noise, and a curve must not depend
    on how busy a machine was. With AVX2 they take .6 of the time (benchmarks/optimal.py).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 5)
    return has_int8_units() or products.products_kernel() is not None


def has_int8_units() -> bool:
    """Whether torch's int8 product is what a CPU of this kind is fastest with.

    With AVX-512 VNNI it needs no measurement: a seventh of products.c's time (Sapphire Rapids, one
    thread). With AVX-VNNI alone the two are timed, once a machine: both give the same bits.
    """
    widest = torch.backends.cpu.get_cpu_capability()
    wide = widest.startswith("AVX512") and bool(torch.cpu._is_vnni_supported())
    narrow = widest.startswith("AVX2") and "avx_vnni" in cpu_features().split()
    if not (wide or narrow) or not _torch_is_exact():
        return False
    return wide or products.products_kernel() is None or _torch_is_faster()


@cache
def _torch_is_exact() -> bool:
    """Without units of its own oneDNN adds pairs of products in 16 bits, and saturates."""
    a_MD = torch.full((64, 64), -128, dtype=torch.int8)
    b_ND = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(a_MD, b_ND.t()) == -128 * 127 * 64).all()) and bool(
        (torch._int_mm(b_ND, b_ND.t()) == 127 * 127 * 64).all()
    )


@cache
def _torch_is_faster() -> bool:
    def ways() -> tuple[Way, Way]:
        whole = torch.arange(1 << 20, dtype=torch.int32).to(torch.int8).reshape(-1, 512)
        return (
            ("torch", lambda: torch._int_mm(whole[:512], whole.t())),
            ("c", lambda: products.packed_product(whole[:512], whole)),
        )

    question = f"int8 products: threads {torch.get_num_threads()}"
    return measured(question, ways, files_of(products.SOURCE)).faster == "torch"


def choose_precision(precision: str, points: DataPoints, device: torch.device) -> str:
    """`int8` or `fp32`. Raises JstarError if int8 is asked for and impossible."""
    if precision not in PRECISIONS:
        raise JstarError(
            f"precision: '{precision}' is unknown, allowed are {', '.join(PRECISIONS)}"
        )
    possible = points.integer and points.dim <= INT8_MAX_DIM
    if precision == "int8" and not possible:
        raise JstarError(
            f"precision: 'int8' needs uint8 images of at most {INT8_MAX_DIM} dimensions, found "
            f"{points.stored_ND.dtype} with {points.dim}"
        )
    if precision == "auto":
        return "int8" if possible and int8_is_fast(device) else "fp32"
    return precision


# --- exact arithmetic on int8 rows ------------------------------------------------------------


def int8_product(a_MD: torch.Tensor, b_ND: torch.Tensor) -> torch.Tensor:
    """a b^T for int8 matrices, exact int32 [M, N]."""
    rows, columns = len(a_MD), len(b_ND)
    if a_MD.is_cuda:
        a_MD, b_ND = _padded(a_MD, MIN_ROWS), _padded(b_ND, 1)
    elif not has_int8_units():  # torch's own product then takes 30 times a float32 one's time
        return _product_without_units(a_MD, b_ND)
    return torch._int_mm(a_MD, b_ND.t())[:rows, :columns]


def _product_without_units(a_MD: torch.Tensor, b_ND: torch.Tensor) -> torch.Tensor:
    if products.products_kernel() is not None:
        return products.packed_product(a_MD, b_ND)
    out_MN = torch.zeros((len(a_MD), len(b_ND)), dtype=torch.int32)
    parts = zip(torch.split(a_MD, EXACT_DIM, 1), torch.split(b_ND, EXACT_DIM, 1), strict=True)
    for a, b in parts:
        out_MN += (a.float() @ b.float().t()).to(torch.int32)
    return out_MN


def _padded(x_MD: torch.Tensor, least_rows: int) -> torch.Tensor:
    rows = max(len(x_MD), least_rows)
    extra = -(-rows // ALIGN) * ALIGN - len(x_MD)
    wide = -x_MD.shape[1] % ALIGN
    return torch.nn.functional.pad(x_MD, (0, wide, 0, extra)) if extra or wide else x_MD


def int_dots(a_MD: torch.Tensor, b_MD: torch.Tensor) -> torch.Tensor:
    """Row by row inner products of int8 matrices, exact int32 [M]."""
    out_M = torch.zeros(len(a_MD), dtype=torch.int32, device=a_MD.device)
    parts = zip(torch.split(a_MD, EXACT_DIM, 1), torch.split(b_MD, EXACT_DIM, 1), strict=True)
    for a, b in parts:
        out_M += (a.float() * b.float()).sum(1).to(torch.int32)
    return out_M


def column_moments(z_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared norms of the rows [N] and sums of the columns [D] of an int8 tile, exact int32."""
    kernel = fast_sums.sums_kernel() if z_ND.device.type == "cpu" else None
    if kernel is None:
        return int_dots(z_ND, z_ND), z_ND.sum(0, dtype=torch.int32)
    z_ND = z_ND.contiguous()
    norm_N = torch.empty(len(z_ND), dtype=torch.int32)
    sum_D = torch.zeros(z_ND.shape[1], dtype=torch.int32)
    fast_sums.moments_int8(kernel, z_ND, norm_N, sum_D)
    return norm_N, sum_D


# --- draws ready for products -----------------------------------------------------------------


@dataclass(frozen=True)
class Queries:
    """M draws: their sources and noise, ready for products with tiles of points.

    operand_QD: what is multiplied with a tile, stacked along the rows: [z; eps] in float32 about
    `origin_D`, or [z; term] in int8, where the noise is eps = step * term. own_M: <z, noise row>,
    norm_M: |z|^2, both exact int32 in int8.
    """

    source_M: NDArray[np.int64]
    operand_QD: torch.Tensor
    norm_M: torch.Tensor
    own_M: torch.Tensor
    step_M: torch.Tensor | None = None
    origin_D: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.source_M)

    @property
    def z_MD(self) -> torch.Tensor:
        """The sources in centred stored units, float32."""
        z_MD = self.operand_QD[: len(self)].float()
        return z_MD if self.origin_D is None else z_MD + self.origin_D

    @property
    def noise_MD(self) -> torch.Tensor:
        """The noise as used, float32."""
        row_MD = self.operand_QD[len(self) :].float()
        return row_MD if self.step_M is None else row_MD * self.step_M[:, None]

    def raw(self, z_ND: torch.Tensor) -> torch.Tensor:
        """The products with a tile as they come, [Q, N]: int32 or float32."""
        if self.step_M is not None:
            return int8_product(self.operand_QD, z_ND)
        return self.operand_QD @ self._near(z_ND).t()

    def raw_rows(self, packed: products.PackedPoints, first: int, stop: int) -> torch.Tensor:
        """Rows first..stop of the products with sources and noise, [2, n, N], on this thread."""
        raw_2MN = torch.empty((2, stop - first, packed.count), dtype=torch.int32)
        packed.product(self.operand_QD[first:stop], raw_2MN[0])
        noise_MD = self.operand_QD[len(self) + first : len(self) + stop]
        packed.product(noise_MD, raw_2MN[1], narrow=True)
        return raw_2MN

    def _near(self, z_ND: torch.Tensor) -> torch.Tensor:
        return z_ND.float() if self.origin_D is None else z_ND.float() - self.origin_D

    def tile(self, z_ND: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """q and e, float32 [M, N], of all draws and the points from number `start` on.

        The source's own term is exactly q = e = 0.
        """
        count, raw_QN = len(self), self.raw(z_ND)
        e = raw_QN[count:] - self.own_M[:, None]
        if self.step_M is not None:
            norm_N = int_dots(z_ND, z_ND)
            q = (self.norm_M[:, None] + norm_N).sub_(raw_QN[:count], alpha=2).float().mul_(0.5)
            e = e.float() * self.step_M[:, None]
        else:
            norm_N = self._near(z_ND).square().sum(1, dtype=torch.float64)
            q = (0.5 * (self.norm_M[:, None] + norm_N)).sub_(raw_QN[:count]).float()
            q.clamp_(0)
        column_M = self.source_M - start
        rows = np.flatnonzero((column_M >= 0) & (column_M < q.shape[1]))
        if len(rows):
            own = torch.from_numpy(rows), torch.from_numpy(column_M[rows])
            q[own] = e[own] = 0.0
        return q, e


def make_queries(
    points: DataPoints, source_M: NDArray[np.int64], noise_index_M: NDArray[np.int64], seed: int,
    precision: str, device: torch.device, origin_D: torch.Tensor,
) -> Queries:  # fmt: skip
    """Draws number `noise_index_M` at the sources `source_M`.

    origin_D: a point amid the data. Float32 products are taken about it, which keeps them small.
    """
    z_MD, eps_MD = points.take(source_M), gaussian_noise(seed, noise_index_M, points.dim)
    if precision == "int8":
        term_MD, step_M = quantised_noise(eps_MD)
        own_M, norm_M = int_dots(z_MD, term_MD).to(device), int_dots(z_MD, z_MD).to(device)
        operand_QD = torch.cat([z_MD, term_MD]).to(device)
        return Queries(source_M, operand_QD, norm_M, own_M, step_M.to(device))
    near_MD = z_MD.float() - origin_D
    own_M = (near_MD.double() * eps_MD.double()).sum(1).float()
    norm_M = near_MD.square().sum(1, dtype=torch.float64)
    return Queries(
        source_M, torch.cat([near_MD, eps_MD]).to(device), norm_M.to(device), own_M.to(device),
        origin_D=origin_D.to(device),
    )  # fmt: skip
