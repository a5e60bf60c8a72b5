"""J* by its definition, in float64, one noise scale at a time: the page to read first.

A clean x0 is one of the N data points, its noisy x = x0 + sigma eps. Given x, point n was it with
probability w_n, so the best denoiser is the posterior mean D*, and its loss is J*:

    w_n(x) = softmax_n(-|x - x_n|^2 / (2 sigma^2))      D*(x) = sum_n w_n x_n
    J*(sigma) = E |x0 - D*(x)|^2 / D                    (arXiv 2506.13763, theorem 1)

The rest of the room estimates the same numbers for millions of points, and is tested against this.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def posterior_weights(x_MD: Floats, points_ND: Floats, sigma: float) -> Floats:
    """w_n of each x, [M, N]; rows sum to 1."""
    square_MN = ((x_MD[:, None, :] - points_ND[None, :, :]) ** 2).sum(-1)
    return _softmax(-square_MN / (2 * sigma**2))


def best_denoiser(x_MD: Floats, points_ND: Floats, sigma: float) -> Floats:
    """D*(x; sigma), [M, D]."""
    denoised_MD: Floats = posterior_weights(x_MD, points_ND, sigma) @ points_ND
    return denoised_MD


def draw_losses(x0_MD: Floats, eps_MD: Floats, points_ND: Floats, sigma: float) -> Floats:
    """|x0 - D*(x0 + sigma eps)|^2 / D of each draw, [M]: its mean is J*."""
    error_MD = x0_MD - best_denoiser(x0_MD + sigma * eps_MD, points_ND, sigma)
    loss_M: Floats = (error_MD**2).mean(1)
    return loss_M


def pair_losses(x0_MD: Floats, eps_MD: Floats, points_ND: Floats, sigma: float) -> Floats:
    """sum_n w_n |x0 - x_n|^2 / (2 D) of each draw, [M]: the same mean, never negative, no D*.

    Given x, x0 and x_n are two independent draws of one posterior, whose variance is half their
    mean squared distance. `exact/pair_form.py` computes this.
    """
    w_MN = posterior_weights(x0_MD + sigma * eps_MD, points_ND, sigma)
    pair_MN = ((x0_MD[:, None, :] - points_ND[None, :, :]) ** 2).mean(-1) / 2
    loss_M: Floats = (w_MN * pair_MN).sum(1)
    return loss_M


def best_mixture_denoiser(x_MD: Floats, mu_ND: Floats, s_ND: Floats, sigma: float) -> Floats:
    """D* where point n is a Gaussian of mean mu_n and standard deviations s_n, [M, D]."""
    wide_ND = s_ND**2 + sigma**2
    away_MND = x_MD[:, None, :] - mu_ND[None]
    w_MN = _softmax(-(away_MND**2 / wide_ND).sum(-1) / 2 - np.log(wide_ND).sum(1) / 2)
    posterior_MND = mu_ND + s_ND**2 / wide_ND * away_MND
    denoised_MD: Floats = (w_MN[:, :, None] * posterior_MND).sum(1)
    return denoised_MD


def _softmax(logit_MN: Floats) -> Floats:
    w_MN = np.exp(logit_MN - logit_MN.max(1, keepdims=True))
    normal_MN: Floats = w_MN / w_MN.sum(1, keepdims=True)
    return normal_MN
