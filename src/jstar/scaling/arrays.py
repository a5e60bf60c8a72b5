"""`fit_law` and `compare_laws`, for arrays in memory; tables go through `jstar.scaling.stage`."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jstar.constants import CONFIDENCE
from jstar.errors import JstarError
from jstar.scaling.compare import LawComparison, compare
from jstar.scaling.fit import fit_points
from jstar.scaling.laws import Array, LawFit, LawPoints
from jstar.scaling.noise_scales import with_intervals


def fit_law(
    flops: ArrayLike,
    loss: ArrayLike,
    *,
    law: str = "corrected",
    optimal: float = float("nan"),
    optimal_se: float = 0.0,
    gap: ArrayLike | None = None,
    se: ArrayLike | None = None,
    run: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
    draws: int = 1000,
    seed: int = 0,
) -> LawFit:
    """Fit J = beta F^alpha (raw), J - J* = beta F^alpha (corrected) or J0 + beta F^alpha (free).

    flops, loss: frontier points [P]. optimal, optimal_se: J* and its standard error, in the unit
    of the loss. gap: directly measured J - J* [P]; without it loss - optimal is used. se: standard
    errors of the gap (of the loss without one) [P]. run: label of the training run of every point;
    without it every point counts as a run of its own.
    Returns LawFit; its interval (alpha_low, alpha_high) is the wild cluster bootstrap's, for the
    free law the profile likelihood's.
    Raises JstarError for an unknown law or arrays that do not fit together. METHOD section 4.
    """
    points = points_of_arrays(flops, loss, optimal, optimal_se, gap, se, run)
    fit = fit_points(points, law, confidence)
    return with_intervals(points, fit, confidence, draws, seed)[0]


def compare_laws(
    flops: ArrayLike,
    loss: ArrayLike,
    *,
    optimal: float,
    optimal_se: float = 0.0,
    gap: ArrayLike | None = None,
    se: ArrayLike | None = None,
    run: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
    draws: int = 1000,
    seed: int = 0,
) -> LawComparison:
    """Raw or corrected law, or undecided, as predictions of ln J. Arguments as in `fit_law`."""
    points = points_of_arrays(flops, loss, optimal, optimal_se, gap, se, run)
    raw, corrected = fit_points(points, "raw"), fit_points(points, "corrected")
    return compare(points, raw, corrected, level=1 - confidence, draws=draws, seed=seed)


def points_of_arrays(
    flops: ArrayLike,
    loss: ArrayLike,
    optimal: float,
    optimal_se: float,
    gap: ArrayLike | None,
    se: ArrayLike | None,
    run: ArrayLike | None,
) -> LawPoints:
    """Check the arrays and make the points of a fit; with a direct gap the loss is J* + gap."""
    f = _array("flops", flops, None)
    n = len(f)
    direct = gap is not None
    given = _array("loss", loss, n)
    apart = _array("gap", gap, n) if gap is not None else given - optimal
    error = np.zeros(n) if se is None else _array("se", se, n, zero=True)
    labels: Any = np.arange(n) if run is None else np.asarray(run)
    if len(labels) != n:
        raise JstarError(f"run: {len(labels)} labels for {n} points, one a point is needed")
    code = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    known = direct and np.isfinite(optimal)
    return LawPoints(
        flops=f,
        loss=optimal + apart if known else given,
        gap=apart,
        loss_se=error,
        gap_se=error,
        cluster=code,
        optimal=float(optimal),
        optimal_se=float(optimal_se),
        direct=direct,
    )


def _array(name: str, values: ArrayLike, n: int | None, zero: bool = False) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (n is not None and len(array) != n):
        wanted = "one dimension" if n is None else f"{n} numbers, as flops"
        raise JstarError(f"{name}: has shape {array.shape}, {wanted} is needed")
    bad = ~np.isfinite(array) | ((array < 0) if zero else (array <= 0))
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise JstarError(
            f"{name}: point {where} is {array[where]:g}, finite numbers "
            f"{'of 0 or more' if zero else 'above 0'} are allowed"
        )
    return array
