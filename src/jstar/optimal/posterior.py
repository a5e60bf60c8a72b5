"""The posterior mean D*(x; sigma) = sum_n w_n x_n itself, streaming over the points."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.optimal.draws import split_int8
from jstar.optimal.exact.distances import (
    choose_precision,
    int8_product,
    int_dots,
)
from jstar.optimal.exact.mixture_form import posterior_moments
from jstar.optimal.points import TILE, DataPoints, as_points, check_sigmas
from jstar.torch_device import default_device

INPUT_TERMS = 4  # int8 terms of an input: 7 + 3 * 8 bits, all of a float32
ROWS = 1024


def posterior_mean(
    x: Any,
    images: Any,
    sigma: float,
    *,
    scale: float | None = None,
    offset: float | None = None,
    mirror: bool = False,
    spread: Any = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
) -> NDArray[np.float32]:
    """D*(x; sigma) = E[x0 | x0 + sigma eps = x] over the points `images`, in the data scale.

    x: [M, ...] noisy inputs in the data scale. images: [N, ...], uint8 (x = (u - offset) * scale,
    by default -1..1) or floating point. spread: [N, ...], standard deviations of the Gaussian
    components around them, in stored units. Memory does not grow with N. Returns float32 of x's
    shape.
    Raises JstarError for shapes that do not fit, NaN, or sigma <= 0.
    """
    points = as_points(images, scale=scale, offset=offset, mirror=mirror, spread=spread)
    origin = offset if offset is not None else (127.5 if points.integer else 0.0)
    sigma_S = check_sigmas(sigma)
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2 or x.shape[1:] != points.shape:
        raise JstarError(f"x: has shape {x.shape}, allowed is [M, {points.shape}] as the images")
    if not np.isfinite(x).all():
        raise JstarError("x: holds NaN or infinite values, only finite numbers are allowed")
    where = default_device(device)
    z_MD = torch.from_numpy(x.reshape(len(x), -1) / points.scale + (origin - points.centre))
    tau, chosen = float(sigma_S[0]) / points.scale, choose_precision(precision, points, where)
    if spread is None:
        mean = mean_of_points(points, z_MD, tau, chosen, where)
    else:
        mean = posterior_moments(points, z_MD, tau, where)[0]
    mean = (mean + (points.centre - origin)) * points.scale
    return mean.reshape(x.shape).numpy().astype(np.float32)


def mean_of_points(
    points: DataPoints, z_MD: torch.Tensor, tau: float, precision: str, device: torch.device
) -> torch.Tensor:
    """Posterior mean in centred stored units, float64 [M, D], on the CPU.

    Logits are formed in float64 from exact products (int8 data) or float64 products, because
    their error is that of a squared distance over 2 tau^2. The weights sum the points in float32.
    """
    out_MD = torch.empty(z_MD.shape, dtype=torch.float64)
    for first in range(0, len(z_MD), ROWS):
        part = slice(first, first + ROWS)
        out_MD[part] = _mean_of_rows(points, z_MD[part], tau, precision, device).cpu()
    return out_MD


def _mean_of_rows(
    points: DataPoints, z_MD: torch.Tensor, tau: float, precision: str, device: torch.device
) -> torch.Tensor:
    exact = precision == "int8"
    term_KMD, step_KM = split_int8(z_MD.double(), INPUT_TERMS) if exact else (z_MD[None], None)
    operand = term_KMD.flatten(0, 1).to(device)
    peak_M = torch.full((len(z_MD),), -torch.inf, dtype=torch.float64, device=device)
    weight_M = torch.zeros_like(peak_M)
    total_MD = torch.zeros(z_MD.shape, dtype=torch.float64, device=device)
    for start, stop in points.tiles(TILE):
        tile_ND = points.tile(start, stop).to(device)
        if step_KM is not None:
            raw_QN = int8_product(operand, tile_ND).reshape(INPUT_TERMS, len(z_MD), -1)
            inner = (raw_QN.double() * step_KM.double().to(device)[:, :, None]).sum(0)
            norm_N = int_dots(tile_ND, tile_ND).double()
        else:
            inner = operand.double() @ tile_ND.double().t()
            norm_N = tile_ND.double().square().sum(1)
        logit_MN = (inner - 0.5 * norm_N) / tau**2
        new_M = torch.maximum(peak_M, logit_MN.amax(dim=1))
        kept_M = (peak_M - new_M).exp()
        w_MN = (logit_MN - new_M[:, None]).float().exp_()
        weight_M = weight_M * kept_M + w_MN.sum(1, dtype=torch.float64)
        total_MD = total_MD * kept_M[:, None] + (w_MN @ tile_ND.float()).double()
        peak_M = new_M
    return total_MD / weight_M[:, None]
