"""KL between the data and what a stochastic sampler draws, split into its three causes.

Reverse diffusion in tau = sigma^2 is dx = (D*(x; sigma) - x) / sigma^2 dtau + dW, read downwards
from sigma_max to sigma_min. A sampler freezes something over each step. By Girsanov's theorem the
KL of the paths (an upper bound of the KL of the images at sigma_min) is

    E_I + E_S + E_D,   the bound of Wang, He, Tao (arXiv 2406.12839, theorem 2),

and two facts turn its last two parts from bounds into equalities that need J* and the gap alone.
Downwards, D*(x_sigma; sigma) and the score are martingales, so that for u < sigma

    E|D*_u - D*_sigma|^2 = J*(sigma) - J*(u),   E|s_u - s_sigma|^2 = I(u) - I(sigma),

with I(sigma) = (1 - J*(sigma) / sigma^2) / sigma^2 a dimension (Fisher information); and a
network's error at the start of a step is orthogonal to these increments. Hence, with
lambda = sigma^-2, the sum over steps from `a` to `b` < `a`, per dimension,

    frozen denoiser (`ancestral`)  E_S = sum gap(a) (lambda_b - lambda_a) / 2
                                   E_D = sum int (J*(a) - J*) dlambda / 2
    frozen score (`sde`)           E_S = sum gap(a) (a^2 - b^2) / (2 a^4)
                                   E_D = sum int (I - I(a)) dsigma^2 / 2
    both                           E_I = int_0^{lambda_max} (E x0^2 - J*) dlambda / 2

E_I is the KL of the data at sigma_max to the start N(0, sigma_max^2) (I-MMSE), at most
E|x0|^2 / (2 sigma_max^2). The frozen score is the source's own scheme. Everything in nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jstar.errors import JstarError, nearest

Floats = NDArray[np.float64]
OfSigma = Callable[[Floats], Floats]  # noise scales -> values per dimension

FROZEN = {"ancestral": "denoiser", "sde": "score"}  # sampler -> what it freezes over a step
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
PIECE = 0.5  # longest piece of a quadrature, in ln sigma


@dataclass(frozen=True)
class Bound:
    """Nats an image: E_I, E_S and E_D of one sampler, network and list of steps."""

    initial: float
    score: float
    discretisation: float

    @property
    def total(self) -> float:
        return self.initial + self.score + self.discretisation


def bound(
    sampler: str,
    steps_K: Floats,
    optimal: OfSigma,
    gap: OfSigma,
    *,
    dim: int,
    second_moment: float,
) -> Bound:
    """The three parts for `sampler` (`ancestral` or `sde`) on decreasing noise scales.

    steps_K: from sigma_max to sigma_min; a last 0 is left out, the images are those at sigma_min.
    optimal, gap: J* and J - J* per dimension, in the data scale. second_moment: E x0^2 a dimension.
    Raises JstarError for another sampler or noise scales that do not decrease.
    """
    s_K = above_zero(steps_K)
    return Bound(
        dim * initial_error(float(s_K[0]), optimal, second_moment),
        dim * score_error(sampler, s_K, gap),
        dim * discretisation_error(sampler, s_K, optimal),
    )


def above_zero(steps_K: Floats) -> Floats:
    """Decreasing noise scales without a last 0. Raises JstarError if they do not decrease."""
    s_K = steps_K[:-1] if steps_K[-1] == 0 else steps_K
    if len(s_K) < 2 or (np.diff(s_K) >= 0).any() or s_K[-1] <= 0:
        raise JstarError("theory: the noise scales must decrease and be above 0")
    return s_K


def initial_error(sigma_max: float, optimal: OfSigma, second_moment: float) -> float:
    """KL of the data at sigma_max to N(0, sigma_max^2), per dimension."""
    top = sigma_max**-2
    lambda_J = 0.5 * top * (NODES + 1)
    return float(0.25 * top * WEIGHTS @ (second_moment - optimal(lambda_J**-0.5)))


def score_error(sampler: str, s_K: Floats, gap: OfSigma) -> float:
    """E_S per dimension on noise scales above 0."""
    high_K, low_K = s_K[:-1], s_K[1:]
    width_K = {
        "denoiser": low_K**-2 - high_K**-2,
        "score": (high_K**2 - low_K**2) / high_K**4,
    }[_frozen(sampler)]
    return float(0.5 * gap(high_K) @ width_K)


def discretisation_error(sampler: str, s_K: Floats, optimal: OfSigma) -> float:
    """E_D per dimension on noise scales above 0."""
    of_step = {"denoiser": _step_of_denoiser, "score": _step_of_score}[_frozen(sampler)]
    return sum(of_step(high, low, optimal) for high, low in pairwise(s_K))


def _frozen(sampler: str) -> str:
    if sampler not in FROZEN:
        raise JstarError(
            f"theory: there is no bound for the sampler '{sampler}', only for "
            + ", ".join(FROZEN)
            + nearest(sampler, FROZEN)
        )
    return FROZEN[sampler]


def _step_of_denoiser(high: float, low: float, optimal: OfSigma) -> float:
    start = optimal(np.array([high]))[0]
    return _integral(lambda s: (start - optimal(s)) / s**2, high, low)


def _step_of_score(high: float, low: float, optimal: OfSigma) -> float:
    def fisher(s: Floats) -> Floats:
        return np.asarray((1 - optimal(s) / s**2) / s**2)

    start = fisher(np.array([high]))[0]
    return _integral(lambda s: (fisher(s) - start) * s**2, high, low)


def _integral(value: OfSigma, high: float, low: float) -> float:
    """Integral over ln sigma, of which dlambda / 2 is s^-2 and dsigma^2 / 2 is s^2."""
    edges = np.linspace(np.log(low), np.log(high), 1 + int(np.ceil(np.log(high / low) / PIECE)))
    half_I = 0.5 * np.diff(edges)
    log_IJ = 0.5 * (edges[1:] + edges[:-1])[:, None] + half_I[:, None] * NODES
    value_IJ = value(np.exp(log_IJ).ravel()).reshape(log_IJ.shape)
    return float(half_I @ (value_IJ @ WEIGHTS))
