"""Raw or corrected? Both as predictions of ln J, and "undecided" is an answer.

The statistic is the difference of AICc (positive: for the corrected law). How large it gets by
chance is simulated from each law in turn, with the run-to-run and point-to-point noise found
around that law and with J* redrawn (a Cox test by parametric bootstrap, Williams 1970). A law
wins if the other one is rejected, it is not, and it predicts better.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.fit import fit_points
from jstar.scaling.intervals import bootstrap
from jstar.scaling.laws import Array, LawFit, LawPoints, log_response
from jstar.scaling.many_fits import line, offset_line

UNKNOWN, UNDECIDED = "unknown", "undecided"
SUBSTANTIAL = 2.0  # differences of AICc below this are none (Burnham & Anderson 2002)
HELD_OUT = 0.2  # share of the range of ln F that is predicted from the rest


@dataclass(frozen=True)
class LawComparison:
    """Verdict: corrected, raw or undecided, and why.

    delta_aicc: AICc(raw) - AICc(corrected). independent: share of the points that count, the
    others repeat their cluster. p_raw, p_corrected: how often the law in question,
    were it true, would speak against itself at least this strongly. weight_corrected: Akaike
    weight. heldout_raw,
    heldout_corrected: root mean square error of ln J at the largest compute, predicted from below;
    hit_raw, hit_corrected: whether the mean there lies in the law's prediction interval.
    """

    verdict: str
    reason: str
    delta_aicc: float = float("nan")
    heldout_raw: float = float("nan")
    heldout_corrected: float = float("nan")
    independent: float = 1.0
    weight_corrected: float = float("nan")
    p_raw: float = float("nan")
    p_corrected: float = float("nan")
    hit_raw: str = UNKNOWN
    hit_corrected: str = UNKNOWN


def compare(
    points: LawPoints, raw: LawFit, corrected: LawFit, *, level: float, draws: int, seed: int
) -> LawComparison:
    """Compare two fits of the same points at significance `level`."""
    for fit in (raw, corrected):
        if not fit.ok:
            return LawComparison(UNDECIDED, f"{fit.law} law: {fit.status}")
    delta = raw.aicc - corrected.aicc
    rng = np.random.default_rng([seed, len(points), 1])
    p_raw = _tail(delta, _null(points, raw, draws, rng))
    p_corrected = _tail(-delta, -_null(points, corrected, draws, rng))
    ahead = {law: held_out(points, law, level, draws, seed) for law in ("raw", "corrected")}
    found = LawComparison(
        verdict=UNDECIDED,
        reason="",
        delta_aicc=delta,
        independent=effective_share(points, corrected if delta > 0 else raw),
        weight_corrected=float(1 / (1 + np.exp(-0.5 * np.clip(delta, -700, 700)))),
        p_raw=p_raw,
        p_corrected=p_corrected,
        heldout_raw=ahead["raw"][0],
        heldout_corrected=ahead["corrected"][0],
        hit_raw=ahead["raw"][1],
        hit_corrected=ahead["corrected"][1],
    )
    return decide(found, level)


def decide(c: LawComparison, level: float) -> LawComparison:
    """The comparison with its verdict and the reason, from everything else in it.

    A law wins if the other one is rejected, it is not, and it predicts better by more than 2 of
    AICc, counted over independent points; without the last, two laws that draw the same line, and
    miss the points in the same way, would be told apart. If both are rejected (no law is exact),
    the one that predicts better wins only if it also predicts the held-out compute better.
    """
    evidence = c.delta_aicc * c.independent
    if abs(evidence) <= SUBSTANTIAL:
        return replace(c, verdict=UNDECIDED, reason="both laws predict alike")
    winner, loser = ("corrected", "raw") if evidence > 0 else ("raw", "corrected")
    rejected = {"raw": c.p_raw < level, "corrected": c.p_corrected < level}
    p_winner = c.p_corrected if winner == "corrected" else c.p_raw
    if not rejected[loser]:
        return replace(c, verdict=UNDECIDED, reason="both laws fit")
    if p_winner < level:
        ahead = (c.heldout_raw - c.heldout_corrected) * (1 if winner == "corrected" else -1)
        if ahead > 0:
            reason = f"neither law is exact, the {winner} predicts better, held-out compute too"
            return replace(c, verdict=winner, reason=reason)
        return replace(c, verdict=UNDECIDED, reason="neither law fits")
    # The other tail: the data lean further to the winner's side than its own noise makes them.
    exact = "" if p_winner < 1 - level / 2 else f", but the {winner} law is not exact either"
    return replace(c, verdict=winner, reason=f"the {loser} law is rejected{exact}")


def effective_share(points: LawPoints, fit: LawFit, parameters: int = 2) -> float:
    """1 / design effect: how much of an independent observation each point is."""
    between, within = noise_components(fit.residual, points.cluster, parameters)
    share = between**2 / max(between**2 + within**2, 1e-300)
    return 1 / (1 + (len(points) / points.clusters - 1) * share)


def _tail(observed: float, null_Q: Array) -> float:
    """Share of the null at or beyond the observed, never exactly 0."""
    return float((1 + (null_Q >= observed).sum()) / (1 + len(null_Q)))


def _null(points: LawPoints, fit: LawFit, draws: int, rng: np.random.Generator) -> Array:
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


def noise_components(
    residual: Array, codes: NDArray[np.int64], parameters: int = 2
) -> tuple[float, float]:
    """Standard deviations between and within clusters (one-way analysis of variance).

    The fitted parameters leave the cluster means R - parameters degrees of freedom.
    """
    count = np.bincount(codes)
    mean = np.bincount(codes, residual) / count
    runs, n = len(count), len(residual)
    within = float(((residual - mean[codes]) ** 2).sum() / max(n - runs, 1))
    total = float((count * mean**2).sum() / max(runs - parameters, 1))
    size = (n - float((count**2).sum()) / n) / max(runs - 1, 1)
    return float(np.sqrt(max(total - within, 0.0) / size)), float(np.sqrt(within))


def held_out(points: LawPoints, law: str, level: float, draws: int, seed: int) -> tuple[float, str]:
    """(RMS error of ln J, hit or miss) in the top fifth of ln F, predicted from the points below.

    The prediction interval is that of the mean log response of the held-out points: draws of the
    line, and beside them the noise between and within clusters that the training points show.
    """
    train, test = split_held_out(points)
    if not len(test):
        return float("nan"), UNKNOWN
    fit = fit_points(train, law)
    if not fit.ok:
        return float("nan"), UNKNOWN
    error = np.log(test.loss) - np.log(np.maximum(fit.loss(test.flops), 1e-300))
    x_mean = float(np.mean(np.log(test.flops))) - fit.center
    sample = bootstrap(train, fit, draws, seed, np.array([x_mean]))
    between, within = noise_components(fit.residual, train.cluster)
    spread = np.sqrt(between**2 / test.clusters + within**2 / len(test))
    rng = np.random.default_rng([seed, len(test), 2])
    ahead = sample.log_grid[:, 0] + spread * rng.standard_normal(draws)
    low, high = np.quantile(ahead, [level / 2, 1 - level / 2])
    seen = float(np.mean(log_response(test, fit)))
    if not np.isfinite(seen):
        return float(np.sqrt(np.mean(error**2))), UNKNOWN
    return float(np.sqrt(np.mean(error**2))), "hit" if low <= seen <= high else "miss"


def split_held_out(points: LawPoints) -> tuple[LawPoints, LawPoints]:
    """Points below, and in, the top fifth of ln F."""
    top = points.x > points.x.max() - HELD_OUT * np.ptp(points.x)
    return points.take(~top), points.take(top)
