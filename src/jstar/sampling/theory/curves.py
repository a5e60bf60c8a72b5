"""The gap between the noise scales at which it was measured."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from jstar.errors import JstarError

Floats = NDArray[np.float64]


def gap_curve(sigma_S: Floats, gap_S: Floats) -> Callable[[Floats], Floats]:
    """The gap per dimension for any sigma inside the table: monotone cubic, both axes in logs.

    Raises JstarError outside of it.
    """
    check_table(sigma_S, gap_S, "the gap")
    smallest = np.finfo(np.float64).tiny
    inside = PchipInterpolator(np.log(sigma_S), np.log(np.maximum(gap_S, smallest)))

    def value(sigma: Floats) -> Floats:
        slack = 1 + 1e-9  # of powers and logarithms
        if (sigma < sigma_S[0] / slack).any() or (sigma > sigma_S[-1] * slack).any():
            raise JstarError(
                f"theory: the gap was measured for noise scales from {sigma_S[0]:g} to "
                f"{sigma_S[-1]:g}, asked is for {np.min(sigma):g} to {np.max(sigma):g}"
            )
        return np.exp(inside(np.log(np.clip(sigma, sigma_S[0], sigma_S[-1]))))

    return value


def check_table(sigma_S: Floats, value_S: Floats, name: str) -> None:
    """Refuse what is too short to be interpolated. Raises JstarError."""
    if len(sigma_S) < 4 or (np.diff(sigma_S) <= 0).any():
        raise JstarError(
            f"theory: {name} is known at {len(sigma_S)} noise scales, needed are at least 4, "
            "increasing"
        )
    if not np.isfinite(value_S).all() or (value_S < 0).any():
        raise JstarError(f"theory: {name} must be finite and not negative at every noise scale")
