"""The two matrix products that serve every noise scale (METHOD section 1, items 1 and 5).

For x = x_i + sigma eps_i all that the posterior weights need is, per source i and point n,

    q_in = |x_i - x_n|^2 / 2        e_in = <eps_i, x_n - x_i>
    logit_in = -q_in / sigma^2 + e_in / sigma        (the source's own logit is 0)

Eight-bit data go through exact int8 -> int32 products, the noise split into int8 terms; other data
through float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.optimal.draws import SplitNoise, noise, split_int8
from jstar.optimal.points import Points

PRECISIONS = ("auto", "int8", "fp32")
INT8_TERMS = 2
INT8_MAX_DIM = 2**31 // 128**2 - 1  # the int32 sums cannot overflow up to here
ALIGN = 8  # int8 products on a GPU need multiples of 8
MIN_ROWS = 17  # and more than 16 rows


def has_int8_units(device: torch.device) -> bool:
    """Whether int8 matrix products are faster than float32 ones here."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 5)
    return bool(torch.cpu._is_vnni_supported())


def choose_precision(precision: str, points: Points, device: torch.device) -> str:
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
        return "int8" if possible and has_int8_units(device) else "fp32"
    return precision


def int8_product(a_MD: torch.Tensor, b_ND: torch.Tensor) -> torch.Tensor:
    """a b^T for int8 matrices, exact int32 [M, N]."""
    rows, columns = len(a_MD), len(b_ND)
    if a_MD.is_cuda:
        a_MD, b_ND = _padded(a_MD, MIN_ROWS), _padded(b_ND, 1)
    return torch._int_mm(a_MD, b_ND.t())[:rows, :columns]


def _padded(x_MD: torch.Tensor, least_rows: int) -> torch.Tensor:
    rows = max(len(x_MD), least_rows)
    extra = -(-rows // ALIGN) * ALIGN - len(x_MD)
    wide = -x_MD.shape[1] % ALIGN
    return torch.nn.functional.pad(x_MD, (0, wide, 0, extra)) if extra or wide else x_MD


@dataclass(frozen=True)
class Queries:
    """M draws: their sources and noise, ready for products with tiles of points.

    z_MD: sources in centred stored units (int8 or float32). operand_AD: what is multiplied with a
    tile: [z; eps] in float32, [z; term_1; term_2 ...] in int8, stacked along the rows.
    """

    source_M: NDArray[np.int64]
    z_MD: torch.Tensor
    noise: SplitNoise | torch.Tensor
    operand_AD: torch.Tensor
    half_norm_M: torch.Tensor  # float64
    own_KM: torch.Tensor  # <z_i, eps_i>, or <z_i, term_ki> as int32
    origin_D: torch.Tensor | None = None  # float32 products are taken about this point

    def __len__(self) -> int:
        return len(self.source_M)

    @property
    def noise_MD(self) -> torch.Tensor:
        """The noise exactly as used, float64 [M, D]."""
        if isinstance(self.noise, SplitNoise):
            return self.noise.value_MD
        return self.noise.double()

    def tile(
        self, z_ND: torch.Tensor, start: int, *, drop_own: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q and e, float32 [M, n], of all draws and the points start..start+n-1.

        The source's own term is exactly q = e = 0; with `drop_own` it gets q = infinity.
        """
        count = len(self)
        if isinstance(self.noise, SplitNoise):
            raw_AN = int8_product(self.operand_AD, z_ND)
            norm_N = int_norms(z_ND)
            norm_M = (2 * self.half_norm_M).to(torch.int32)
            q = (norm_M[:, None] + norm_N[None, :]).sub_(raw_AN[:count], alpha=2).float().mul_(0.5)
            e = torch.zeros_like(q)
            for k, step_M in enumerate(self.noise.step_KM):
                term_MN = raw_AN[(k + 1) * count : (k + 2) * count] - self.own_KM[k][:, None]
                e.addcmul_(term_MN.float(), step_M[:, None])
        else:
            z_ND = z_ND.float() if self.origin_D is None else z_ND.float() - self.origin_D
            raw_AN = self.operand_AD @ z_ND.t()
            half_N = 0.5 * z_ND.double().square().sum(1)
            q = (self.half_norm_M[:, None] + half_N[None, :] - raw_AN[:count]).float().clamp_(0)
            e = raw_AN[count:] - self.own_KM[0][:, None]
        self._mark_own(q, e, start, drop_own)
        return q, e

    def _mark_own(self, q: torch.Tensor, e: torch.Tensor, start: int, drop: bool) -> None:
        column_M = self.source_M - start
        rows = np.flatnonzero((column_M >= 0) & (column_M < q.shape[1]))
        if len(rows):
            where = torch.from_numpy(rows), torch.from_numpy(column_M[rows])
            q[where] = float("inf") if drop else 0.0
            e[where] = 0.0


def int_norms(z_ND: torch.Tensor) -> torch.Tensor:
    """Squared norms of int8 rows, exact int32 [N]."""
    out_N = torch.zeros(len(z_ND), dtype=torch.int32, device=z_ND.device)
    for part_ND in torch.split(z_ND, 1024, dim=1):  # 1024 * 128^2 = 2^24: exact in float32
        out_N += part_ND.float().square_().sum(1).to(torch.int32)
    return out_N


def make_queries(
    points: Points,
    source_M: NDArray[np.int64],
    noise_index_M: NDArray[np.int64],
    seed: int,
    precision: str,
    device: torch.device,
    origin_D: torch.Tensor,
    terms: int = INT8_TERMS,
) -> Queries:
    """Draws number `noise_index_M` at the sources `source_M`.

    origin_D: a point amid the data. Float32 products are taken about it, which keeps them small.
    """
    z_MD = points.take(source_M)
    eps_MD = noise(seed, noise_index_M, points.dim)
    used: SplitNoise | torch.Tensor
    if precision == "int8":
        used = split_int8(eps_MD, terms)
        operand = torch.cat([z_MD, *used.term_KMD])
        own_KM = torch.stack([_int_dots(z_MD, term) for term in used.term_KMD])
        half_norm_M = 0.5 * int_norms(z_MD).double()
        used = SplitNoise(used.term_KMD, used.step_KM.to(device))
    else:
        if points.integer:
            origin_D = origin_D.round()  # differences of whole numbers stay exact
        used, near_MD = eps_MD, z_MD.float() - origin_D
        operand = torch.cat([near_MD, eps_MD])
        own_KM = (near_MD.double() * eps_MD.double()).sum(1, keepdim=True).t().float()
        half_norm_M = 0.5 * near_MD.double().square().sum(1)
    return Queries(
        source_M,
        z_MD,
        used,
        operand.to(device),
        half_norm_M.to(device),
        own_KM.to(device),
        None if precision == "int8" else origin_D.to(device),
    )


def _int_dots(a_MD: torch.Tensor, b_MD: torch.Tensor) -> torch.Tensor:
    """Row by row inner products of int8 matrices, exact int32 [M]."""
    out_M = torch.zeros(len(a_MD), dtype=torch.int32)
    for a, b in zip(torch.split(a_MD, 1024, 1), torch.split(b_MD, 1024, 1), strict=True):
        out_M += (a.float() * b.float()).sum(1).to(torch.int32)
    return out_M
