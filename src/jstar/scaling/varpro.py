"""The second solver: variable projection (Golub & Pereyra 1973), run beside lmfit every time.

All three laws are J = s (rho + e^{alpha x}), so ln J = ln s + ln(rho + e^{alpha x}): linear in
ln s once (alpha, rho) are given. ln s is projected out, what is left is solved over alpha (and,
for the free law, rho) with exact derivatives of the projected residual.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, least_squares, minimize_scalar

from jstar.scaling.laws import Array


@dataclass(frozen=True)
class ProjectedFit:
    """Solution of the projected problem; offset is rho * exp(ln_scale)."""

    ln_scale: float
    alpha: float
    offset: float


def power_law(x: Array, y: Array, weight: Array) -> ProjectedFit:
    """min over (ln s, alpha) of sum weight (y - ln s - alpha x)^2; x, y, weight [P]."""

    def slope(alpha: float) -> float:
        """Half the derivative of the projected sum of squares."""
        free = y - alpha * x
        return float(np.sum(weight * x * (free - np.average(free, weights=weight))))

    step = 1.0
    while slope(-step) * slope(step) > 0:
        step *= 2
    alpha = float(brentq(slope, -step, step, xtol=1e-15, rtol=1e-14))
    return ProjectedFit(float(np.average(y - alpha * x, weights=weight)), alpha, 0.0)


@dataclass(frozen=True)
class Exponential:
    """Solution of a fit in J: scale e^{alpha x}; a scale of 0 or below is no law."""

    scale: float
    alpha: float


def exponential(x: Array, gap: Array, weight: Array) -> Exponential:
    """min over (scale, alpha) of sum weight (gap - scale e^{alpha x})^2; x, gap, weight [P]."""
    weight = weight / weight.max()

    def scale(alpha: float) -> float:
        shape = np.exp(alpha * x)
        return float((weight * shape) @ gap / ((weight * shape) @ shape))

    def rss(alpha: float) -> float:
        return float(weight @ (gap - scale(alpha) * np.exp(alpha * x)) ** 2)

    tried = np.linspace(-20, 20, 401) / np.ptp(x)
    best = int(np.argmin([rss(a) if scale(a) > 0 else np.inf for a in tried]))
    ends = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    near = float(minimize_scalar(rss, bounds=ends, method="bounded").x)

    def residual(p: Array) -> Array:
        return np.asarray(np.sqrt(weight) * (gap - scale(p[0]) * np.exp(p[0] * x)))

    alpha = float(
        least_squares(residual, [near], jac="3-point", ftol=1e-15, xtol=1e-15, gtol=1e-15).x[0]
    )
    return Exponential(scale(alpha), alpha)


def offset_law(x: Array, y: Array, weight: Array, start: tuple[float, float]) -> ProjectedFit:
    """min over (ln s, alpha, rho) of sum weight (y - ln s - ln(rho + e^{alpha x}))^2.

    start: (alpha, rho). rho may be negative, as long as rho + e^{alpha x} stays positive.
    """
    root = np.sqrt(weight / weight.sum())

    def log_shape(p: Array) -> Array:
        return np.asarray(np.log(np.maximum(p[1] + np.exp(p[0] * x), 1e-300)))

    def project(v: Array) -> Array:
        """root * (v - weighted mean of v): the projection onto what ln s cannot reach."""
        return np.asarray(root * v - root * (root @ (root * v)))

    def jacobian(p: Array) -> Array:
        shape = np.maximum(p[1] + np.exp(p[0] * x), 1e-300)
        columns = (-x * np.exp(p[0] * x) / shape, -1 / shape)
        return np.stack([project(c) for c in columns], axis=1)

    def residual(p: Array) -> Array:
        return project(y - log_shape(p))

    found = least_squares(
        residual, np.array(start), jacobian, x_scale="jac",
        ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=300,
    )  # fmt: skip
    ln_scale = float(np.average(y - log_shape(found.x), weights=weight))
    return ProjectedFit(ln_scale, float(found.x[0]), float(found.x[1] * np.exp(ln_scale)))
