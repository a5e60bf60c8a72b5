"""The headline interval: wild cluster bootstrap over runs x J* draws x evaluation draws.

Points of one training run rise and fall together, so the run is the unit that is resampled. Every
draw (1) takes another J* and another evaluation error, both common to all runs, because all are
measured against one curve and on the same images and noise; (2) refits; (3) flips and stretches
the leave-one-run-out scores by Webb's six-point weights and forms a bootstrap t with jackknife
(CR3) errors: WCU-S of MacKinnon, Nielsen & Webb 2023. One draw of the exponent is
alpha(J*_q) - t_q se(J*_q); the interval is between its quantiles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.laws import MIN_RUNS, Array, LawFit, Points

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
REFUSED_DRAWS = 0.025  # share of J* draws above a measured loss beyond which nothing can be said
GRID = 41


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of a straight line in ln F, [Q] and [Q, G].

    alpha: slope. log_grid: the line at `x_grid` [G] (centred ln F). optimal: the J* of the draw.
    refused: share of the first J* draws that lay above a loss, and were drawn again.
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


def webb(rng: np.random.Generator, draws: int, runs: int) -> Array:
    """Webb's six-point weights [draws, runs]: mean 0, variance 1, 6^runs patterns."""
    return np.asarray(WEBB[rng.integers(0, 6, size=(draws, runs))])


def draw_responses(
    points: Points, law: str, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """ln response [Q, P] and J* [Q] under other J* and evaluation errors; share refused.

    A direct gap does not depend on J*. A gap made by subtraction does, and so does ln J of the raw
    law where J was made as J* + direct gap. J* above a measured loss is impossible: drawn again.
    """
    error = points.gap_se if law == "corrected" else points.loss_se
    base = points.gap if law == "corrected" else points.loss
    shifts = points.optimal_se > 0 and (law == "corrected") != points.direct
    sign = 1.0 if law != "corrected" else -1.0
    optimal = np.full(draws, points.optimal)
    response = np.empty((draws, len(points)))
    todo, refused = np.arange(draws), 0.0
    for attempt in range(200):
        z = rng.standard_normal(len(todo)) * points.optimal_se if shifts else np.zeros(len(todo))
        noise = rng.standard_normal(len(todo))
        trial = base + sign * z[:, None] + noise[:, None] * error
        good = (trial > 0).all(axis=1)
        response[todo[good]], optimal[todo[good]] = trial[good], points.optimal + z[good]
        refused = 1 - float(good.mean()) if attempt == 0 else refused
        todo = todo[~good]
        if not len(todo):
            break
    response[todo] = base
    return np.log(response), optimal, refused


def bootstrap(points: Points, fit: LawFit, draws: int, seed: int) -> Draws:
    """Draws of the law's line for `points` (laws raw and corrected; at least 3 runs)."""
    rng = np.random.default_rng([seed, len(points)])
    codes = np.unique(points.run, return_inverse=True)[1]
    y_QP, optimal, refused = draw_responses(points, fit.law, draws, rng)
    response = points.gap if fit.law == "corrected" else points.loss
    error = points.gap_se if fit.law == "corrected" else points.loss_se
    variance = fit.scatter**2 + (error / response) ** 2
    weight = 1 / variance if (variance > 0).all() else np.ones(len(points))
    x_grid = np.linspace(points.x.min(), points.x.max(), GRID)
    functionals = np.vstack([[0.0, 1.0], np.stack([np.ones(GRID), x_grid], axis=1)])
    value = _wild(points.x, y_QP, weight, codes, webb(rng, draws, codes.max() + 1), functionals)
    return Draws(value[:, 0], x_grid, value[:, 1:], optimal, refused)


def _wild(
    x: Array, y_QP: Array, weight: Array, codes: NDArray[np.int64], v_QR: Array, functionals: Array
) -> Array:
    """Draws [Q, L] of the linear functionals [L, 2] of (intercept, slope)."""
    runs = int(codes.max()) + 1
    if runs < MIN_RUNS:
        raise ValueError(f"{runs} runs, a wild cluster bootstrap needs {MIN_RUNS}")
    member = (codes[:, None] == np.arange(runs)) * weight[:, None]  # [P, R]
    design = np.stack([np.ones_like(x), x], axis=1)
    a_R22 = np.einsum("pr,pi,pj->rij", member, design, design)
    b_QR2 = np.stack([y_QP @ member, (y_QP * x) @ member], axis=2)
    a_22 = a_R22.sum(axis=0)
    inverse, left_out = np.linalg.inv(a_22), np.linalg.inv(a_22 - a_R22)
    theta_Q2 = b_QR2.sum(axis=1) @ inverse
    without = np.einsum("rij,qrj->qri", left_out, b_QR2.sum(axis=1, keepdims=True) - b_QR2)
    error = _jackknife(without, theta_Q2, functionals)
    score = b_QR2 - np.einsum("rij,qrj->qri", a_R22, without)  # leave-one-out residual scores
    star = np.einsum("rij,qj->qri", a_R22, theta_Q2) + v_QR[:, :, None] * score
    theta_star = star.sum(axis=1) @ inverse
    without = np.einsum("rij,qrj->qri", left_out, star.sum(axis=1, keepdims=True) - star)
    error_star = _jackknife(without, theta_star, functionals)
    t = (theta_star - theta_Q2) @ functionals.T / error_star
    return np.asarray(theta_Q2 @ functionals.T - t * error)


def _jackknife(without_QR2: Array, theta_Q2: Array, functionals: Array) -> Array:
    """CR3 standard errors [Q, L]: (R - 1) / R times the sum of squared leave-one-out changes."""
    runs = without_QR2.shape[1]
    change = (without_QR2 - theta_Q2[:, None]) @ functionals.T
    square = (change**2).sum(axis=1) * (runs - 1) / runs
    return np.asarray(np.sqrt(np.maximum(square, 1e-300)))
