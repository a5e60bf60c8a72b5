"""Noise scales at which a sampler calls its denoiser: pure functions of a few numbers."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jstar.config.choices import SPACINGS
from jstar.errors import JstarError, nearest
from jstar.noise import BETA_D, BETA_MIN, vp_time

Floats = NDArray[np.float64]

# Those of `SPACINGS` that are equal steps of a process' time: (t of sigma, sigma of t).
TIMES: dict[str, tuple[Callable[[float], float], Callable[[Floats], Floats]]] = {
    "vp": (
        lambda s: float(vp_time(np.float64(s))),
        lambda t: np.sqrt(np.expm1(0.5 * BETA_D * t * t + BETA_MIN * t)),
    ),
    "cosine": (lambda s: 2 / math.pi * math.atan(s), lambda t: np.tan(0.5 * math.pi * t)),
    "flow": (lambda s: s / (1 + s), lambda t: t / (1 - t)),
}


def noise_steps(
    spacing: str, count: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Floats:
    """`count` decreasing noise scales from sigma_max to sigma_min, and a last 0: [count + 1].

    spacing: `polynomial` (EDM, arXiv 2206.00364 eq. 5: equal steps of sigma^(1/rho)),
    `exponential` (equal steps of ln sigma: the limit of rho to infinity), or equal steps of the
    time t of `vp` (DDPM), `cosine` (v-prediction) or `flow` (flow matching, t = sigma/(1+sigma)).
    Raises JstarError for an unknown spacing, fewer than 2 steps or a range that is none.
    """
    if spacing not in SPACINGS:
        raise JstarError(
            f"spacing: '{spacing}' is unknown, allowed are {', '.join(SPACINGS)}"
            + nearest(spacing, SPACINGS)
        )
    if count < 2:
        raise JstarError(f"steps = {count} is not allowed, there are at least 2")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise JstarError(
            f"noise scales from {sigma_min:g} to {sigma_max:g} are not allowed, they must be "
            "positive and increasing"
        )
    if spacing == "polynomial" and not rho > 0:
        raise JstarError(f"rho = {rho:g} is not allowed, it must be above 0")
    inside = _inside(spacing, np.linspace(0, 1, count), sigma_min, sigma_max, rho)
    inside[0], inside[-1] = sigma_max, sigma_min  # exactly, whatever the powers rounded to
    return np.append(inside, 0.0)


def _inside(spacing: str, share: Floats, low: float, high: float, rho: float) -> Floats:
    """Noise scales at the shares 0 ... 1 of the way down."""
    if spacing == "exponential":
        return np.asarray(high * (low / high) ** share)
    if spacing == "polynomial":
        top, bottom = high ** (1 / rho), low ** (1 / rho)
        return np.asarray((top + share * (bottom - top)) ** rho)
    time_of, sigma_of = TIMES[spacing]
    return sigma_of(time_of(high) + share * (time_of(low) - time_of(high)))


def theory_rho(sigma_min: float, sigma_max: float) -> float:
    """rho = ln(sigma_max / sigma_min) / 2, best among polynomials where the score error rules.

    arXiv 2406.12839, section 4: 5.3 for 80 / 0.002.
    """
    return 0.5 * math.log(sigma_max / sigma_min)
