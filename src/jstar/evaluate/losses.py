"""Loss of a denoiser on the fixed sigma grid, and its distance from the posterior mean.

For the training distribution E|D - x0|^2 - J* = E|D - D*|^2, because x0 - D*(x) is orthogonal to
every function of x. The right side is the *direct gap*: a mean of squares, never negative, and
free of the variance of x0 (METHOD section 1, "The gap, measured directly").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError

Denoiser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """Squared errors per draw and noise scale, means over the D dimensions of an image.

    loss_SM: |D(x) - x0|^2 / D.  gap_SM: |D(x) - D*(x)|^2 / D, or None without an oracle.
    """

    loss_SM: NDArray[np.float64]
    gap_SM: NDArray[np.float64] | None

    def summary(self, weights_LS: NDArray[np.float64]) -> list[tuple[float, ...]]:
        """(loss, loss_se, gap, gap_se) of each weighted sum over sigma in `weights_LS`.

        The draws are shared by all noise scales, so a sum's error comes from its sum per draw.
        """
        rows: list[tuple[float, ...]] = []
        for weight_S in np.atleast_2d(weights_LS):
            unknown = (float("nan"), float("nan"))
            gap = unknown if self.gap_SM is None else _mean_se(weight_S @ self.gap_SM)
            rows.append((*_mean_se(weight_S @ self.loss_SM), *gap))
        return rows


def _mean_se(value_M: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and its standard error over independent draws."""
    return float(value_M.mean()), float(value_M.std(ddof=1) / np.sqrt(len(value_M)))


@torch.inference_mode()
def measure(
    denoiser: Denoiser,
    x0_MCHW: NDArray[np.float32],
    noise_MCHW: NDArray[np.float32],
    sigma_S: NDArray[np.float64],
    *,
    labels_M: NDArray[np.int64] | None = None,
    posterior_mean: Callable[[int], NDArray[np.float32]] | None = None,
    batch: int = 1024,
    device: torch.device | str = "cpu",
) -> Measured:
    """Squared errors of `denoiser(x, sigma [B], labels [B] or None) -> x0` at every noise scale.

    x0_MCHW, noise_MCHW: clean images and unit noise, the same for every sigma: x = x0 + sigma eps.
    posterior_mean(s): D* of the M draws at sigma_S[s]; without it no gap is measured.
    Raises JstarError if the denoiser returns another shape or numbers that are not finite.
    """
    count, scales = len(x0_MCHW), len(sigma_S)
    loss_SM = np.empty((scales, count))
    gap_SM = np.empty((scales, count)) if posterior_mean is not None else None
    x0 = torch.from_numpy(np.ascontiguousarray(x0_MCHW)).to(device)
    noise = torch.from_numpy(np.ascontiguousarray(noise_MCHW)).to(device)
    labels = None if labels_M is None else torch.from_numpy(np.asarray(labels_M)).to(device)
    for s, sigma in enumerate(sigma_S):
        optimal_MCHW = None if posterior_mean is None else posterior_mean(s)
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            x = x0[part] + float(sigma) * noise[part]
            sigma_B = torch.full((len(x),), float(sigma), device=device)
            denoised = denoiser(x, sigma_B, None if labels is None else labels[part]).float()
            if denoised.shape != x.shape:
                raise JstarError(
                    f"denoiser: returned shape {tuple(denoised.shape)} for images of shape "
                    f"{tuple(x.shape)}, it must return the same shape"
                )
            loss_SM[s, part] = _per_draw(denoised - x0[part])
            if optimal_MCHW is not None and gap_SM is not None:
                optimal = torch.from_numpy(np.array(optimal_MCHW[part])).to(device)
                gap_SM[s, part] = _per_draw(denoised - optimal)
        if not np.isfinite(loss_SM[s]).all():
            raise JstarError(f"denoiser: returned numbers that are not finite at sigma = {sigma:g}")
    return Measured(loss_SM, gap_SM)


def _per_draw(error_BCHW: torch.Tensor) -> NDArray[Any]:
    """Mean square over the dimensions of each image, float64 [B]."""
    return error_BCHW.flatten(1).square().mean(dim=1, dtype=torch.float64).cpu().numpy()
