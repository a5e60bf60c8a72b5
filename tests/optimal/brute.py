"""The straightforward float64 way, for tests: one noise scale at a time, every distance."""

import numpy as np


def posterior_mean(x_MD, points_ND, sigma):
    """D*(x; sigma), float64 [M, D]."""
    square_MN = ((x_MD[:, None, :] - points_ND[None, :, :]) ** 2).sum(-1)
    logit_MN = -square_MN / (2 * sigma**2)
    w_MN = np.exp(logit_MN - logit_MN.max(1, keepdims=True))
    return (w_MN / w_MN.sum(1, keepdims=True)) @ points_ND


def pair_form(x0_MD, eps_MD, points_ND, sigma):
    """sum_n w |x_i - x_n|^2 / 2 of each draw, summed over dimensions, [M]."""
    x_MD = x0_MD + sigma * eps_MD
    square_MN = ((x_MD[:, None, :] - points_ND[None, :, :]) ** 2).sum(-1)
    logit_MN = -square_MN / (2 * sigma**2)
    w_MN = np.exp(logit_MN - logit_MN.max(1, keepdims=True))
    w_MN /= w_MN.sum(1, keepdims=True)
    pair_MN = ((x0_MD[:, None, :] - points_ND[None, :, :]) ** 2).sum(-1) / 2
    return (w_MN * pair_MN).sum(1)


def mixture_mean(x_MD, mu_ND, s_ND, sigma):
    """E[x0 | x] where each point is the centre of a Gaussian of deviations s, float64 [M, D]."""
    wide_ND = s_ND**2 + sigma**2
    square_MN = ((x_MD[:, None, :] - mu_ND[None]) ** 2 / wide_ND).sum(-1)
    logit_MN = -square_MN / 2 - np.log(wide_ND).sum(1) / 2
    w_MN = np.exp(logit_MN - logit_MN.max(1, keepdims=True))
    w_MN /= w_MN.sum(1, keepdims=True)
    shrink_ND = s_ND**2 / wide_ND
    posterior_MND = mu_ND + shrink_ND * (x_MD[:, None, :] - mu_ND[None])
    return (w_MN[:, :, None] * posterior_MND).sum(1)
