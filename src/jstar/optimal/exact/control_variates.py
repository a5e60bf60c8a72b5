"""From the sums of each draw to J*: pair form, control variates, honest standard errors.

Every control variate has a known mean, so J* is the intercept of a regression on them
(METHOD section 1, item 3). All in stored units, summed over the D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.optimal.exact.moments import Moments

DRAWS_A_CONTROL = 8  # draws that carry J*, needed for each control variate that is fitted
RANK_TOLERANCE = 1e-7
ROUNDING = 1e-5
RESOLUTION = 1e-17  # of the variance: below it a draw's pair form is what underflow left over


@dataclass(frozen=True)
class QueryTerms:
    """What the control variates need of each draw: projections of source and noise.

    y = x_i - mean of the source's group, and m = that mean - anchor.
    """

    group_M: NDArray[np.int64]
    norm_M: NDArray[np.float64]  # |y|^2
    cross_M: NDArray[np.float64]  # <y, eps>
    noise_M: NDArray[np.float64]  # |eps|^2
    shift_M: NDArray[np.float64]  # <y, m>
    noise_shift_M: NDArray[np.float64]  # <eps, m>
    along_MP: NDArray[np.float64]  # projections of y
    noise_along_MP: NDArray[np.float64]

    @classmethod
    def gather(cls, parts: list["QueryTerms"]) -> "QueryTerms":
        """Terms of all draws from those of chunks of draws."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def query_terms(
    z_MD: torch.Tensor, eps_MD: torch.Tensor, group_M: NDArray[np.int64], moments: Moments
) -> QueryTerms:
    """Projections of the draws; z and noise in stored units."""
    y_MD = z_MD.sub_(moments.anchor_D)
    shift_GD = torch.from_numpy(moments.shift_GD).float()
    shift_MD = shift_GD.expand(len(y_MD), -1) if len(shift_GD) == 1 else shift_GD[group_M]

    def dot(a_MD: torch.Tensor, b_MD: torch.Tensor) -> NDArray[np.float64]:
        product: NDArray[np.float64] = torch.linalg.vecdot(a_MD, b_MD).double().numpy()
        return product

    norm_shift_M, noise_shift_M = dot(shift_MD, shift_MD), dot(eps_MD, shift_MD)
    shift_M = dot(y_MD, shift_MD) - norm_shift_M
    return QueryTerms(
        group_M,
        dot(y_MD, y_MD) - 2 * shift_M - norm_shift_M,
        dot(y_MD, eps_MD) - noise_shift_M,
        dot(eps_MD, eps_MD),
        shift_M,
        noise_shift_M,
        ((y_MD - shift_MD) @ moments.direction_DP).double().numpy(),
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
    tau: float, sums_GMF: NDArray[np.float64], terms: QueryTerms, moments: Moments
) -> Draws:
    """One noise scale: averages over the antithetic pair of pair form and control variates."""
    linear = Linear.at(tau, moments, terms.group_M)
    total_M = moments.total_G[terms.group_M]
    shift_square_M = total_M - linear.variance_M
    pair, controls = [], []
    for sign, sums_MF in zip((1.0, -1.0), sums_GMF, strict=False):
        weight_M = sums_MF[:, 0]
        q_M, e_M, h_M = (sums_MF[:, k] / weight_M for k in (1, 2, 3))
        anchored_M = terms.norm_M + 2 * terms.shift_M + shift_square_M  # |x_i - anchor|^2
        # <x_i - D*, x_i - anchor + tau eps>: orthogonality
        orthogonal_M = 0.5 * anchored_M - h_M + q_M - sign * tau * e_M
        pair.append(np.where(q_M > RESOLUTION * moments.total, q_M, 0.0))
        controls.append(
            np.stack(
                [
                    terms.norm_M - linear.variance_M,
                    2 * h_M - total_M,
                    orthogonal_M,
                    *linear.controls(sign * tau, terms),
                    sign * tau * terms.cross_M,
                    tau**2 * (terms.noise_M - linear.dim),
                ],
                axis=1,
            )
        )
    return Draws(moments.total, np.mean(pair, axis=0), np.mean(controls, axis=0))


@dataclass(frozen=True)
class Linear:
    """The linear denoiser K of each draw's group: kappa along the directions, one for the rest.

    Any K has known means; this one is nearly the best denoiser of a Gaussian, so the controls
    explain nearly all of a large noise scale.
    """

    dim: int
    variance_M: NDArray[np.float64]
    kappa_MP: NDArray[np.float64]
    kappa_M: NDArray[np.float64]
    m_MP: NDArray[np.float64]  # projections of m = group mean - anchor
    inner_M: NDArray[np.float64]  # mean of <y, K x>
    square_M: NDArray[np.float64]  # mean of |K x|^2

    @classmethod
    def at(cls, tau: float, moments: Moments, group_M: NDArray[np.int64]) -> "Linear":
        """K at a noise scale in stored units."""
        (dim, known), power, rest = (
            moments.direction_DP.shape, moments.power_GP, moments.rest_G
        )  # fmt: skip
        kappa_GP, kappa_G = power / (power + tau**2), rest / (rest + tau**2)
        inner_G = (kappa_GP * power).sum(1) + kappa_G * rest * (dim - known)
        square_G = (kappa_GP**2 * (power + tau**2)).sum(1)
        square_G += kappa_G**2 * (rest + tau**2) * (dim - known)
        m_GP = moments.shift_GD @ moments.direction_DP.double().numpy()
        by_group = (moments.variance_G, kappa_GP, kappa_G, m_GP, inner_G, square_G)
        return cls(dim, *(value_G[group_M] for value_G in by_group))

    def controls(
        self, tau: float, terms: QueryTerms
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """<y, K x>, |K x|^2, <y, m>, <m, K x> of x = y + tau eps, known means removed."""
        a_MP, b_MP = terms.along_MP, tau * terms.noise_along_MP
        x_MP = a_MP + b_MP
        y2_M = terms.norm_M - (a_MP**2).sum(1)  # in the rest
        ye_M = tau * terms.cross_M - (a_MP * b_MP).sum(1)
        ee_M = tau**2 * terms.noise_M - (b_MP**2).sum(1)
        inner_M = (self.kappa_MP * a_MP * x_MP).sum(1) + self.kappa_M * (y2_M + ye_M)
        square_M = (self.kappa_MP**2 * x_MP**2).sum(1)
        square_M += self.kappa_M**2 * (y2_M + 2 * ye_M + ee_M)
        mx_M = terms.shift_M + tau * terms.noise_shift_M - (self.m_MP * x_MP).sum(1)
        along_m_M = (self.kappa_MP * self.m_MP * x_MP).sum(1) + self.kappa_M * mx_M
        return inner_M - self.inner_M, square_M - self.square_M, terms.shift_M, along_m_M


@dataclass(frozen=True)
class Estimate:
    """Mean of a form over the draws. residual_M: what is left of each draw, mean 0."""

    value: float
    stderr: float
    residual_M: NDArray[np.float64]
    form: str


def weighted(shares: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """sum_k share_k J*_k of several estimates from the same draws."""
    if len(estimates) == 1:
        return estimates[0]
    residual_M = np.sum([c * e.residual_M for c, e in zip(shares, estimates, strict=True)], axis=0)
    names = sorted({e.form for e in estimates})
    return Estimate(
        sum(c * e.value for c, e in zip(shares, estimates, strict=True)),
        _upper_variance(residual_M) ** 0.5,
        residual_M,
        " and ".join(names),
    )


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
