"""Samplers on a list of noise scales, for any denoiser, in variance-exploding coordinates.

There the probability-flow ODE is dx / dsigma = (x - D(x; sigma)) / sigma for every process
(x = x_t / alpha_t), so that DDIM is Euler's method and one code serves VP, VE, EDM and flows.

Start and noise are pure functions of (seed, image index): any split into batches gives the same
images, and all samplers and step counts start from the same noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.config.choices import SAMPLERS
from jstar.errors import JstarError, nearest
from jstar.noise import gaussian

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x, sigma [B], labels [B] | None)

# Streams of a seed, as the high half of a Philox key; training uses 0 to 3.
START, STEP, LABEL = 16, 17, 18


@dataclass(frozen=True)
class Sampler:
    """How one noise scale is left for the next. Raises JstarError for what cannot be.

    euler: first order, equal to DDIM. heun: second order (arXiv 2206.00364, algorithm 1).
    edm: heun with churn (algorithm 2), which has the four parameters below.
    ddim: with `eta` noise (arXiv 2010.02502, eq. 12 and 16). ancestral: DDPM, eta = 1.
    sde: Euler-Maruyama with the score frozen over a step, the scheme of arXiv 2406.12839.
    guidance: w of D = D_no_label + w (D_label - D_no_label) (arXiv 2207.12598); 1 is none.
    """

    name: str = "heun"
    eta: float = 0.0
    churn: float = 40.0
    churn_min: float = 0.05
    churn_max: float = 50.0
    churn_noise: float = 1.003
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise JstarError(
                f"sampler: '{self.name}' is unknown, allowed are {', '.join(SAMPLERS)}"
                + nearest(self.name, SAMPLERS)
            )
        if not 0 <= self.eta <= 1:
            raise JstarError(f"sampler: eta = {self.eta:g} is not allowed, it lies between 0 and 1")
        if self.churn < 0 or self.churn_noise <= 0:
            raise JstarError("sampler: churn must not be below 0 and churn_noise be above 0")

    def evaluations(self, steps: int) -> int:
        """Calls of the denoiser for one image (twice as many networks with guidance)."""
        return 2 * steps - 1 if self.name in ("heun", "edm") else steps


def guided(denoiser: Denoiser, guidance: float) -> Denoiser:
    """`denoiser` with classifier-free guidance; itself where `guidance` is 1."""
    if guidance == 1:
        return denoiser

    def combined(x: Tensor, sigma_B: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise JstarError(
                f"sampler: guidance = {guidance:g} needs a model that was trained with labels"
            )
        free = denoiser(x, sigma_B, None)
        return free + guidance * (denoiser(x, sigma_B, labels) - free)

    return combined


class _Noise:
    """Unit noise of some images: row b is a function of (seed, stream, index[b], draw)."""

    def __init__(self, seed: int, index_B: NDArray[np.int64], like: Tensor, draws: int) -> None:
        self.seed, self.index_B, self.like, self.draws = seed, index_B, like, draws

    def __call__(self, draw: int) -> Tensor:
        flat = gaussian(
            (STEP << 32) | self.seed, self.index_B * self.draws + draw, self.like[0].numel()
        )
        return torch.from_numpy(flat).to(self.like).view_as(self.like)


def start_noise(
    seed: int, index_B: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Unit noise from which the images `index_B` start, float32 [B, *shape]."""
    flat = gaussian((START << 32) | seed, index_B, math.prod(shape))
    return flat.reshape(len(flat), *shape)


@torch.no_grad()
def draw_images(
    denoiser: Denoiser,
    index_B: NDArray[np.int64],
    shape: tuple[int, ...],
    steps_K: NDArray[np.float64],
    sampler: Sampler,
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Images number `index_B` of `seed`, float64 [B, *shape] in the denoiser's data scale.

    denoiser: D(x [B, *shape], sigma [B], labels [B] or None) -> x0, of `dtype`; the image itself
    is kept in float64 between the calls, as in EDM.
    steps_K: decreasing noise scales as of `noise_steps`, a last 0 among them or not: without it
    the images keep the noise of the last scale.
    Raises JstarError if the images leave the finite numbers.
    """
    if len(steps_K) < 2 or (np.diff(steps_K) >= 0).any() or steps_K[-1] < 0:
        raise JstarError("sampler: the noise scales must decrease and not be below 0")
    # Unit variance is all that is kept of the data at sigma_max: the start is sigma_max * noise.
    x = torch.from_numpy(start_noise(seed, index_B, shape)).to(device).double() * float(steps_K[0])
    combined = guided(denoiser, sampler.guidance)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        sigma_B = torch.full((len(x),), sigma, dtype=dtype, device=x.device)
        return combined(x.to(dtype), sigma_B, labels).double()

    noise = _Noise(seed, index_B, x, len(steps_K))
    step = _STEPS[sampler.name]
    for k, (high, low) in enumerate(pairwise(steps_K)):
        x = step(_Step(denoise, sampler, noise, k, len(steps_K) - 1), x, float(high), float(low))
    if not torch.isfinite(x).all():
        raise JstarError(
            f"sampler: '{sampler.name}' left the finite numbers; the denoiser does not suit it"
        )
    return x


@dataclass(frozen=True)
class _Step:
    """What a step needs besides the image and the two noise scales; `number` of `count` steps."""

    denoise: Callable[[Tensor, float], Tensor]
    sampler: Sampler
    noise: _Noise
    number: int
    count: int


def _euler(step: _Step, x: Tensor, high: float, low: float) -> Tensor:
    return x + (low - high) * (x - step.denoise(x, high)) / high


def _heun(step: _Step, x: Tensor, high: float, low: float) -> Tensor:
    slope = (x - step.denoise(x, high)) / high
    guess = x + (low - high) * slope
    if low == 0:
        return guess
    return x + (low - high) * 0.5 * (slope + (guess - step.denoise(guess, low)) / low)


def _edm(step: _Step, x: Tensor, high: float, low: float) -> Tensor:
    s = step.sampler
    if s.churn > 0 and s.churn_min <= high <= s.churn_max:
        raised = high * (1 + min(s.churn / step.count, math.sqrt(2) - 1))
        x = x + math.sqrt(raised**2 - high**2) * s.churn_noise * step.noise(step.number)
        high = raised
    return _heun(step, x, high, low)


def _ddim(step: _Step, x: Tensor, high: float, low: float) -> Tensor:
    """In VP's own terms: eq. 12 of arXiv 2010.02502 with its eq. 16, divided by alpha_t."""
    s = step.sampler
    eta = 1.0 if s.name == "ancestral" else s.eta
    fresh = eta * low * math.sqrt(1 - (low / high) ** 2)
    clean = step.denoise(x, high)
    x = clean + math.sqrt(max(low**2 - fresh**2, 0.0)) * (x - clean) / high
    return x + fresh * step.noise(step.number) if fresh > 0 else x


def _sde(step: _Step, x: Tensor, high: float, low: float) -> Tensor:
    """Frozen score: x + (high^2 - low^2) s, s = (D - x) / high^2, and fresh noise.

    To sigma = 0 the noise would stay in the image: the last step takes the denoiser's answer.
    """
    clean = step.denoise(x, high)
    if low == 0:
        return clean
    moved = high**2 - low**2
    return x + moved / high**2 * (clean - x) + math.sqrt(moved) * step.noise(step.number)


_STEPS: dict[str, Callable[[_Step, Tensor, float, float], Tensor]] = {
    "euler": _euler, "heun": _heun, "edm": _edm, "ddim": _ddim, "ancestral": _ddim, "sde": _sde,
}  # fmt: skip
