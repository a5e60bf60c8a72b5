"""The headline interval: wild cluster bootstrap over runs x J* draws x evaluation draws.

Points of one training run rise and fall together, and the seeds of one size share that size's
distance from the law, so whole clusters are resampled. Every draw

1. takes another J* and another evaluation error, both common to all runs, because all are measured
   against one curve and on the same images and noise, and refits;
2. multiplies the leave-one-cluster-out scores (MacKinnon, Nielsen & Webb 2023) by Webb's six-point
   weights, and by sqrt(nu / chi2_nu), nu = clusters - 1: with four to eight clusters the scale of
   the scores is itself uncertain, and without that factor 95 % intervals hold 88 %.

The interval lies between quantiles of the draws. Its coverage is measured, not assumed:
benchmarks/scaling_coverage.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.laws import MIN_CLUSTERS, Array, LawFit, LawPoints, log_response

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
REFUSED_DRAWS = 0.025  # share of J* draws above a measured loss beyond which nothing can be said
ATTEMPTS = 200  # how often such a draw is drawn again
GRID = 41


@dataclass(frozen=True)
class AlphaDraws:
    """Bootstrap draws of a straight line in ln F.

    alpha: slope [Q]. x_grid: centred ln F [G]; log_grid: the line there [Q, G]. optimal: J* of the
    draw [Q]. refused: share of the first J* draws that lay above a loss, and were drawn again.
    """

    alpha: Array
    x_grid: Array
    log_grid: Array
    optimal: Array
    refused: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Quantiles of alpha."""
        low, high = np.quantile(self.alpha, [0.5 - confidence / 2, 0.5 + confidence / 2])
        return float(low), float(high)


def webb(rng: np.random.Generator, draws: int, clusters: int) -> Array:
    """Webb's six-point weights [draws, clusters]: mean 0, variance 1."""
    return np.asarray(WEBB[rng.integers(0, 6, size=(draws, clusters))])


def draw_responses(
    points: LawPoints, fit: LawFit, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """ln response [Q, P] and J* [Q] under other J* and evaluation errors; share refused.

    J* above a measured loss (in a fit in J: above the law) is impossible: drawn again.
    """
    optimal = np.full(draws, points.optimal)
    response = np.repeat(log_response(points, fit), draws, axis=0)
    todo, refused = np.arange(draws), 0.0
    for attempt in range(ATTEMPTS):
        z, noise = rng.standard_normal((2, len(todo)))
        trial = log_response(points, fit, z, noise)
        good = np.isfinite(trial).all(axis=1)
        response[todo[good]] = trial[good]
        optimal[todo[good]] += z[good] * abs(points.shift(fit.law))
        refused = 1 - float(good.mean()) if attempt == 0 else refused
        todo = todo[~good]
        if not len(todo):
            break
    return response, optimal, refused


def bootstrap(
    points: LawPoints, fit: LawFit, draws: int, seed: int, x_grid: Array | None = None
) -> AlphaDraws:
    """Draws of the law's line (raw or corrected) at `x_grid` (default: along the points)."""
    rng = np.random.default_rng([seed, len(points)])
    y_QP, optimal, refused = draw_responses(points, fit, draws, rng)
    if x_grid is None:
        x_grid = np.linspace(points.x.min(), points.x.max(), GRID)
    functionals = np.vstack([[0.0, 1.0], np.stack([np.ones_like(x_grid), x_grid], axis=1)])
    value = wild_draws(points.x, y_QP, fit.weight, points.cluster, functionals, rng)
    return AlphaDraws(value[:, 0], x_grid, value[:, 1:], optimal, refused)


def wild_draws(
    x: Array,
    y_QP: Array,
    weight: Array,
    cluster: NDArray[np.int64],
    functionals: Array,
    rng: np.random.Generator,
) -> Array:
    """Draws [Q, L] of the linear functionals [L, 2] of (intercept, slope) of y on x.

    cluster [P]: labels 0 ... R-1. Every row of y_QP is one draw's data. Weighted least squares;
    all of it is arithmetic on [Q, R, 2].
    """
    runs = int(cluster.max()) + 1
    if runs < MIN_CLUSTERS:
        raise ValueError(f"{runs} clusters, a wild cluster bootstrap needs {MIN_CLUSTERS}")
    member = (cluster[:, None] == np.arange(runs)) * (weight / weight.mean())[:, None]  # [P, R]
    design = np.stack([np.ones_like(x), x], axis=1)
    a_R22 = np.einsum("pr,pi,pj->rij", member, design, design)
    b_QR2 = np.stack([y_QP @ member, (y_QP * x) @ member], axis=2)
    inverse = np.linalg.inv(a_R22.sum(axis=0))
    left_out = np.linalg.inv(a_R22.sum(axis=0) - a_R22)
    theta_Q2 = b_QR2.sum(axis=1) @ inverse
    without = np.einsum("rij,qrj->qri", left_out, b_QR2.sum(axis=1, keepdims=True) - b_QR2)
    score = b_QR2 - np.einsum("rij,qrj->qri", a_R22, without)
    draws, freedom = len(y_QP), runs - 1
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=draws))
    step = np.einsum("qr,qri->qi", webb(rng, draws, runs), score) @ inverse
    return np.asarray((theta_Q2 + scale[:, None] * step) @ functionals.T)
