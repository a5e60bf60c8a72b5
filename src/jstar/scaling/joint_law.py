"""A joint law of one noise scale with the intervals that its own studies give it.

What those studies are: `jstar.scaling.calibration`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.calibration import World, Worlds, interval, misfit_shares
from jstar.scaling.fit import aicc
from jstar.scaling.joint import FloorFits, JointPoints, exponents
from jstar.scaling.joint_many import HIGHEST, LOWEST, explained
from jstar.scaling.laws import Array

CONVERGED, AT_BOUND = "converged", "at bound"
POOR = 0.5  # R^2 of ln(J - E) below which a law says little of these losses
MISFIT = 0.01  # of a law's own studies bend away from it as far: the law does not hold
EXPONENTS = ("alpha", "size_exponent")
NAN = float("nan")


@dataclass(frozen=True)
class JointLaw:
    """J = E + A (N / N0)^-a + B (D / D0)^-b, in the table's units.

    low, high: interval of E, a, b, alpha and size_exponent. alpha = -a b / (a + b): of J - E in
    compute along the optimal sizes, which grow as F^size_exponent. aicc: under the whitening that
    the three floors share. misfit: share of this law's own studies that bend away from it as far.
    r2: of ln(J - E).
    """

    floor: str
    E: float
    A: float
    a: float
    B: float
    b: float
    N0: float
    D0: float
    alpha: float
    size_exponent: float
    low: dict[str, float]
    high: dict[str, float]
    misfit: float
    r2: float
    aicc: float
    n: int
    status: str


def law_with_intervals(
    points: JointPoints, fits: FloorFits, worlds: Worlds, floor: str, confidence: float
) -> JointLaw:
    """The law under one floor with the intervals of its own studies."""
    theta, drawn = fits.theta[floor], worlds.null[floor].fits.theta[floor]
    alpha, size = exponents(theta)
    alpha_Q, size_Q = exponents(drawn)
    draws_of = {
        "E": drawn[:, 4] * points.unit, "a": drawn[:, 1], "b": drawn[:, 3], "alpha": alpha_Q,
        "size_exponent": size_Q,
    }  # fmt: skip
    ends = {name: interval(values, confidence) for name, values in draws_of.items()}
    parameters, n = 5 if floor == "free" else 4, len(points.design)
    return JointLaw(
        floor,
        E=float(theta[0, 4]) * points.unit,
        A=float(np.exp(theta[0, 0])) * points.unit,
        a=float(theta[0, 1]),
        B=float(np.exp(theta[0, 2])) * points.unit,
        b=float(theta[0, 3]),
        N0=points.params,
        D0=points.images,
        alpha=float(alpha[0]),
        size_exponent=float(size[0]),
        low={name: low for name, (low, _) in ends.items()},
        high={name: high for name, (_, high) in ends.items()},
        misfit=float(misfit_shares(worlds, fits, floor)[0]),
        r2=float(explained(points.design, points.loss_P[None], theta)[0]),
        aicc=aicc(float(fits.rss[floor][0]), n, parameters),
        n=n,
        status=AT_BOUND if at_bound(theta, floor)[0] else CONVERGED,
    )


def widened(law: JointLaw, worlds: Worlds, confidence: float) -> JointLaw:
    """The law with its exponents' intervals at another confidence."""
    low, high = _ends(exponents(worlds.null[law.floor].fits.theta[law.floor]), confidence)
    return replace(law, low=law.low | low, high=law.high | high)


def bounded(
    fits: FloorFits, worlds: Worlds, laws: dict[str, JointLaw], confidence: float
) -> JointLaw:
    """The free law among those with a floor of 0 or more, and its exponents' intervals.

    Where the free floor lies below 0, the best of these has none.
    """
    floor = "free" if fits.theta["free"][0, 4] >= 0 else "zero"
    drawn = worlds.null[floor].fits.theta
    above_QK = np.where(drawn["free"][:, 4:5] < 0, drawn["zero"], drawn["free"])
    low, high = _ends(exponents(above_QK), confidence)
    law = laws[floor]
    return replace(law, low=law.low | low, high=law.high | high)


def _ends(
    drawn: tuple[Array, Array], confidence: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Lower and upper ends of both exponents' intervals."""
    low, high = zip(*(interval(values, confidence) for values in drawn), strict=True)
    return dict(zip(EXPONENTS, low, strict=True)), dict(zip(EXPONENTS, high, strict=True))


def law_flaw(law: JointLaw) -> str:
    """Why a law is no description of these losses, whatever they say of a floor; or nothing."""
    if law.status != CONVERGED:
        return f"is {law.status}: its exponents are no numbers"
    if law.r2 < POOR:
        return f"describes the losses above its floor badly (R² = {law.r2:.2f})"
    if law.misfit <= MISFIT:
        return f"does not hold: {law.misfit:.2g} of its own studies bend away from it as far"
    return ""


def at_bound(theta_QK: Array, floor: str) -> NDArray[np.bool_]:
    """Whether a fitted parameter of each study lies at an end of its range, [Q]."""
    fitted = slice(0, 5 if floor == "free" else 4)
    outside = (theta_QK <= LOWEST) | (theta_QK >= HIGHEST)
    return np.asarray(outside[:, fitted].any(axis=1))


def flawed(worlds: Worlds, world: World, floor: str) -> NDArray[np.bool_]:
    """Which studies of a world have such a law under the floor, [Q]: `law_flaw` of each."""
    fits = world.fits
    poor = at_bound(fits.theta[floor], floor) | (world.r2[floor] < POOR)
    return np.asarray(poor | (misfit_shares(worlds, fits, floor) <= MISFIT))
