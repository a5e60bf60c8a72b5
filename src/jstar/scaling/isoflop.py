"""isoFLOP curves: sizes at equal compute, and the minimum over sizes (approach 2 of 2203.15556)."""

import numpy as np
import pandas as pd

from jstar.scaling.laws import Array

LEVELS = 9  # values of compute at which sizes are compared


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
