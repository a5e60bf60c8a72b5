"""J* and the gap between the noise scales at which they were measured."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from jstar.errors import JstarError

Floats = NDArray[np.float64]


def optimal_curve(sigma_S: Floats, loss_S: Floats, variance: float) -> Callable[[Floats], Floats]:
    """J*(sigma) per dimension for any sigma from sigma_S[0] on, from a table of it.

    Inside: monotone cubic of J* in ln sigma. Above: 1/J* is linear in sigma^-2 up to the variance,
    exact for a Gaussian of one variance. Raises JstarError below the table.
    """
    _check_table(sigma_S, loss_S, "J*")
    # A sampling error may break what J* must do: rise with sigma.
    rising_S = np.maximum.accumulate(loss_S)
    inside = PchipInterpolator(np.log(sigma_S), rising_S)
    high, last = float(sigma_S[-1]), float(rising_S[-1])
    top = max(variance, last)
    slope = (1 / last - 1 / top) * high**2 if last > 0 else 0.0

    def value(sigma: Floats) -> Floats:
        _check_range(sigma, float(sigma_S[0]), np.inf, "J*")
        beyond = top / (1 + top * slope / sigma**2)
        within: Floats = inside(np.log(np.minimum(sigma, high)))
        return np.where(sigma > high, beyond, within)

    return value


def gap_curve(sigma_S: Floats, gap_S: Floats) -> Callable[[Floats], Floats]:
    """The gap per dimension for any sigma inside the table: monotone cubic, both axes in logs.

    Raises JstarError outside of it.
    """
    _check_table(sigma_S, gap_S, "the gap")
    smallest = np.finfo(np.float64).tiny
    inside = PchipInterpolator(np.log(sigma_S), np.log(np.maximum(gap_S, smallest)))

    def value(sigma: Floats) -> Floats:
        _check_range(sigma, float(sigma_S[0]), float(sigma_S[-1]), "the gap")
        return np.exp(inside(np.log(np.clip(sigma, sigma_S[0], sigma_S[-1]))))

    return value


def _check_table(sigma_S: Floats, value_S: Floats, name: str) -> None:
    if len(sigma_S) < 4 or (np.diff(sigma_S) <= 0).any():
        raise JstarError(
            f"theory: {name} is known at {len(sigma_S)} noise scales, needed are at least 4, "
            "increasing"
        )
    if not np.isfinite(value_S).all() or (value_S < 0).any():
        raise JstarError(f"theory: {name} must be finite and not negative at every noise scale")


def _check_range(sigma: Floats, low: float, high: float, name: str) -> None:
    slack = 1 + 1e-9  # of powers and logarithms
    if (sigma < low / slack).any() or (sigma > high * slack).any():
        raise JstarError(
            f"theory: {name} was measured for noise scales from {low:g} to {high:g}, asked is for "
            f"{np.min(sigma):g} to {np.max(sigma):g}"
        )
