"""Thousands of joint laws at once, J(N, D) = E + A (N/N0)^-a + B (D/D0)^-b: Q studies, one design.

A point misses its law by a relative error of the gap A (N/N0)^-a + B (D/D0)^-b that has two parts:
what its cluster (a size, or a run) shares, tau, and what changes along the run, s, correlated from
snapshot to snapshot. Generalised least squares with these components; they are found by
restricted maximum likelihood (Patterson & Thompson 1971), and their posterior is kept, because six
clusters know a variance badly.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.laws import Array

LOWEST = np.array([np.log(1e-6), 0.01, np.log(1e-6), 0.01, -5.0])  # ln A, a, ln B, b, E
HIGHEST = np.array([np.log(1e3), 4.0, np.log(1e3), 4.0, 5.0])
LARGEST_CORRELATION = 0.95
SMALLEST_WEIGHT = 1e-3  # of the largest gap: none counts for more
# Of the variance of a run's distance from the law: what all seeds of its size have in common. A few
# pairs of seeds cannot tell it: half.
SHARED = 0.5
ROUGH = 1e-3  # while the components are still sought
ROUNDS = 2  # of components and weights, from a start near the answer
# tau / s with a prior that is flat below s, where it cannot be told from 0, and flat in ln tau
# above, where it is the scale of a t distribution.
RATIO_L = np.r_[0.0, np.geomspace(0.1, 60, 18)]
PRIOR_L = np.gradient(RATIO_L) / (RATIO_L + 1.0)


@dataclass(frozen=True)
class JointDesign:
    """Where losses were measured: P points, by cluster, then along each run.

    ln_n_P, ln_d_P: ln of parameters and images about their means. start_R: first point of each
    cluster. first_P: whether a run begins here. lag_P: distance to the snapshot before, in ln D,
    in units of the usual one. seeds_P: runs whose mean a point is.
    """

    ln_n_P: Array
    ln_d_P: Array
    start_R: NDArray[np.int64]
    first_P: NDArray[np.bool_]
    lag_P: Array
    seeds_P: Array

    @classmethod
    def of(
        cls, params_P: Array, images_P: Array, cluster_P: NDArray[np.int64],
        series_P: NDArray[np.int64], seeds_P: Array | None = None,
    ) -> "JointDesign":  # fmt: skip
        """Of points that are sorted by cluster, series and images."""
        ln_n_P, ln_d_P = (np.log(v) - np.log(v).mean() for v in (params_P, images_P))
        first_P = np.r_[True, np.diff(series_P) != 0]
        step_P = np.r_[1.0, np.diff(ln_d_P)]
        usual = float(np.median(step_P[~first_P])) if not first_P.all() else 1.0
        lag_P = np.where(first_P, 1.0, step_P / max(usual, 1e-9))
        start_R = np.flatnonzero(np.r_[True, np.diff(cluster_P) != 0])
        seeds_P = np.ones(len(ln_n_P)) if seeds_P is None else seeds_P
        return cls(ln_n_P, ln_d_P, start_R, first_P, lag_P, seeds_P)

    def __len__(self) -> int:
        return len(self.ln_n_P)

    @property
    def cluster_P(self) -> NDArray[np.int64]:
        """Number of each point's cluster."""
        count_R = np.diff(np.r_[self.start_R, len(self)])
        return np.repeat(np.arange(len(self.start_R), dtype=np.int64), count_R)

    @property
    def ratios(self) -> Array:
        """tau / s that can be told apart: none where every cluster is one point."""
        return np.asarray(RATIO_L if len(self.start_R) < len(self) else RATIO_L[:1])

    def along(self, correlation_Q: Array) -> Array:
        """Correlation with the snapshot before, 0 where a run begins, [Q, P]."""
        return np.where(self.first_P, 0.0, correlation_Q[:, None] ** self.lag_P)

    def gap(self, theta_QK: Array) -> Array:
        """A (N/N0)^-a + B (D/D0)^-b, [Q, P]."""
        by_size, by_data = self.terms(theta_QK)
        return by_size + by_data

    def terms(self, theta_QK: Array) -> tuple[Array, Array]:
        """Both terms of the gap, [Q, P]."""
        ln_n_R = self.ln_n_P[self.start_R]
        if (np.repeat(ln_n_R, np.diff(np.r_[self.start_R, len(self)])) == self.ln_n_P).all():
            small_QR = np.exp(theta_QK[:, :1] - theta_QK[:, 1:2] * ln_n_R)
            by_size = small_QR[:, self.cluster_P]
        else:
            by_size = np.exp(theta_QK[:, :1] - theta_QK[:, 1:2] * self.ln_n_P)
        return by_size, np.exp(theta_QK[:, 2:3] - theta_QK[:, 3:4] * self.ln_d_P)

    def jacobian(self, theta_QK: Array, parameters: int) -> tuple[Array, Array]:
        """The law [Q, P] and its derivatives [Q, K, P] by the first `parameters` of theta."""
        by_size, by_data = self.terms(theta_QK)
        columns = [by_size, -by_size * self.ln_n_P, by_data, -by_data * self.ln_d_P]
        columns += [np.ones_like(by_size)] if parameters == 5 else []
        return theta_QK[:, 4:5] + by_size + by_data, np.stack(columns, axis=1)


@dataclass(frozen=True)
class Whitening:
    """What makes the errors of Q studies independent and equal: weights, correlation, clusters.

    weight_QP: 1 / size of an error, in units of s. correlation_Q: of neighbouring snapshots.
    ratio_Q: tau / s. The rest follows: y = own x - before x[p - 1] frees a point of its weight and
    of what the snapshot before tells, shape is what that makes of a shift shared by a cluster,
    share_QR of whose direction is taken out.
    """

    weight_QP: Array
    correlation_Q: Array
    ratio_Q: Array
    own_QP: Array
    before_QP: Array
    shape_QP: Array
    square_QR: Array
    share_QR: Array

    @classmethod
    def of(
        cls, design: JointDesign, weight_QP: Array, correlation_Q: Array, ratio_Q: Array
    ) -> "Whitening":
        """Of weights, correlations and ratios."""
        phi_QP = design.along(correlation_Q)
        new_QP = 1 / np.sqrt(1 - phi_QP * phi_QP)
        earlier_QP = np.concatenate([weight_QP[:, :1], weight_QP[:, :-1]], axis=1)
        shape_QP = (1 - phi_QP) * new_QP
        square_QR = np.add.reduceat(shape_QP * shape_QP, design.start_R, axis=1)
        ratio2_Q1 = ratio_Q[:, None] ** 2
        return cls(
            weight_QP, correlation_Q, ratio_Q, weight_QP * new_QP, earlier_QP * phi_QP * new_QP,
            shape_QP, square_QR, ratio2_Q1 / (1 + ratio2_Q1 * square_QR),
        )  # fmt: skip

    def take(self, rows: NDArray[np.int64]) -> "Whitening":
        """Of some of the studies."""
        return Whitening(*(getattr(self, f.name)[rows] for f in fields(self)))

    def gram(self, design: JointDesign, x_QKP: Array) -> Array:
        """Inner products of the whitened rows of x, [Q, K, K]."""
        gram_QKK, sums_QKR = self.parts(design, x_QKP)
        if not self.ratio_Q.any():
            return gram_QKK
        return np.asarray(
            gram_QKK - (sums_QKR * self.share_QR[:, None]) @ sums_QKR.transpose(0, 2, 1)
        )

    def parts(self, design: JointDesign, x_QKP: Array) -> tuple[Array, Array]:
        """Inner products before clusters are taken out, and the products with their shapes."""
        y_QKP = x_QKP * self.own_QP[:, None]
        if self.correlation_Q.any():
            y_QKP[:, :, 1:] -= x_QKP[:, :, :-1] * self.before_QP[:, None, 1:]
        sums_QKR = np.add.reduceat(y_QKP * self.shape_QP[:, None], design.start_R, axis=2)
        return y_QKP @ y_QKP.transpose(0, 2, 1), sums_QKR


@dataclass(frozen=True)
class Components:
    """Posterior of tau / s on RATIO_L, [Q, L], and s^2 at each of them."""

    posterior_QL: Array
    variance_QL: Array

    def ratio_Q(self, ratios: Array) -> Array:
        """Posterior mean of tau / s."""
        return np.asarray(self.posterior_QL @ ratios)


def components(
    design: JointDesign, loss_QP: Array, theta_QK: Array, white: Whitening, parameters: int
) -> tuple[Components, Array]:
    """Restricted likelihood of tau / s, the law linearised at theta; and its logarithm, [Q]."""
    law_QP, slope_QKP = design.jacobian(theta_QK, parameters)
    both = np.concatenate([slope_QKP, (loss_QP - law_QP)[:, None]], axis=1)
    plain_QKK, sums_QKR = white.parts(design, both)
    ratios, k = design.ratios, parameters
    grown_QLR = 1 + (ratios**2)[:, None] * white.square_QR[:, None]
    share_QLR = (ratios**2)[:, None] / grown_QLR
    gram = plain_QKK[:, None] - (
        (sums_QKR[:, None] * share_QLR[:, :, None]) @ sums_QKR.transpose(0, 2, 1)[:, None]
    )
    matrix = gram[:, :, :k, :k]
    scale = np.sqrt(np.einsum("qlkk->qlk", matrix)) + 1e-150
    matrix = matrix / scale[..., :, None] / scale[..., None, :] + 1e-10 * np.eye(k)
    right = gram[:, :, :k, k] / scale
    step = np.linalg.solve(matrix, right[..., None])[..., 0]
    rss_QL = np.maximum(gram[:, :, k, k] - (step * right).sum(-1), 1e-300)
    determinant = np.linalg.slogdet(matrix)[1] + 2 * np.log(scale).sum(-1)
    freedom = len(design) - k
    log_QL = -0.5 * (freedom * np.log(rss_QL) + np.log(grown_QLR).sum(-1) + determinant)
    highest = log_QL.max(axis=1, keepdims=True)
    weighed = np.exp(log_QL - highest) * PRIOR_L[: len(ratios)]
    total = weighed.sum(axis=1)
    found = Components(weighed / total[:, None], rss_QL / freedom)
    return found, np.log(total) + highest[:, 0] + np.log(white.weight_QP).sum(axis=1)


def snapshot_correlation(
    design: JointDesign, loss_QP: Array, theta_QK: Array, weight_QP: Array
) -> Array:
    """Of neighbouring snapshots' relative errors, [Q], corrected for the means taken out.

    Runs of fewer than five snapshots on average do not know it: 0.
    """
    series_P = np.cumsum(design.first_P) - 1
    start = np.flatnonzero(design.first_P)
    count = np.diff(np.r_[start, len(design)])
    mean = float(count.mean())
    if mean < 5:
        return np.zeros(len(loss_QP))
    rest = (loss_QP - theta_QK[:, 4:5] - design.gap(theta_QK)) * weight_QP
    rest = rest - (np.add.reduceat(rest, start, axis=1) / count)[:, series_P]
    near = (rest[:, 1:] * rest[:, :-1])[:, ~design.first_P[1:]].sum(axis=1)
    plain = near / np.maximum((rest * rest).sum(axis=1), 1e-300)
    known = plain + (1 + 3 * np.clip(plain, 0, 1)) / mean
    return np.asarray(np.clip(known, 0.0, LARGEST_CORRELATION))


def error_weights(design: JointDesign, theta_QK: Array, power: float) -> Array:
    """1 / gap^power, [Q, P]: errors of the loss grow with the gap to that power.

    A mean over seeds is less uncertain by what the seeds do not share.
    """
    gap = design.gap(theta_QK)
    grown = np.maximum(gap, SMALLEST_WEIGHT * gap.max(axis=1, keepdims=True)) ** -power
    return np.asarray(grown / np.sqrt(SHARED + (1 - SHARED) / design.seeds_P))


def explained(design: JointDesign, loss_QP: Array, theta_QK: Array) -> Array:
    """R^2 of ln(J - E) of each study over the points above its floor, each counted alike, [Q]."""
    above_QP = loss_QP - theta_QK[:, 4:5]
    seen_QP = np.log(above_QP, out=np.full_like(above_QP, np.nan), where=above_QP > 0)
    count_Q1 = np.isfinite(seen_QP).sum(axis=1, keepdims=True)
    mean_Q1 = np.nansum(seen_QP, axis=1, keepdims=True) / np.maximum(count_Q1, 1)
    spread_Q = np.nansum((seen_QP - mean_Q1) ** 2, axis=1)
    rest_Q = np.nansum((seen_QP - np.log(design.gap(theta_QK))) ** 2, axis=1)
    return np.asarray(np.where(spread_Q > 0, 1 - rest_Q / np.maximum(spread_Q, 1e-300), np.nan))


def correlated(noise_QP: Array, along_P: Array) -> Array:
    """Independent noise made to follow the point before with the correlation along_P."""
    found_QP = noise_QP.copy()
    for k in np.flatnonzero(along_P):
        rest = np.sqrt(1 - along_P[k] ** 2)
        found_QP[:, k] = along_P[k] * found_QP[:, k - 1] + rest * noise_QP[:, k]
    return found_QP


@dataclass(frozen=True)
class Luck:
    """Random numbers of simulated studies: own to a noise scale, but for a share of their variance.

    common: a generator that all noise scales of a study begin alike. What one network's luck moves
    at one noise scale it moves at its neighbours.
    """

    own: np.random.Generator
    common: np.random.Generator | None = None
    share: float = 0.0

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers."""
        own = self.own.standard_normal(shape)
        if self.common is None:
            return own
        common = self.common.standard_normal(shape)
        return np.asarray(np.sqrt(self.share) * common + np.sqrt(1 - self.share) * own)


def draw_errors(
    design: JointDesign, white: Whitening, parts: Components, freedom: int, weight_P: Array,
    draws: int, luck: Luck,
) -> Array:  # fmt: skip
    """Errors [draws, P] of points with these weights, tau and s drawn from the first posterior."""
    at = luck.own.choice(parts.posterior_QL.shape[1], size=draws, p=parts.posterior_QL[0])
    scale_Q = np.sqrt(parts.variance_QL[0, at] * freedom / luck.own.chisquare(freedom, draws))
    noise = luck.normal((draws, len(design)))
    noise = correlated(noise, design.along(white.correlation_Q)[0])
    # In the whitened units a cluster's shift is one number on every weighted point.
    level = RATIO_L[at][:, None] * luck.normal((draws, len(design.start_R)))
    return np.asarray(scale_Q[:, None] * (noise + level[:, design.cluster_P]) / weight_P)
