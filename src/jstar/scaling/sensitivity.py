"""How far the corrected exponent moves when a choice is made otherwise."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from jstar.config import FitConfig
from jstar.constants import NORMAL_95
from jstar.scaling.fit import fit_points
from jstar.scaling.frontier import frontier
from jstar.scaling.inputs import average_lengths, select
from jstar.scaling.intervals import bootstrap
from jstar.scaling.laws import Array, LawPoints, log_response
from jstar.scaling.many_fits import line
from jstar.scaling.noise_scales import (
    ScaleFits,
    StudyFits,
    cluster_of,
    frontier_value,
    points_of_rows,
    with_gap,
)

HUBER = 1.345  # in robust standard deviations: 95 % efficient for normal residuals
TOLERANCES = (0.0, 0.05, 0.1)
SHARES = (0.25, 0.5)
COLUMNS = ("sigma", "choice", "alpha", "shift_in_se", "alpha_low", "alpha_high", "n")


def sensitivity_frame(study: StudyFits) -> pd.DataFrame:
    """One row per (sigma or total, choice): the exponent under that choice alone.

    shift_in_se: its distance from the headline, in quarter widths of the headline interval.
    """
    rows = []
    for scale in study.scales:
        base = scale.fits["corrected"]
        if not base.ok:
            continue
        unit = (base.alpha_high - base.alpha_low) / 4
        for choice, alpha, low, high, n in _choices(scale, study):
            shift = (alpha - base.alpha) / unit if unit > 0 else float("nan")
            rows.append((scale.sigma, choice, alpha, shift, low, high, n))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _choices(scale: ScaleFits, study: StudyFits) -> Iterator[tuple[str, float, float, float, int]]:
    """(choice, alpha, low, high, points); intervals only where the choice is about them."""
    config, base = study.config, scale.fits["corrected"]
    none = (float("nan"), float("nan"))
    yield "as fitted", base.alpha, base.alpha_low, base.alpha_high, base.n
    for choice, points in _other_points(scale, study):
        yield choice, _alpha(points), *none, len(points)
    robust = huber(scale.points.x, log_response(scale.points, base)[0])
    yield f"Huber, {HUBER} robust SD", robust, *none, base.n
    other = "run" if cluster_of(scale.rows, config.cluster) == "size" else "size"
    optimal = (scale.points.optimal, scale.points.optimal_se)
    points = points_of_rows(scale.edge.points, optimal, scale.points.direct, other)
    fit = fit_points(points, "corrected", config.confidence)
    if fit.ok:
        sample = bootstrap(points, fit, config.bootstrap, config.seed)
        yield f"clusters: {other}", fit.alpha, *sample.interval(config.confidence), len(points)


def _other_points(scale: ScaleFits, study: StudyFits) -> Iterator[tuple[str, LawPoints]]:
    """The points under every other choice."""
    points, config = scale.points, study.config
    cluster = cluster_of(scale.rows, config.cluster)
    optimal = (points.optimal, points.optimal_se)
    if points.optimal_se > 0 and not points.direct:
        for word, sign in (("low", -1), ("high", 1)):
            moved = points.with_optimal(points.optimal + sign * NORMAL_95 * points.optimal_se)
            yield f"J* at the {word} end of its interval", moved
    for tolerance in TOLERANCES:
        edge = frontier(scale.rows, value=frontier_value(scale.rows), tolerance=tolerance)
        other = points_of_rows(edge.points, optimal, points.direct, cluster)
        yield f"frontier tolerance {tolerance:g}", other
    if points.direct and np.isfinite(points.optimal):
        subtracted = scale.rows.drop(columns=["gap", "gap_se"], errors="ignore")
        yield "gap = loss - J*", _fresh(subtracted, optimal, config)
    for length in sorted(average_lengths(study.losses)):
        if length != float(scale.rows["ema"].iloc[0]):
            rows = select(study.losses, ema=length, min_images=config.min_images)
            rows = rows[rows["sigma"] == scale.sigma]
            yield f"EMA {length:g}", _fresh(rows, optimal, config)
    for share in SHARES:
        start = points.x.min() + share * np.ptp(points.x)
        yield f"first {share:.0%} of ln F left out", points.take(points.x >= start)
    largest = points.cluster[int(np.argmax(points.flops))]
    yield "cluster with the largest F left out", points.take(points.cluster != largest)
    yield "equal weights", replace(points, gap_se=np.zeros(len(points)))


def _fresh(rows: pd.DataFrame, optimal: tuple[float, float], config: FitConfig) -> LawPoints:
    """Points from other rows, with their own frontier."""
    prepared, direct = with_gap(rows, optimal[0])
    tolerance = config.frontier_tolerance
    edge = frontier(prepared, value=frontier_value(prepared), tolerance=tolerance)
    return points_of_rows(edge.points, optimal, direct, cluster_of(rows, config.cluster))


def _alpha(points: LawPoints) -> float:
    fit = fit_points(points, "corrected")
    return fit.alpha if fit.ok else float("nan")


def huber(x: Array, y: Array, steps: int = 200) -> float:
    """Slope by iteratively reweighted least squares; the scale is 1.4826 MAD of the residuals."""
    weight, alpha = np.ones_like(x), np.inf
    for _ in range(steps):
        fit = line(x, y[None], weight)
        rest = y - fit.ln_scale[0] - fit.alpha[0] * x
        scale = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
        if scale == 0 or abs(float(fit.alpha[0]) - alpha) < 1e-13:
            break
        alpha = float(fit.alpha[0])
        weight = np.minimum(1, HUBER * scale / np.maximum(np.abs(rest), 1e-300))
    return float(fit.alpha[0])
