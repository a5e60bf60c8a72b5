"""Does a law leave structure behind? Tests of its residuals, and a broken law as alternative."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr

from jstar.scaling.compare import noise_components
from jstar.scaling.laws import MIN_CLUSTERS, Array, LawFit, LawPoints, log_response

BREAKS, BREAK_DRAWS = 60, 999


@dataclass(frozen=True)
class BrokenLaw:
    """A broken power law: p-value of the break, its compute, and the exponents on both sides."""

    p: float = float("nan")
    flops: float = float("nan")
    before: float = float("nan")
    after: float = float("nan")


@dataclass(frozen=True)
class ResidualTests:
    """runs_p: Wald-Wolfowitz test of the signs along ln F. durbin_watson: within clusters, 2 if
    neighbours are unrelated. curvature: coefficient of (ln F)^2; curvature_p: from leave-one-
    cluster-out errors. broken_p: of a power law that breaks at break_flops, from alpha_before to
    alpha_after, against one that does not.
    """

    runs_p: float
    durbin_watson: float
    curvature: float
    curvature_p: float
    broken_p: float
    break_flops: float
    alpha_before: float
    alpha_after: float


def examine(points: LawPoints, fit: LawFit) -> ResidualTests:
    """Residual tests of a converged raw or corrected law."""
    order = np.argsort(points.flops, kind="stable")
    curvature, curvature_p = quadratic_term(points, fit)
    broken = broken_law(points, fit)
    return ResidualTests(
        runs_p=sign_runs(fit.residual[order]),
        durbin_watson=durbin_watson(points, fit.residual),
        curvature=curvature,
        curvature_p=curvature_p,
        broken_p=broken.p,
        break_flops=broken.flops,
        alpha_before=broken.before,
        alpha_after=broken.after,
    )


def sign_runs(residual: Array) -> float:
    """Two-sided p-value of the number of sign runs (Wald & Wolfowitz 1940), normal limit."""
    sign = residual > 0
    up, down = int(sign.sum()), int((~sign).sum())
    n = up + down
    if min(up, down) == 0 or n < 4:
        return float("nan")
    runs = 1 + int((sign[1:] != sign[:-1]).sum())
    mean = 1 + 2 * up * down / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    if variance <= 0:
        return float("nan")
    return float(2 * ndtr(-max(abs(runs - mean) - 0.5, 0) / np.sqrt(variance)))


def durbin_watson(points: LawPoints, residual: Array) -> float:
    """Sum of squared differences of neighbours of one cluster over the sum of squares about it."""
    above, below = 0.0, 0.0
    for c in range(points.clusters):
        mine = np.flatnonzero(points.cluster == c)
        if len(mine) < 3:
            continue
        r = residual[mine[np.argsort(points.flops[mine], kind="stable")]]
        r = r - r.mean()
        above, below = above + float((np.diff(r) ** 2).sum()), below + float((r**2).sum())
    return above / below if below > 0 else float("nan")


def quadratic_term(points: LawPoints, fit: LawFit) -> tuple[float, float]:
    """Coefficient of x^2 added to the law, and its p-value from a jackknife over clusters."""
    if points.clusters <= MIN_CLUSTERS:
        return float("nan"), float("nan")
    y = log_response(points, fit)[0]
    y = y - y.mean()
    design = np.stack([np.ones_like(points.x), points.x, points.x**2], axis=1)
    root = np.sqrt(fit.weight / fit.weight.mean())

    def solve(keep: Array) -> float:
        return float(np.linalg.lstsq((root * keep)[:, None] * design, root * keep * y)[0][2])

    full = solve(np.ones(len(points)))
    without = np.array([solve((points.cluster != c).astype(float)) for c in range(points.clusters)])
    error = np.sqrt(((without - full) ** 2).sum() * (points.clusters - 1) / points.clusters)
    if error == 0:
        return full, float("nan")
    return full, float(2 * stdtr(points.clusters - 1, -abs(full / error)))


def broken_law(points: LawPoints, fit: LawFit, seed: int = 0) -> BrokenLaw:
    """Two lines joined where the fit is best, and how often noise alone would bend as much.

    The share of the sum of squares that a kink at the best of 60 places removes is compared with
    straight lines with the noise between and within clusters that the residuals show: its p-value
    needs no count of independent points, which AICc does.
    """
    x = points.x
    inner = np.unique(x)[2:-2]
    if len(inner) < 3:
        return BrokenLaw()
    root = np.sqrt(fit.weight / fit.weight.mean())
    basis = np.linalg.qr(root[:, None] * np.stack([np.ones_like(x), x], axis=1))[0]
    at_B = np.linspace(inner[0], inner[-1], BREAKS)
    hinge_PB = root[:, None] * np.maximum(x[:, None] - at_B, 0)
    hinge_PB = hinge_PB - basis @ (basis.T @ hinge_PB)
    hinge_PB = hinge_PB / np.linalg.norm(hinge_PB, axis=0)
    rng = np.random.default_rng([seed, len(points), 3])
    between, within = noise_components(fit.residual, points.cluster)
    noise = within * rng.standard_normal((BREAK_DRAWS, len(x)))
    noise += between * rng.standard_normal((BREAK_DRAWS, points.clusters))[:, points.cluster]
    rest_QP = root * np.vstack([fit.residual, noise])
    rest_QP = rest_QP - (rest_QP @ basis) @ basis.T
    gain_QB = (rest_QP @ hinge_PB) ** 2 / np.maximum((rest_QP**2).sum(axis=1), 1e-300)[:, None]
    gain_Q, best = gain_QB.max(axis=1), int(gain_QB[0].argmax())
    design = np.stack([np.ones_like(x), x, np.maximum(x - at_B[best], 0)], axis=1)
    response = root * log_response(points, fit)[0]
    _, before, bend = np.linalg.lstsq(root[:, None] * design, response)[0]
    return BrokenLaw(
        p=float((1 + (gain_Q[1:] >= gain_Q[0]).sum()) / (1 + BREAK_DRAWS)),
        flops=float(np.exp(at_B[best] + points.center)),
        before=float(before),
        after=float(before + bend),
    )
