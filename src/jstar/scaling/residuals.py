"""Does a law leave structure behind? Tests of its residuals, and a broken law as alternative."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from jstar.scaling.fit import aicc
from jstar.scaling.laws import MIN_CLUSTERS, Array, LawFit, Points

BREAKS = 60


@dataclass(frozen=True)
class ResidualTests:
    """runs_p: Wald-Wolfowitz test of the signs along ln F. durbin_watson: within clusters, 2 if
    neighbours are unrelated. curvature: coefficient of (ln F)^2; curvature_p: from leave-one-
    cluster-out errors. broken_delta_aicc: AICc(line) - AICc(two lines joined at break_flops), both
    for the law's own response: above 0 the break is preferred. alpha_before, alpha_after: slopes.
    """

    runs_p: float
    durbin_watson: float
    curvature: float
    curvature_p: float
    broken_delta_aicc: float
    break_flops: float
    alpha_before: float
    alpha_after: float


def examine(points: Points, fit: LawFit) -> ResidualTests:
    """Residual tests of a converged raw or corrected law."""
    order = np.argsort(points.flops, kind="stable")
    curvature, curvature_p = quadratic_term(points, fit)
    return ResidualTests(
        sign_runs(fit.residual[order]),
        durbin_watson(points, fit.residual),
        curvature,
        curvature_p,
        *broken_law(points, fit),
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
    return float(2 * norm.sf(max(abs(runs - mean) - 0.5, 0) / np.sqrt(variance)))


def durbin_watson(points: Points, residual: Array) -> float:
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


def quadratic_term(points: Points, fit: LawFit) -> tuple[float, float]:
    """Coefficient of x^2 added to the law, and its p-value from a jackknife over clusters."""
    if points.clusters <= MIN_CLUSTERS:
        return float("nan"), float("nan")
    y = np.log(points.response(fit.law)[0])
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
    return full, float(2 * student.sf(abs(full / error), points.clusters - 1))


def broken_law(points: Points, fit: LawFit) -> tuple[float, float, float, float]:
    """(delta AICc, break, slope before, slope after) of two lines joined where the fit is best."""
    nothing = (float("nan"),) * 4
    x, y = points.x, np.log(points.response(fit.law)[0])
    y = y - y.mean()
    root = np.sqrt(fit.weight / fit.weight.mean())
    if len(np.unique(x)) < 7:
        return nothing
    inner = np.unique(x)[2:-2]
    best: tuple[float, float, Array] | None = None
    for at in np.linspace(inner[0], inner[-1], BREAKS):
        design = np.stack([np.ones_like(x), x, np.maximum(x - at, 0)], axis=1)
        found, *_ = np.linalg.lstsq(root[:, None] * design, root * y)
        rss = float(((root * (y - design @ found)) ** 2).sum())
        if best is None or rss < best[0]:
            best = (rss, float(at), found)
    if best is None:
        return nothing
    rss, at, found = best
    line_rss = float(((root * fit.residual) ** 2).sum())
    gain = aicc(line_rss, len(x), 2) - aicc(rss, len(x), 4)
    return gain, float(np.exp(at + points.center)), float(found[1]), float(found[1] + found[2])
