"""Processes, targets, preconditioning, noise laws and noise-scale grids: pure functions.

Everything is written in variance-exploding coordinates: x = x0 + sigma * eps, where
sigma = sigma_t / alpha_t is the *noise scale*. A network F is used through

    D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise)

and trained on weight(sigma) * |D - x0|^2 with sigma drawn from the noise law. One optimal-loss
curve J*(sigma) therefore serves every process and target (arXiv 2506.13763, Table 1; EDM,
arXiv 2206.00364, Table 1; SD3, arXiv 2403.03206).

Functions take and return NumPy arrays or torch tensors alike; only torch inputs import torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.errors import JstarError, nearest

Array = Any  # numpy.ndarray | torch.Tensor | float: the functions below treat them alike

BETA_D, BETA_MIN = 19.9, 0.1  # VP (DDPM) schedule in continuous time
VP_T_MIN = 1e-5
VE_SIGMA_MIN, VE_SIGMA_MAX = 0.02, 100.0
UNIFORM_EPS = 1e-5  # keeps t of the t ~ U(0, 1) laws off the ends, where sigma is 0 or infinite


def _lib(x: Array) -> ModuleType:
    """The array module of `x`: torch for tensors, numpy for the rest."""
    if type(x).__module__.split(".")[0] == "torch":
        import torch

        return torch
    return np


def _ndtri(u: Array) -> Array:
    """Inverse of the normal distribution function."""
    if _lib(u) is np:
        from scipy.special import ndtri

        return ndtri(u)
    import torch

    return torch.special.ndtri(u)


def _normal_pdf(z: Array) -> Array:
    return _lib(z).exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


# --- noise laws -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseLaw:
    """Distribution of the training noise scale.

    `quantile` maps u in (0, 1) to sigma; `density` is the density with respect to ln sigma.
    """

    quantile: Callable[[Array], Array]
    density: Callable[[Array], Array]


def log_normal(mean: float, std: float) -> NoiseLaw:
    """ln sigma ~ N(mean, std^2): EDM, EDM2 and (as a logit-normal t) SD3."""
    if std <= 0:
        raise JstarError(f"noise law: std = {std} is not allowed, it must be above 0")
    return NoiseLaw(
        quantile=lambda u: _lib(u).exp(mean + std * _ndtri(u)),
        density=lambda s: _normal_pdf((_lib(s).log(s) - mean) / std) / std,
    )


def log_uniform(low: float, high: float) -> NoiseLaw:
    """ln sigma uniform between ln low and ln high: VE (NCSN)."""
    span = math.log(high / low)
    return NoiseLaw(
        quantile=lambda u: low * _lib(u).exp(u * span),
        density=lambda s: _one(s) * ((s >= low) & (s <= high)) / span,
    )


def vp_uniform_time() -> NoiseLaw:
    """t ~ U(1e-5, 1), sigma(t)^2 = exp(b_d t^2 / 2 + b_min t) - 1: VP (DDPM)."""

    def quantile(u: Array) -> Array:
        t = VP_T_MIN + u * (1 - VP_T_MIN)
        return _lib(u).expm1(0.5 * BETA_D * t * t + BETA_MIN * t) ** 0.5

    def density(s: Array) -> Array:
        t = vp_time(s)
        # d t / d ln sigma = 2 sigma^2 / ((1 + sigma^2) (b_d t + b_min))
        inside = (t >= VP_T_MIN) & (t <= 1)
        return inside * 2 * s * s / ((1 + s * s) * (BETA_D * t + BETA_MIN)) / (1 - VP_T_MIN)

    return NoiseLaw(quantile, density)


def vp_time(sigma: Array) -> Array:
    """The VP time t at which the noise scale is sigma."""
    log_var = _lib(sigma).log1p(sigma * sigma)
    # Stable root of b_d t^2 / 2 + b_min t = ln(1 + sigma^2): no cancellation at small sigma.
    return 2 * log_var / (BETA_MIN + (BETA_MIN**2 + 2 * BETA_D * log_var) ** 0.5)


def cosine_uniform_time() -> NoiseLaw:
    """t ~ U(0, 1), sigma = tan(pi t / 2): v-prediction with the cosine schedule."""
    return NoiseLaw(
        quantile=lambda u: _lib(u).tan(0.5 * math.pi * _open_unit(u)),
        density=lambda s: 2 / math.pi * s / (1 + s * s),
    )


def linear_uniform_time() -> NoiseLaw:
    """t ~ U(0, 1), sigma = t / (1 - t): flow matching (rectified flow)."""
    return NoiseLaw(
        quantile=lambda u: _open_unit(u) / (1 - _open_unit(u)),
        density=lambda s: s / (1 + s) ** 2,
    )


def histogram(edges: NDArray[np.float64], mass: NDArray[np.float64]) -> NoiseLaw:
    """ln sigma uniform within each of B bins, between the B + 1 noise scales `edges`.

    mass [B]: how likely each bin is, up to a constant. Raises JstarError unless it is positive.
    """
    if not (np.isfinite(mass).all() and (mass > 0).all()):
        raise JstarError("noise law: every bin of a histogram needs a finite mass above 0")
    log_edges = np.log(edges)
    below = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
    height = np.concatenate([[0.0], np.diff(below) / np.diff(log_edges), [0.0]])

    def density(s: Array) -> Array:
        return _like(s, height[np.searchsorted(log_edges, np.log(np.asarray(s)), side="right")])

    return NoiseLaw(
        quantile=lambda u: _like(u, np.exp(np.interp(np.asarray(u), below, log_edges))),
        density=density,
    )


def _like(x: Array, value: NDArray[np.float64]) -> Array:
    """`value` as the kind of array that `x` is."""
    lib = _lib(x)
    return value if lib is np else lib.from_numpy(np.ascontiguousarray(value))


def _open_unit(u: Array) -> Array:
    return UNIFORM_EPS + u * (1 - 2 * UNIFORM_EPS)


# --- processes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A training variant: noise law, weight on |D - x0|^2 and preconditioning, all at sigma.

    `alpha` is the signal coefficient alpha_t at that noise scale (sigma_t = alpha_t * sigma).
    `prediction` names what the raw network output stands for. Build one with `process(name)`.
    """

    name: str
    prediction: str
    law: NoiseLaw = field(repr=False)
    weight: Callable[[Array], Array] = field(repr=False)
    c_skip: Callable[[Array], Array] = field(repr=False)
    c_out: Callable[[Array], Array] = field(repr=False)
    c_in: Callable[[Array], Array] = field(repr=False)
    c_noise: Callable[[Array], Array] = field(repr=False)
    alpha: Callable[[Array], Array] = field(repr=False)
    learned_weight: bool = False

    def denoise(
        self, network: Callable[..., Array], x: Array, sigma: Array, *args: Any, **kwargs: Any
    ) -> Array:
        """D(x; sigma) of `network(c_in x, c_noise, ...)`; sigma has one value an image (or one)."""
        s = sigma.reshape(-1, *([1] * (x.ndim - 1)))
        out = network(self.c_in(s) * x, self.c_noise(sigma), *args, **kwargs)
        return self.c_skip(s) * x + self.c_out(s) * out


def _one(s: Array) -> Array:
    return s * 0 + 1


def _unit_var(s: Array) -> Array:
    return 1 / (1 + s * s) ** 0.5


def _inverse_square(s: Array) -> Array:
    return 1 / (s * s)


def _edm(sigma_data: float, mean: float, std: float, name: str, learned: bool) -> Process:
    v = sigma_data**2
    return Process(
        name=name,
        prediction="F",
        law=log_normal(mean, std),
        weight=lambda s: (s * s + v) / (s * s * v),
        c_skip=lambda s: v / (s * s + v),
        c_out=lambda s: s * sigma_data / (s * s + v) ** 0.5,
        c_in=lambda s: 1 / (s * s + v) ** 0.5,
        c_noise=lambda s: _lib(s).log(s) / 4,
        alpha=_one,
        learned_weight=learned,
    )


def _vp() -> Process:
    return Process(
        name="vp",
        prediction="epsilon",
        law=vp_uniform_time(),
        weight=_inverse_square,
        c_skip=_one,
        c_out=lambda s: -s,
        c_in=_unit_var,
        c_noise=lambda s: 999 * vp_time(s),
        alpha=_unit_var,
    )


def _x0() -> Process:
    # The network is the denoiser itself; weight 1 is the plain mean square of its own output.
    return replace(
        _vp(), name="x0", prediction="x0", weight=_one, c_skip=lambda s: s * 0, c_out=_one
    )


def _ve() -> Process:
    return Process(
        name="ve",
        prediction="score",
        law=log_uniform(VE_SIGMA_MIN, VE_SIGMA_MAX),
        weight=_inverse_square,
        c_skip=_one,
        c_out=lambda s: s,
        c_in=_one,
        c_noise=lambda s: _lib(s).log(s / 2),
        alpha=_one,
    )


def _v() -> Process:
    return Process(
        name="v",
        prediction="v",
        law=cosine_uniform_time(),
        weight=lambda s: (1 + s * s) / (s * s),
        c_skip=lambda s: 1 / (1 + s * s),
        c_out=lambda s: -s / (1 + s * s) ** 0.5,
        c_in=_unit_var,
        c_noise=lambda s: _lib(s).arctan(s) * (2 / math.pi),
        alpha=_unit_var,
    )


def _flow(name: str, law: NoiseLaw) -> Process:
    return Process(
        name=name,
        prediction="velocity",
        law=law,
        weight=lambda s: (1 + s) ** 2 / (s * s),
        c_skip=lambda s: 1 / (1 + s),
        c_out=lambda s: -s / (1 + s),
        c_in=lambda s: 1 / (1 + s),
        c_noise=lambda s: s / (1 + s),
        alpha=lambda s: 1 / (1 + s),
    )


PROCESSES = ("edm", "edm2", "vp", "ve", "v", "fm", "sd3", "x0")
TARGETS = ("x0", "epsilon", "score", "v", "velocity", "F")


def process(
    name: str,
    *,
    sigma_data: float = 0.5,
    mean: float | None = None,
    std: float | None = None,
    min_snr_gamma: float | None = None,
) -> Process:
    """The process `name`, one of `PROCESSES` (METHOD table: VP, VE, v, EDM, EDM2, FM, SD3),
    and `x0`: a network that predicts x0 itself under VP's noise.

    sigma_data: standard deviation of the data per dimension (EDM preconditioning only).
    mean, std: parameters of the log-normal noise law, where the process has one.
    min_snr_gamma: replace the weight on |D - x0|^2 by min(1 / sigma^2, gamma) (arXiv 2303.09556).

    Raises JstarError for an unknown name or a parameter that the process does not have.
    """
    if sigma_data <= 0:
        raise JstarError(f"process: sigma_data = {sigma_data} is not allowed, it must be above 0")
    defaults = {"edm": (-1.2, 1.2), "edm2": (-0.8, 1.6), "sd3": (0.0, 1.0)}
    if name not in PROCESSES:
        raise JstarError(
            f"process: '{name}' is unknown, allowed are {', '.join(PROCESSES)}"
            + nearest(name, PROCESSES)
        )
    if name not in defaults and (mean is not None or std is not None):
        raise JstarError(
            f"process: '{name}' has no log-normal noise law, so mean and std are not allowed"
        )
    mu, sd = defaults.get(name, (0.0, 1.0))
    mu, sd = (mu if mean is None else mean), (sd if std is None else std)
    builders: dict[str, Callable[[], Process]] = {
        "edm": lambda: _edm(sigma_data, mu, sd, "edm", learned=False),
        "edm2": lambda: _edm(sigma_data, mu, sd, "edm2", learned=True),
        "vp": _vp,
        "x0": _x0,
        "ve": _ve,
        "v": _v,
        "fm": lambda: _flow("fm", linear_uniform_time()),
        "sd3": lambda: _flow("sd3", log_normal(mu, sd)),
    }
    built = builders[name]()
    if min_snr_gamma is not None:
        gamma = float(min_snr_gamma)
        built = replace(built, weight=lambda s: _lib(s).clip(1 / (s * s), None, gamma))
    return built


def target_ratio(proc: Process | str, target: str, sigma: Array) -> Array:
    """Loss of `target` divided by the loss of x0 at the same sigma, for actual and optimal alike.

    A target a x0 + b eps has J = (a - b alpha_t / sigma_t)^2 J^(x0), because x is given
    (arXiv 2506.13763, section 3). Targets: x0; epsilon = eps; score = -eps / sigma_t;
    v = alpha_t eps - sigma_t x0; velocity = eps - x0; F = the network's own output of `proc`.
    """
    p = process(proc) if isinstance(proc, str) else proc
    if target not in TARGETS:
        raise JstarError(
            f"target: '{target}' is unknown, allowed are {', '.join(TARGETS)}"
            + nearest(target, TARGETS)
        )
    if target == "F":
        return 1 / p.c_out(sigma) ** 2
    alpha_t = p.alpha(sigma)
    sigma_t = alpha_t * sigma
    a, b = {
        "x0": (1.0, 0.0),
        "epsilon": (0.0, 1.0),
        "score": (0.0, -1 / sigma_t),
        "v": (-sigma_t, alpha_t),
        "velocity": (-1.0, 1.0),
    }[target]
    return (a - b / sigma) ** 2


# --- grids and totals -------------------------------------------------------------------------


def sigma_grid(low: float, high: float, count: int) -> NDArray[np.float64]:
    """`count` noise scales from low to high, equally spaced in ln sigma, [S].

    Rounded to six digits, so that a table read back from disk gives the same numbers.
    """
    grid = np.geomspace(low, high, count)
    return np.array([float(f"{s:.6g}") for s in grid])


def total_weights(proc: Process, sigmas: Sequence[float] | NDArray[np.float64]) -> NDArray[Any]:
    """Weights W [S] with total loss = sum_s W_s J(sigma_s): trapezoids of p(ln s) w(s) d ln s.

    The total is the training objective E_sigma[w(sigma) J(sigma)] cut to the grid's range.
    """
    s = np.asarray(sigmas, dtype=np.float64)
    if s.size < 2:
        raise JstarError(f"noise grid: {s.size} noise scale(s) given, a total needs at least 2")
    log_s = np.log(s)
    width = np.empty_like(s)
    width[1:-1] = 0.5 * (log_s[2:] - log_s[:-2])
    width[0], width[-1] = 0.5 * (log_s[1] - log_s[0]), 0.5 * (log_s[-1] - log_s[-2])
    return np.asarray(width * proc.law.density(s) * proc.weight(s))


def gaussian(seed: int, index_M: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Standard normal noise [M, dim], row m a pure function of (seed, index_M[m])."""
    out = np.empty((len(index_M), dim), dtype=np.float32)
    bits = np.random.Philox(key=[seed, 0])
    generator, fresh = np.random.Generator(bits), bits.state
    for row, index in zip(out, index_M, strict=True):
        # Setting the key is 10 times cheaper than a new generator; the stream is the same.
        fresh["state"]["key"][1] = int(index)
        bits.state = fresh
        generator.standard_normal(dtype=np.float32, out=row)
    return out
