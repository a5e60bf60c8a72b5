"""Raw or corrected? Both as predictions of ln J, and "undecided" is an answer.

The statistic is the difference of AICc (positive: for the corrected law). How large it gets by
chance is simulated from each law in turn, with the run-to-run and point-to-point noise found
around that law and with J* redrawn (a Cox test by parametric bootstrap, Williams 1970). A law
wins if the other one is rejected and it is not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.batch import line, offset_line
from jstar.scaling.fit import fit_points
from jstar.scaling.laws import Array, LawFit, Points

HELD_OUT = 0.2  # share of the range of ln F that is predicted from the rest


@dataclass(frozen=True)
class Comparison:
    """Verdict: corrected, raw or undecided, and why.

    delta_aicc: AICc(raw) - AICc(corrected). p_raw, p_corrected: how often the law in question,
    were it true, would speak against itself at least this strongly. weight_corrected: Akaike
    weight. heldout_raw, heldout_corrected: root mean square error of ln J at the largest compute.
    """

    verdict: str
    reason: str
    delta_aicc: float = float("nan")
    weight_corrected: float = float("nan")
    p_raw: float = float("nan")
    p_corrected: float = float("nan")
    heldout_raw: float = float("nan")
    heldout_corrected: float = float("nan")


def compare(
    points: Points, raw: LawFit, corrected: LawFit, *, level: float, draws: int, seed: int
) -> Comparison:
    """Compare two fits of the same points at significance `level`."""
    for fit in (raw, corrected):
        if not fit.ok:
            return Comparison("undecided", f"{fit.law} law: {fit.status}")
    delta = raw.aicc - corrected.aicc
    rng = np.random.default_rng([seed, len(points), 1])
    p_raw = _tail(delta, _null(points, raw, draws, rng))
    p_corrected = _tail(-delta, -_null(points, corrected, draws, rng))
    verdict, reason = decide(p_raw, p_corrected, level)
    return Comparison(
        verdict, reason, delta, float(1 / (1 + np.exp(-0.5 * np.clip(delta, -700, 700)))),
        p_raw, p_corrected, held_out_error(points, "raw"), held_out_error(points, "corrected"),
    )  # fmt: skip


def decide(p_raw: float, p_corrected: float, level: float) -> tuple[str, str]:
    """Verdict and its reason from the two p-values."""
    if p_raw < level and p_corrected < level:
        return "undecided", "neither law fits"
    if p_raw < level:
        return "corrected", "the raw law is rejected, the corrected is not"
    if p_corrected < level:
        return "raw", "the corrected law is rejected, the raw is not"
    return "undecided", "both laws fit"


def _tail(observed: float, null_Q: Array) -> float:
    """Share of the null at or beyond the observed, never exactly 0."""
    return float((1 + (null_Q >= observed).sum()) / (1 + len(null_Q)))


def _null(points: Points, fit: LawFit, draws: int, rng: np.random.Generator) -> Array:
    """delta AICc [Q] of data drawn from `fit`; both laws have the same number of parameters."""
    codes = points.cluster
    between, within = noise_components(fit.residual, codes)
    log_response = (
        np.log(fit.gap(points.flops))
        + between * rng.standard_normal((draws, codes.max() + 1))[:, codes]
        + within * rng.standard_normal((draws, len(points)))
    )
    loss = np.exp(log_response)
    if fit.law == "corrected":
        shift = 0.0 if points.direct else points.optimal_se
        true = points.optimal + shift * rng.standard_normal((draws, 1))
        loss = loss + np.maximum(true, 0.0)
    unit = float(np.exp(np.mean(np.log(points.loss))))
    y = np.log(loss / unit)
    offset = np.full(draws, points.optimal / unit)
    raw = line(points.x, y)
    start = line(points.x, np.log(np.maximum(np.exp(y) - offset[:, None], 1e-9)))
    corrected = offset_line(points.x, y, offset, start)
    return np.asarray(len(points) * np.log(raw.rss / np.maximum(corrected.rss, 1e-300)))


def noise_components(residual: Array, codes: NDArray[np.int64]) -> tuple[float, float]:
    """Standard deviations between and within runs (one-way analysis of variance)."""
    count = np.bincount(codes)
    mean = np.bincount(codes, residual) / count
    runs, n = len(count), len(residual)
    within = float(((residual - mean[codes]) ** 2).sum() / max(n - runs, 1))
    # Two parameters were fitted, so the run means have runs - 2 degrees of freedom.
    total = float((count * mean**2).sum() / max(runs - 2, 1))
    size = (n - float((count**2).sum()) / n) / max(runs - 1, 1)
    return float(np.sqrt(max(total - within, 0.0) / size)), float(np.sqrt(within))


def held_out_error(points: Points, law: str) -> float:
    """RMS error of ln J in the top fifth of ln F, predicted from the points below it."""
    train, test = split_held_out(points)
    fit = fit_points(train, law)
    if not fit.ok or not len(test):
        return float("nan")
    return float(np.sqrt(np.mean((np.log(test.loss) - np.log(fit.loss(test.flops))) ** 2)))


def split_held_out(points: Points) -> tuple[Points, Points]:
    """Points below, and in, the top fifth of ln F."""
    top = points.x > points.x.max() - HELD_OUT * np.ptp(points.x)
    return points.take(~top), points.take(top)
