"""From the sums of each draw to J*: pair form, control variates, honest standard errors.

Every control variate has a known mean, so J* is the intercept of a regression on them
(METHOD section 1, item 3). All in stored units, summed over the D dimensions.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.optimal.moments import Moments

DRAWS_A_CONTROL = 8  # draws that carry J*, needed for each control variate that is fitted
RANK_TOLERANCE = 1e-7
ROUNDING = 1e-5
RESOLUTION = 1e-17  # of the variance: below it a draw's pair form is what underflow left over


@dataclass(frozen=True)
class QueryTerms:
    """What the control variates need of each draw: projections of source and noise."""

    norm_M: NDArray[np.float64]  # |y|^2 with y = x_i - anchor
    cross_M: NDArray[np.float64]  # <y, eps>
    noise_M: NDArray[np.float64]  # |eps|^2
    along_MP: NDArray[np.float64]  # projections of y
    noise_along_MP: NDArray[np.float64]

    @classmethod
    def gather(cls, parts: list["QueryTerms"]) -> "QueryTerms":
        """Terms of all draws from those of chunks of draws."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def query_terms(z_MD: torch.Tensor, noise_MD: torch.Tensor, moments: Moments) -> QueryTerms:
    """Projections of the draws; z and noise in stored units."""
    y_MD = z_MD.sub_(moments.anchor_D)
    eps_MD = noise_MD
    return QueryTerms(
        torch.linalg.vecdot(y_MD, y_MD).double().numpy(),
        torch.linalg.vecdot(y_MD, eps_MD).double().numpy(),
        torch.linalg.vecdot(eps_MD, eps_MD).double().numpy(),
        (y_MD @ moments.direction_DP).double().numpy(),
        (eps_MD @ moments.direction_DP).double().numpy(),
    )


@dataclass(frozen=True)
class Draws:
    """Pair form and control variates of each draw at one noise scale, known means removed.

    pair_M: sum_n w |x_i - x_n|^2 / 2, whose mean is J*. control_MC: mean 0. total: mean squared
    distance of the points from the anchor, the scale of rounding errors.
    """

    total: float
    pair_M: NDArray[np.float64]
    control_MC: NDArray[np.float64]


def draws_at(
    tau: float, sums_GMF: NDArray[np.float64], terms: QueryTerms, moments: Moments, dim: int
) -> Draws:
    """One noise scale: averages over the antithetic pair of pair form and control variates."""
    total = moments.total
    known = len(moments.power_P)
    rest = max(moments.total - float(moments.power_P.sum()), 0.0) / max(dim - known, 1)
    kappa_P, kappa = moments.power_P / (moments.power_P + tau**2), rest / (rest + tau**2)
    pair, controls = [], []
    for sign, sums_MF in zip((1.0, -1.0), sums_GMF, strict=False):
        weight_M = sums_MF[:, 0]
        q_M, e_M, h_M = (sums_MF[:, k] / weight_M for k in (1, 2, 3))
        y2, ye, ee = terms.norm_M, sign * tau * terms.cross_M, tau**2 * terms.noise_M
        a_MP, b_MP = terms.along_MP, sign * tau * terms.noise_along_MP
        rest_y2 = y2 - (a_MP**2).sum(1)
        rest_ye = ye - (a_MP * b_MP).sum(1)
        rest_ee = ee - (b_MP**2).sum(1)
        # <y, K(x - c)> and |K(x - c)|^2 of the linear denoiser K, with their known means
        linear = (kappa_P * a_MP * (a_MP + b_MP)).sum(1) + kappa * (rest_y2 + rest_ye)
        linear_mean = (kappa_P * moments.power_P).sum() + kappa * rest * (dim - known)
        square = (kappa_P**2 * (a_MP + b_MP) ** 2).sum(1)
        square += kappa**2 * (rest_y2 + 2 * rest_ye + rest_ee)
        square_mean = (kappa_P**2 * (moments.power_P + tau**2)).sum()
        square_mean += kappa**2 * (rest + tau**2) * (dim - known)
        # <x_i - D*, x_i - c + tau eps>: orthogonality
        orthogonal = 0.5 * y2 - h_M + q_M - sign * tau * e_M
        pair.append(np.where(q_M > RESOLUTION * total, q_M, 0.0))
        controls.append(
            np.stack(
                [
                    y2 - total,
                    2 * h_M - total,
                    orthogonal,
                    linear - linear_mean,
                    square - square_mean,
                    ye,
                    ee - tau**2 * dim,
                ],
                axis=1,
            )
        )
    return Draws(total, np.mean(pair, axis=0), np.mean(controls, axis=0))


@dataclass(frozen=True)
class Estimate:
    """Mean of a form over the draws. residual_M: what is left of each draw, mean 0."""

    value: float
    stderr: float
    residual_M: NDArray[np.float64]
    form: str


def successive_variance(residual_M: NDArray[np.float64]) -> float:
    """Variance of the mean of a systematic sample, from differences of neighbours.

    Neighbours in the order of the strata differ by little but their noise (Wolter, Introduction to
    Variance Estimation, 2007, section 8.2.1, v_2). Errs on the safe side when M is near N.
    """
    count = len(residual_M)
    return float(np.square(np.diff(residual_M)).sum() / (2 * (count - 1) * count))


def _upper_variance(residual_M: NDArray[np.float64]) -> float:
    """`successive_variance` plus one standard error of its own, sqrt((kurtosis - 1) / M).

    The controls leave terms of high order in the noise, whose variance sits in few draws (kurtosis
    100 is common): where none of them was drawn, the plain variance is too small. With this the
    error is honest from 4,096 draws on; see benchmarks/optimal_coverage.py.
    """
    square_M = np.square(residual_M)
    kurtosis = float(np.square(square_M).mean() / square_M.mean() ** 2) if square_M.any() else 1.0
    return successive_variance(residual_M) * (1 + float(np.sqrt((kurtosis - 1) / len(residual_M))))


def plain(value_M: NDArray[np.float64], form: str) -> Estimate:
    """The mean of one form as it is."""
    mean = float(value_M.mean())
    residual = value_M - mean
    return Estimate(mean, successive_variance(residual) ** 0.5, residual, form)


def regress(draws: Draws) -> Estimate:
    """J* as the intercept of the pair form on its control variates; the better of the two forms."""
    base = plain(draws.pair_M, "pair")
    count = len(draws.pair_M)
    # A few draws that carry all of J* (small sigma) would be fitted, not averaged: count them.
    square = float(np.square(draws.pair_M).sum())
    carrying = draws.pair_M.sum() ** 2 / square if square > 0 else 0.0
    control = draws.control_MC[:, : max(0, int(carrying) // DRAWS_A_CONTROL - 1)]
    # A control that does not vary is a rounding error: scaled up, it would pose as the intercept.
    size = control.std(axis=0)
    varies = size > ROUNDING * draws.total
    control = control[:, varies] / size[varies]
    if control.shape[1] == 0 or base.stderr == 0:
        return base
    # A control's mean is 0 by construction, its sample mean is not: that is the correction.
    design = np.column_stack([np.ones(count), control])
    left, singular, right = np.linalg.svd(design, full_matrices=False)
    kept = singular > RANK_TOLERANCE * singular[0]
    left, inverse = left[:, kept], (right[kept].T / singular[kept])
    fit = float((inverse @ (left.T @ draws.pair_M))[0])
    residual = draws.pair_M - left @ (left.T @ draws.pair_M)
    # Leave-one-out residuals: plain ones are too small where few draws decide a coefficient.
    # Coefficients from the other draws make every draw's corrected value unbiased; their mean is
    # the estimate, and the influence on the intercept (jackknife, HC3) gives its error.
    left_out = residual / np.maximum(1 - np.square(left).sum(1), 1 / count)
    influence = count * (left @ inverse[0]) * left_out
    value = fit + float(left_out.mean() - influence.mean() / count)
    stderr = _upper_variance(influence) ** 0.5
    if value < 0 or stderr >= base.stderr:
        return base
    return Estimate(value, stderr, influence, "pair+controls")
