"""The second solver: variable projection (Golub & Pereyra 1973), run beside lmfit every time.

All three laws are J = s (rho + e^{alpha x}), so ln J = ln s + ln(rho + e^{alpha x}): linear in
ln s once (alpha, rho) are given. ln s is projected out, what is left is solved over alpha (and,
for the free law, rho) with exact derivatives of the projected residual.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, least_squares

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
