"""Thousands of lines, and lines above an offset, fitted at once: for profile and comparison.

Q problems share the design x [P]; everything is NumPy arithmetic on [Q, P], no loop over draws.
"""

from dataclasses import dataclass

import numpy as np

from jstar.scaling.laws import Array


@dataclass(frozen=True)
class ManyFits:
    """Solutions of Q problems: ln_scale, alpha and the sum of squares, each [Q]."""

    ln_scale: Array
    alpha: Array
    rss: Array


def line(x: Array, y_QP: Array, weight: Array | None = None) -> ManyFits:
    """Least squares of y = ln_scale + alpha x for every row of y_QP, weights [P]."""
    w = np.ones_like(x) if weight is None else weight
    w = w / w.sum()
    mean_x, mean_y = float(w @ x), y_QP @ w
    alpha = (y_QP @ (w * (x - mean_x))) / float(w @ (x - mean_x) ** 2)
    ln_scale = mean_y - alpha * mean_x
    rest = y_QP - ln_scale[:, None] - alpha[:, None] * x
    return ManyFits(ln_scale, alpha, np.asarray((rest**2).sum(axis=1)))


def offset_line(
    x: Array, log_loss_QP: Array, offset_Q: Array, start: ManyFits, steps: int = 40
) -> ManyFits:
    """min of sum (ln J - ln(offset + e^{ln_scale + alpha x}))^2 for every row, offset given.

    Levenberg-Marquardt with one damping a row; a row stops when its steps fall under 1e-12.
    The law is evaluated as a prediction of ln J, whatever it was fitted to.
    """
    theta = np.stack([start.ln_scale, start.alpha], axis=1)
    offset = offset_Q[:, None]
    damping = np.full(len(theta), 1e-3)
    rest, power, shape = _residual(x, log_loss_QP, offset, theta)
    rss = (rest**2).sum(axis=1)
    for _ in range(steps):
        slope = power / shape  # d ln J / d ln_scale
        g0, g1 = (slope * rest).sum(axis=1), (slope * x * rest).sum(axis=1)
        square = slope * slope
        h00, h01, h11 = square.sum(axis=1), (square * x).sum(axis=1), (square * x * x).sum(axis=1)
        a, c = h00 * (1 + damping), h11 * (1 + damping)
        det = a * c - h01 * h01
        step = np.stack([(c * g0 - h01 * g1) / det, (a * g1 - h01 * g0) / det], axis=1)
        step = np.where(np.isfinite(step), step, 0.0)
        trial = theta + step
        new_rest, new_power, new_shape = _residual(x, log_loss_QP, offset, trial)
        new_rss = (new_rest**2).sum(axis=1)
        better = new_rss <= rss
        keep = better[:, None]
        theta, rss = np.where(keep, trial, theta), np.where(better, new_rss, rss)
        rest = np.where(keep, new_rest, rest)
        power, shape = np.where(keep, new_power, power), np.where(keep, new_shape, shape)
        damping = np.clip(np.where(better, damping * 0.2, damping * 8), 1e-14, 1e12)
        if float(np.abs(step).max()) < 1e-12:
            break
    return ManyFits(theta[:, 0], theta[:, 1], np.asarray(rss))


def _residual(
    x: Array, log_loss_QP: Array, offset: Array, theta: Array
) -> tuple[Array, Array, Array]:
    """Residual of ln J, the power term and the law, each [Q, P]."""
    power = np.exp(np.clip(theta[:, :1] + theta[:, 1:] * x, -600, 600))
    shape = offset + power
    return log_loss_QP - np.log(shape), power, shape
