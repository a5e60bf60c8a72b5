"""Minima of curves of constant compute (isoFLOP), and the parametric law L(N, D).

Approaches 2 and 3 of arXiv 2203.15556: N parameters, D images, F FLOPs.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares, nnls

from jstar.scaling.fit import aicc
from jstar.scaling.laws import Array

LEVELS = 9  # values of compute at which sizes are compared
FLOORS = ("zero", "optimal", "free")
LARGEST_LOG = 200.0
EXPONENTS = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2])


def iso_flop(rows: pd.DataFrame, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves and minima at fixed compute of one noise scale's rows.

    Curves: flops, params, value (seeds averaged, interpolated in ln F along each size's curve).
    Minima: flops, params (N_opt), images (D_opt), value, status: `inside` (a parabola in ln N
    through the best size and its neighbours), `at the edge` (the best size is the largest or
    smallest that reached this compute) or `too few sizes`.
    """
    curves = _curves(rows, value)
    lowest = sorted(float(f[0]) for f, _, _ in curves.values())
    highest = sorted(float(f[-1]) for f, _, _ in curves.values())
    if len(curves) < 3 or lowest[1] >= highest[-2]:
        empty = pd.DataFrame(columns=["flops", "params", value])
        return empty, empty.assign(images=[], status=[])
    levels = np.linspace(lowest[1], highest[-2], LEVELS)  # where at least two sizes overlap
    points, minima = [], []
    for level in levels:
        reached = [(n, c) for n, c in curves.items() if c[0][0] <= level <= c[0][-1]]
        log_n = np.log([n for n, _ in reached])
        log_v = np.array([np.interp(level, f, v) for _, (f, v, _) in reached])
        log_d = np.array([np.interp(level, f, d) for _, (f, _, d) in reached])
        flops = float(np.exp(level))
        points += [
            (flops, float(np.exp(n)), float(np.exp(v))) for n, v in zip(log_n, log_v, strict=True)
        ]
        minima.append((flops, *_minimum(log_n, log_v, log_d)))
    return (
        pd.DataFrame(points, columns=["flops", "params", value]),
        pd.DataFrame(minima, columns=["flops", "params", "images", value, "status"]),
    )


def _curves(rows: pd.DataFrame, value: str) -> dict[float, tuple[Array, Array, Array]]:
    """ln F, ln value and ln images of every size, seeds averaged, increasing in F."""
    images = "images" in rows and bool(rows["images"].notna().all())
    frame = rows[rows[value] > 0].assign(d=rows["images"] if images else np.nan)
    mean = frame.groupby(["params", "flops"], sort=True)[[value, "d"]].mean().reset_index()
    curves = {}
    for params, part in mean.groupby("params"):
        if len(part) > 1:
            f, v, d = (np.log(part[c].to_numpy(dtype=float)) for c in ("flops", value, "d"))
            curves[float(str(params))] = (f, v, d)
    return curves


def _minimum(log_n: Array, log_v: Array, log_d: Array) -> tuple[float, float, float, str]:
    """(N_opt, D_opt, value, status) of one isoFLOP curve."""
    best = int(np.argmin(log_v))
    at, low = float(log_n[best]), float(log_v[best])
    status = "too few sizes" if len(log_n) < 3 else "at the edge"
    if 0 < best < len(log_n) - 1:
        near = slice(best - 1, best + 2)
        c2, c1, c0 = np.polyfit(log_n[near] - at, log_v[near], 2)
        shift = -c1 / (2 * c2)
        at, low, status = at + shift, float(c0 - c1 * c1 / (4 * c2)), "inside"
    images = (
        float(np.exp(np.interp(at, log_n, log_d))) if np.isfinite(log_d).all() else float("nan")
    )
    return float(np.exp(at)), images, float(np.exp(low)), status


def optimal_exponent(minima: pd.DataFrame, column: str) -> float:
    """Exponent of N_opt(F) or D_opt(F) through the minima that lie inside, nan for fewer than 3."""
    inside = minima[(minima["status"] == "inside") & minima[column].notna()]
    if len(inside) < 3:
        return float("nan")
    return float(np.polyfit(np.log(inside["flops"]), np.log(inside[column].astype(float)), 1)[0])


@dataclass(frozen=True)
class ParametricFit:
    """L(N, D) = E + A (N / N0)^-a + B (D / D0)^-b, N0 and D0 geometric means of the rows.

    floor: whether E is 0, J* or free. alpha: -ab/(a+b), the exponent of L - E along the optimal N.
    size_exponent: b/(a+b), of N_opt(F). rmse: of ln L. status: converged, at bound (a term or the
    floor vanished) or not converged.
    """

    floor: str
    E: float
    A: float
    a: float
    B: float
    b: float
    rmse: float
    aicc: float
    n: int
    status: str

    @property
    def alpha(self) -> float:
        """Exponent of compute."""
        return -self.a * self.b / (self.a + self.b)

    @property
    def size_exponent(self) -> float:
        """Exponent of the optimal number of parameters."""
        return self.b / (self.a + self.b)


def parametric_law(
    params: Array, images: Array, loss: Array, floor: str, optimal: float = 0.0
) -> ParametricFit:
    """Least squares of ln L over all rows [P] (every size, every snapshot).

    floor: `zero`, `optimal` (E = optimal) or `free`. Starts from the best of a grid of (a, b), for
    which A, B and E are linear and not negative.
    """
    unit = float(np.exp(np.mean(np.log(loss))))
    n, d, y = params / _mean(params), images / _mean(images), loss / unit
    fixed = optimal / unit if floor == "optimal" else 0.0
    start = _grid_start(n, d, y, fixed, floor == "free")

    log_n, log_d = np.log(n), np.log(d)

    def terms(p: Array) -> tuple[Array, Array, float]:
        floor_value = float(_exp(p[4])) if floor == "free" else fixed
        return _exp(p[0] - p[1] * log_n), _exp(p[2] - p[3] * log_d), floor_value

    def residual(p: Array) -> Array:
        by_size, by_data, bottom = terms(p)
        return np.asarray(np.log(bottom + by_size + by_data) - np.log(y))

    def jacobian(p: Array) -> Array:
        by_size, by_data, bottom = terms(p)
        columns = [by_size, -by_size * log_n, by_data, -by_data * log_d]
        columns += [np.full_like(y, bottom)] if floor == "free" else []
        return np.asarray(np.stack(columns, axis=1) / (bottom + by_size + by_data)[:, None])

    found = least_squares(
        residual, start, jacobian, method="lm", xtol=1e-10, ftol=1e-12, max_nfev=400
    )
    A, B = _exp(found.x[[0, 2]])
    E = float(_exp(found.x[4])) if floor == "free" else fixed
    rss = float(2 * found.cost)
    vanished = min(A, B) < 1e-8 or (floor == "free" and E < 1e-8) or min(found.x[[1, 3]]) < 1e-3
    status = "at bound" if vanished else "converged" if found.success else "not converged"
    return ParametricFit(
        floor, E * unit, float(A) * unit, float(found.x[1]), float(B) * unit, float(found.x[3]),
        float(np.sqrt(rss / len(y))), aicc(rss, len(y), len(start)), len(y), status,
    )  # fmt: skip


def _exp(log: Array) -> Array:
    """exp, bounded: with too few sizes the solver tries steps that no number can hold."""
    return np.asarray(np.exp(np.clip(log, -LARGEST_LOG, LARGEST_LOG)))


def _mean(values: Array) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _grid_start(n: Array, d: Array, y: Array, fixed: float, free: bool) -> Array:
    """Starting point: non-negative least squares of relative errors over a grid of exponents."""
    best: tuple[float, Array] | None = None
    for a in EXPONENTS:
        for b in EXPONENTS:
            columns = [n**-a, d**-b] + ([np.ones_like(y)] if free else [])
            linear, rest = nnls(np.stack(columns, axis=1) / y[:, None], (y - fixed) / y)
            if best is None or rest < best[0]:
                logs = np.log(np.maximum(linear, 1e-4))
                values = [logs[0], a, logs[1], b, *([logs[2]] if free else [])]
                best = (float(rest), np.array(values))
    assert best is not None
    return best[1]
