"""Fit one law to one frontier: lmfit, checked against variable projection."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from jstar.constants import CONFIDENCE
from jstar.errors import JstarError, nearest
from jstar.scaling import varpro
from jstar.scaling.laws import (
    GAP_RESPONSE,
    LAWS,
    MIN_CLUSTERS,
    MIN_POINTS,
    Array,
    FitStatus,
    LawFit,
    LawPoints,
)
from jstar.scaling.many_fits import ManyFits, line, offset_line

if TYPE_CHECKING:
    import lmfit  # half a second that a mistake in a table need not wait: loaded where it fits

SOLVER_TOLERANCE = 1e-6
WEIGHT_ROUNDS = 5  # of a fit in J: law, scatter about it, law again


def fit_points(points: LawPoints, law: str, confidence: float = CONFIDENCE) -> LawFit:
    """One law by least squares in the logarithm of its response (METHOD section 4).

    raw: ln J. corrected: ln(J - J*). free: ln J with J0 fitted. Weights are 1 / (scatter^2 + SE^2):
    SE is the evaluation error of the log response, scatter what the points show beyond it. Where a
    measured gap is not above 0 the corrected law is fitted to J - J* itself, by the same weights:
    leaving such points out would keep the lucky high ones and flatten the law.
    Raises JstarError for an unknown law; everything else ends in `status`, with the reason.
    """
    if law not in LAWS:
        raise JstarError(
            f"law '{law}' is unknown, allowed are {', '.join(LAWS)}{nearest(law, LAWS)}"
        )
    empty = LawFit(law, FitStatus.CONVERGED, len(points), points.clusters,
                   r2_response="ln(J - J*)" if law == "corrected" else "ln J")  # fmt: skip
    refused = _refusal(points, law)
    if refused is not None:
        return replace(empty, status=refused)
    unit = float(np.exp(np.mean(np.log(points.loss))))  # no law may depend on the unit of J
    response, error = points.response(law)
    if law == "corrected" and not (response > 0).all():
        return _fit_in_loss(points, confidence, empty)
    y, se = np.log(response / unit), error / response
    x = points.x
    scatter = excess_scatter(lambda weight: _off_line(x, y, weight), se)
    weight = 1 / (scatter**2 + se**2) if scatter > 0 or (se > 0).any() else np.ones_like(x)
    solved = _solve(x, y, weight, law, absolute=bool((se > 0).all()))
    status = FitStatus.CONVERGED if solved.success else FitStatus.NOT_CONVERGED
    ln_scale, alpha = solved.params["ln_scale"], solved.params["alpha"]
    offset, offset_se = points.optimal if law == "corrected" else 0.0, 0.0
    if law == "free":
        offset = float(solved.params["offset"].value) * unit
        offset_se = _number(solved.params["offset"].stderr) * unit
    difference = _second_solver(x, y, weight, law, solved)
    alpha_se = _number(alpha.stderr)
    if difference > SOLVER_TOLERANCE:
        status = FitStatus.SOLVERS_DISAGREE
    residual = y - solved.best_fit
    freedom = len(points) - len(solved.var_names)
    half = _quantile(confidence, freedom, bool((se > 0).all())) * alpha_se
    fit = replace(
        empty,
        status=status,
        alpha=float(alpha.value),
        alpha_se=alpha_se,
        covariance=(float(alpha.value) - half, float(alpha.value) + half),
        ln_scale=float(ln_scale.value) + float(np.log(unit)),
        center=points.center,
        offset=offset,
        offset_se=points.optimal_se if law == "corrected" else offset_se,
        r2=r_squared(y, residual, weight),
        scatter=scatter,
        solver_difference=difference,
        residual=residual,
        weight=weight,
    )
    return replace(fit, aicc=aicc_of_log_loss(points, fit))


def _fit_in_loss(points: LawPoints, confidence: float, empty: LawFit) -> LawFit:
    """J - J* = beta F^alpha by least squares in J; errors are as large at every point, beside SE.

    Residuals, and weights, are those of the log response about the law: (gap - law) / law.
    """
    unit = float(np.exp(np.mean(np.log(points.loss))))
    x, gap, se = points.x, points.gap / unit, points.gap_se / unit
    empty = replace(empty, r2_response=GAP_RESPONSE, offset=points.optimal,
                    offset_se=points.optimal_se)  # fmt: skip
    scatter, weight, other = 0.0, np.ones_like(x), varpro.exponential(x, gap, np.ones_like(x))
    for _ in range(WEIGHT_ROUNDS):
        if other.scale <= 0:
            return replace(empty, status=FitStatus.GAP_NOT_RESOLVED)
        rest = gap - other.scale * np.exp(other.alpha * x)
        scatter = excess_scatter(lambda _, rest=rest: rest, se)  # type: ignore[misc]
        weight = 1 / (scatter**2 + se**2) if scatter > 0 or (se > 0).any() else weight
        other = varpro.exponential(x, gap, weight)
    if other.scale <= 0:
        return replace(empty, status=FitStatus.GAP_NOT_RESOLVED)
    known = bool((se > 0).all())
    import lmfit

    model = lmfit.Model(lambda x, scale, alpha: scale * np.exp(alpha * x))
    solved = model.fit(gap, model.make_params(scale=other.scale, alpha=other.alpha), x=x,
                       weights=np.sqrt(weight), scale_covar=not known)  # fmt: skip
    scale, alpha = float(solved.params["scale"].value), float(solved.params["alpha"].value)
    if scale <= 0:
        return replace(empty, status=FitStatus.GAP_NOT_RESOLVED)
    difference = max(abs(alpha - other.alpha) / max(abs(alpha), 1e-3), abs(scale / other.scale - 1))
    alpha_se = _number(solved.params["alpha"].stderr)
    half = _quantile(confidence, len(x) - 2, known) * alpha_se
    status = FitStatus.CONVERGED if solved.success else FitStatus.NOT_CONVERGED
    law = np.asarray(solved.best_fit)
    fit = replace(
        empty,
        status=FitStatus.SOLVERS_DISAGREE if difference > SOLVER_TOLERANCE else status,
        alpha=alpha,
        alpha_se=alpha_se,
        covariance=(alpha - half, alpha + half),
        ln_scale=float(np.log(scale * unit)),
        center=points.center,
        r2=r_squared(gap, gap - law, weight),
        scatter=scatter,
        solver_difference=difference,
        residual=gap / law - 1,
        weight=weight * law**2,
    )
    return replace(fit, aicc=aicc_of_log_loss(points, fit))


def _refusal(points: LawPoints, law: str) -> FitStatus | None:
    """Why these points cannot carry the law, if they cannot."""
    if len(points) < MIN_POINTS or np.ptp(points.x) == 0:
        return FitStatus.TOO_FEW_POINTS
    if points.clusters < MIN_CLUSTERS:
        return FitStatus.TOO_FEW_CLUSTERS
    if law == "corrected" and not np.isfinite(points.optimal):
        return FitStatus.NO_OPTIMAL
    return None


def _model(law: str) -> "lmfit.Model":
    import lmfit

    def power(x: Array, ln_scale: float, alpha: float) -> Array:
        return np.asarray(ln_scale + alpha * x)

    def shifted(x: Array, ln_scale: float, alpha: float, offset: float) -> Array:
        # Outside the law's domain the logarithm goes on smoothly, so no bounds are needed.
        law = np.maximum(offset + np.exp(np.clip(ln_scale + alpha * x, -300, 300)), 1e-12)
        return np.asarray(np.log(law))

    return lmfit.Model(shifted if law == "free" else power)


def _solve(
    x: Array, y: Array, weight: Array, law: str, *, absolute: bool
) -> "lmfit.model.ModelResult":
    """lmfit over (ln_scale, alpha[, offset]); weights are taken as true errors if `absolute`."""
    model = _model(law)
    first = line(x, y[None], weight)
    start = {"ln_scale": float(first.ln_scale[0]), "alpha": float(first.alpha[0])}
    params = model.make_params(**(_free_start(x, y) if law == "free" else start))
    # Tighter still, and MINPACK returns without a covariance. With differences for derivatives
    # it stops 1e-6 off where residuals are large.
    tight = {"ftol": 1e-13, "xtol": 1e-11, "gtol": 0.0}
    return model.fit(
        y,
        params,
        x=x,
        weights=np.sqrt(weight),
        scale_covar=not absolute,
        max_nfev=2_000,
        fit_kws={**tight, "Dfun": _jacobian, "col_deriv": 1},
        nan_policy="raise",
    )


def _jacobian(params: "lmfit.Parameters", data: Array, weights: Array, x: Array) -> Array:
    """Derivatives of lmfit's residual, weights (data - model), [parameters, P]."""
    ones = np.ones_like(x)
    if "offset" not in params:
        return np.asarray(-weights * np.stack([ones, x]))
    power = np.exp(np.clip(params["ln_scale"].value + params["alpha"].value * x, -300, 300))
    law = np.maximum(params["offset"].value + power, 1e-12)
    return np.asarray(-weights * np.stack([power, x * power, ones]) / law)


def _free_start(x: Array, y: Array) -> dict[str, float]:
    """The best of a grid of offsets, each with its own best power law."""
    lowest = float(np.exp(y.min()))
    shares = np.r_[0.0, np.geomspace(1e-3, 1, 60)[:-1], 1 - np.geomspace(1e-6, 0.5, 20)]
    offset = lowest * np.unique(shares)
    rest = np.log(np.exp(y)[None] - 0.999999999 * offset[:, None])
    tried = offset_line(x, np.repeat(y[None], len(offset), 0), offset, line(x, rest))
    best = int(np.nanargmin(tried.rss))
    return {
        "ln_scale": float(tried.ln_scale[best]),
        "alpha": float(tried.alpha[best]),
        "offset": float(offset[best]),
    }


def _second_solver(
    x: Array, y: Array, weight: Array, law: str, solved: "lmfit.model.ModelResult"
) -> float:
    """Largest relative difference of (alpha, scale, offset) between the two solvers."""
    values = solved.params.valuesdict()
    if law == "free":
        start = (values["alpha"], values["offset"] / np.exp(values["ln_scale"]))
        other = varpro.offset_law(x, y, weight, start)
    else:
        other = varpro.power_law(x, y, weight)
    scale = max(abs(other.alpha), 1e-3)
    return float(
        max(
            abs(values["alpha"] - other.alpha) / scale,
            abs(values["ln_scale"] - other.ln_scale),
            abs(values.get("offset", 0.0) - other.offset),
        )
    )


def _off_line(x: Array, y: Array, weight: Array) -> Array:
    """Residuals of y about its best line."""
    fit = line(x, y[None], weight)
    return np.asarray(y - fit.ln_scale[0] - fit.alpha[0] * x)


def excess_scatter(rest_of: Callable[[Array], Array], se: Array) -> float:
    """Standard deviation beyond the errors se about a law of two parameters (Paule & Mandel 1982).

    rest_of: weights [P] -> residuals [P]. The scatter at which the weighted sum of squares equals
    its degrees of freedom; 0 if the given errors alone explain the residuals.
    """
    freedom = len(se) - 2

    def surplus(variance: float) -> float:
        weight = 1 / (variance + se**2)
        return float(weight @ rest_of(weight) ** 2) - freedom

    plain = float((rest_of(np.ones_like(se)) ** 2).sum()) / freedom
    if plain == 0 or ((se > 0).all() and surplus(0.0) <= 0):
        return 0.0
    low, high = 1e-12 * plain, 4 * plain
    while surplus(high) > 0:
        high *= 4
    if surplus(low) <= 0:
        return 0.0
    return float(np.sqrt(brentq(surplus, low, high, rtol=1e-12)))


def log_loss_rss(points: LawPoints, fit: LawFit) -> float:
    """Least sum of squares of ln J that the law allows, its offset held where it was found."""
    unit = float(np.exp(np.mean(np.log(points.loss))))
    y = np.log(points.loss / unit)[None]
    if fit.law == "raw":
        return float(line(points.x, y).rss[0])
    start = ManyFits(np.array([fit.ln_scale - np.log(unit)]), np.array([fit.alpha]), np.zeros(1))
    return float(offset_line(points.x, y, np.array([fit.offset / unit]), start).rss[0])


def aicc(rss: float, n: int, parameters: int) -> float:
    """n ln(rss / n) + 2k + 2k(k + 1) / (n - k - 1), k with sigma (Hurvich & Tsai 1989)."""
    k = parameters + 1
    if n - k - 1 <= 0:
        return float("inf")
    floor = n * np.finfo(float).eps ** 2  # an exact law has no residual to take the logarithm of
    return float(n * np.log(max(rss, floor) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def aicc_of_log_loss(points: LawPoints, fit: LawFit) -> float:
    """AICc of the law as a prediction of ln J: the one response that all laws share."""
    return aicc(log_loss_rss(points, fit), len(points), 3 if fit.law == "free" else 2)


def r_squared(y: Array, residual: Array, weight: Array) -> float:
    """1 - weighted residual sum of squares / weighted total sum of squares."""
    spread = float(weight @ (y - np.average(y, weights=weight)) ** 2)
    return 1 - float(weight @ residual**2) / spread if spread > 0 else float("nan")


def _quantile(confidence: float, freedom: int, known: bool) -> float:
    """Two-sided quantile: normal where the errors are known, Student's where estimated."""
    level = 0.5 + confidence / 2
    return float(ndtri(level) if known else stdtrit(max(freedom, 1), level))


def _number(value: float | None) -> float:
    """lmfit's stderr, which is None where the covariance could not be found."""
    return float("nan") if value is None else float(value)
