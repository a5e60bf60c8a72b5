"""From the contributions of the draws to J* and an honest standard error.

Every control variate has a known mean, so J* is the intercept of a regression on them
(METHOD section 1, item 3). All in stored units, summed over the D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS_A_CONTROL = 8  # draws that carry J*, needed for each control variate that is fitted
RANK_TOLERANCE = 1e-7
ROUNDING = 1e-5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossEstimate:
    """Mean of a form over the draws. residual_M: what is left of each draw, mean 0."""

    value: float
    stderr: float
    residual_M: Floats
    form: str


def weighted_estimate(shares: Sequence[float], estimates: Sequence[LossEstimate]) -> LossEstimate:
    """sum_k share_k J*_k of several estimates from the same draws."""
    if len(estimates) == 1:
        return estimates[0]
    residual_M = np.sum([c * e.residual_M for c, e in zip(shares, estimates, strict=True)], axis=0)
    names = sorted({e.form for e in estimates})
    return LossEstimate(
        sum(c * e.value for c, e in zip(shares, estimates, strict=True)),
        _upper_variance(residual_M) ** 0.5,
        residual_M,
        " and ".join(names),
    )


def successive_variance(residual_M: Floats) -> float:
    """Variance of the mean of a systematic sample, from differences of neighbours.

    Neighbours in the order of the strata differ by little but their noise (Wolter, Introduction to
    Variance Estimation, 2007, section 8.2.1, v_2). Errs on the safe side when M is near N.
    """
    count = len(residual_M)
    return float(np.square(np.diff(residual_M)).sum() / (2 * (count - 1) * count))


def _upper_variance(residual_M: Floats) -> float:
    """`successive_variance` plus one standard error of its own, sqrt((kurtosis - 1) / M).

    The controls leave terms of high order in the noise, whose variance sits in few draws (kurtosis
    100 is common): where none of them was drawn, the plain variance is too small. With this the
    error is honest from 4,096 draws on; see benchmarks/optimal_coverage.py.
    """
    square_M = np.square(residual_M)
    kurtosis = float(np.square(square_M).mean() / square_M.mean() ** 2) if square_M.any() else 1.0
    return successive_variance(residual_M) * (1 + float(np.sqrt((kurtosis - 1) / len(residual_M))))


def mean_of_draws(value_M: Floats, form: str) -> LossEstimate:
    """The mean of one form as it is."""
    mean = float(value_M.mean())
    residual = value_M - mean
    return LossEstimate(mean, successive_variance(residual) ** 0.5, residual, form)


def regress(pair_M: Floats, control_MV: Floats, total: float) -> LossEstimate:
    """J* as the intercept of the pair form on its control variates; the better of the two forms.

    total: mean squared distance of the points from the anchor, the scale of rounding errors.
    """
    base = mean_of_draws(pair_M, "pair")
    count = len(pair_M)
    # A few draws that carry all of J* (small sigma) would be fitted, not averaged: count them.
    square = float(np.square(pair_M).sum())
    carrying = pair_M.sum() ** 2 / square if square > 0 else 0.0
    control = control_MV[:, : max(0, int(carrying) // DRAWS_A_CONTROL - 1)]
    # A control that does not vary is a rounding error: scaled up, it would pose as the intercept.
    size = control.std(axis=0)
    varies = size > ROUNDING * total
    control = control[:, varies] / size[varies]
    if control.shape[1] == 0 or base.stderr == 0:
        return base
    # A control's mean is 0 by construction, its sample mean is not: that is the correction.
    design = np.column_stack([np.ones(count), control])
    left, singular, right = np.linalg.svd(design, full_matrices=False)
    kept = singular > RANK_TOLERANCE * singular[0]
    left, inverse = left[:, kept], (right[kept].T / singular[kept])
    fit = float((inverse @ (left.T @ pair_M))[0])
    residual = pair_M - left @ (left.T @ pair_M)
    # Leave-one-out residuals: plain ones are too small where few draws decide a coefficient.
    # Coefficients from the other draws make every draw's corrected value unbiased; their mean is
    # the estimate, and the influence on the intercept (jackknife, HC3) gives its error.
    left_out = residual / np.maximum(1 - np.square(left).sum(1), 1 / count)
    influence = count * (left @ inverse[0]) * left_out
    value = fit + float(left_out.mean() - influence.mean() / count)
    stderr = _upper_variance(influence) ** 0.5
    if value < 0 or stderr >= base.stderr:
        return base
    return LossEstimate(value, stderr, influence, "pair+controls")


def error_correlation(residual_MS: Floats) -> Floats:
    """Correlation of the errors between noise scales, from successive differences; 1 at home."""
    step = np.diff(residual_MS, axis=0)
    covariance = step.T @ step
    size = np.sqrt(np.diag(covariance))
    size = np.where(size > 0, size, 1.0)
    out: Floats = covariance / np.outer(size, size)
    np.fill_diagonal(out, 1.0)
    return out
