"""Adapters that are wrong in a way that can be named: sigma ignored, data or output mis-scaled ...

A denoiser in the wrong units still returns images. It is found by asking whether another reading of
the same network, such as data multiplied by 2, brings it much closer to the posterior mean at every
noise scale that is tried, and at half of them closer than one linear filter for all pixels comes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.diagnose.adapters import Adapter, guarded
from jstar.diagnose.oracle_draws import Truth
from jstar.errors import JstarError
from jstar.evaluate.losses import Denoiser, measure

DRAWS = 64
PLACES = (0.1, 0.2, 0.35, 0.5)  # of the range in ln sigma: where reading data right matters
# Geometric mean of the gap ratios, and each of them. The eight networks of
# config/variants-fashion.yaml (139,000 parameters, 50,000 images): no reading but the right one of
# them passes; with the data wrong by 2 the right reading has ratios of 0.2 to 0.8.
CLOSER, NOWHERE_WORSE = 0.75, 0.9
HALF = 0.5  # of the places: there the right reading beats a linear filter
SAME = 1e-6  # relative: outputs that differ by less are the same
APART = 1e-3  # relative: outputs that differ by more are not

Reading = Callable[[Denoiser], Denoiser]


@dataclass(frozen=True)
class Alternative:
    """Another reading of a denoiser, and what is wrong if it fits."""

    problem: str
    read: Reading


def _scaled(k: float, b: float) -> Reading:
    """The network lives in data u = k x + b."""
    return lambda d: lambda x, s, y: (d(k * x + b, k * s, y) - b) / k


def _output(k: float, b: float) -> Reading:
    """The network returns u = k x + b."""
    return lambda d: lambda x, s, y: (d(x, s, y) - b) / k


def _over(x: Tensor, s: Tensor) -> Tensor:
    """sigma, shaped to multiply images."""
    return s.reshape(-1, *[1] * (x.ndim - 1))


def _input(factor: Callable[[Tensor], Tensor]) -> Reading:
    """The network expects x times a factor of sigma."""
    return lambda d: lambda x, s, y: d(x * factor(_over(x, s)), s, y)


def _predicts(x0: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Reading:
    """The network returns something else, of which `x0(x, sigma, output)` makes the clean image."""
    return lambda d: lambda x, s, y: x0(x, _over(x, s), d(x, s, y))


UNITS = (
    (2.0, 0.0, "by 2"),
    (0.5, 0.0, "by 1/2"),
    (0.5, 0.5, "by 1/2 and shifted by 1/2, as from -1..1 to 0..1"),
    (2.0, -1.0, "by 2 and shifted by -1, as from 0..1 to -1..1"),
    (127.5, 0.0, "by 127.5"),
    (127.5, 127.5, "by 127.5 and shifted by 127.5, as from -1..1 to 0..255"),
    (255.0, 0.0, "by 255, as from 0..1 to 0..255"),
    (1 / 127.5, 0.0, "by 1/127.5"),
    (1 / 127.5, -1.0, "by 1/127.5 and shifted by -1, as from 0..255 to -1..1"),
)

ALTERNATIVES = (
    *(Alternative(f"the data must be multiplied {words} for this network", _scaled(k, b))
      for k, b, words in UNITS),
    *(Alternative(f"the adapter's output is multiplied {words}", _output(k, b))
      for k, b, words in UNITS),
    Alternative("the network expects x / sqrt(1 + sigma^2), the variance-preserving input",
                _input(lambda s: 1 / (1 + s * s) ** 0.5)),
    Alternative("the network expects x / (1 + sigma), the input of flow matching",
                _input(lambda s: 1 / (1 + s))),
    Alternative("the adapter returns the noise, not x0; x0 is x - sigma * noise",
                _predicts(lambda x, s, out: x - s * out)),
    Alternative("the adapter returns the score, not x0; x0 is x + sigma^2 * score",
                _predicts(lambda x, s, out: x + s * s * out)),
    Alternative("the adapter returns the velocity eps - x0, not x0; x0 is (x - sigma * velocity) / "
                "(1 + sigma)", _predicts(lambda x, s, out: (x - s * out) / (1 + s))),
    Alternative("the adapter returns v = (eps - sigma x0) / sqrt(1 + sigma^2), not x0",
                _predicts(lambda x, s, out: (x / (1 + s * s) - s / (1 + s * s) ** 0.5 * out))),
)  # fmt: skip


def check_adapter(adapter: Adapter, truth: Truth, device: str = "cpu") -> list[str]:
    """One sentence for each thing that looks wrong; empty if nothing does.

    Raises JstarError where the denoiser cannot be used at all: it fails, or returns another shape,
    another type, or numbers that are not finite.
    """
    rows = truth.rows(adapter.sigma_min, adapter.sigma_max)
    denoise = guarded(adapter.denoise)
    picked = sorted({rows[round(p * (len(rows) - 1))] for p in PLACES})
    own = _gaps(denoise, truth, picked, device)  # refuses what cannot be used
    found = _constancy(denoise, truth, picked, device)
    if found:  # what else is wrong can only be told once that is right
        return found
    return _misread(denoise, truth, picked, own, device)


def _misread(
    denoise: Denoiser, truth: Truth, rows: list[int], own: NDArray[np.float64], device: str
) -> list[str]:
    """The best of the alternatives that fit, if any does. own: gap of the network as it is read."""
    linear = _gaps(_linear(truth), truth, rows, device)
    fitting: list[tuple[float, str]] = []
    for alternative in ALTERNATIVES:
        try:
            other = _gaps(alternative.read(denoise), truth, rows, device)
        except JstarError:  # the network cannot be read so
            continue
        ratio = np.maximum(other, 1e-300) / np.maximum(own, 1e-300)
        mean = float(np.exp(np.log(ratio).mean()))
        good = np.mean(other < linear) >= HALF
        if mean < CLOSER and ratio.max() < NOWHERE_WORSE and good:
            fitting.append((mean, alternative.problem))
    if not fitting:
        return []
    mean, problem = min(fitting)
    scales = ", ".join(f"{truth.oracle.sigma[row]:.3g}" for row in rows)
    return [f"{problem}: read so, the gap is {_times(1 / mean)} times smaller at sigma = {scales}"]


def _linear(truth: Truth) -> Denoiser:
    """m + v / (v + sigma^2) (x - m), of the mean image m and the variance v of all pixels."""
    mean = torch.from_numpy(truth.mean_CHW)
    variance = float(np.square(truth.x0_MCHW - truth.mean_CHW, dtype=np.float64).mean())

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        centre = mean.to(x.device)
        return centre + variance / (variance + _over(x, sigma) ** 2) * (x - centre)

    return denoise


def _times(factor: float) -> str:
    return f"{factor:.2g}" if factor < 1000 else "over 1000"


def _gaps(denoise: Denoiser, truth: Truth, rows: list[int], device: str) -> NDArray[np.float64]:
    """Mean gap of the first draws at some of the noise scales, [len(rows)]."""
    part = _part(truth)
    measured = measure(
        denoise,
        truth.x0_MCHW[part],
        truth.noise_MCHW[part],
        truth.oracle.sigma[rows],
        labels_M=None if truth.labels_M is None else truth.labels_M[part],
        posterior_mean=lambda s: truth.oracle.posterior_mean(rows[s])[part],
        device=device,
    )
    assert measured.gap_SM is not None
    gap: NDArray[np.float64] = measured.gap_SM.mean(axis=1)
    return gap


def _part(truth: Truth) -> slice:
    """Draws evenly over all: their order is that of strata."""
    return slice(None, None, max(1, len(truth.x0_MCHW) // DRAWS))


@torch.inference_mode()
def _constancy(denoise: Denoiser, truth: Truth, rows: list[int], device: str) -> list[str]:
    """What the output must depend on, and what it must not."""
    part = _part(truth)
    middle = float(truth.oracle.sigma[rows[len(rows) // 2]])
    other = float(truth.oracle.sigma[rows[-1]])
    x0 = torch.from_numpy(np.ascontiguousarray(truth.x0_MCHW[part])).to(device)
    noise = torch.from_numpy(np.ascontiguousarray(truth.noise_MCHW[part])).to(device)
    x = x0 + middle * noise
    labels = truth.labels_M
    y = None if labels is None else torch.from_numpy(np.ascontiguousarray(labels[part])).to(device)

    def call(count: int, sigma: float) -> Tensor:
        s = torch.full((count,), sigma, device=device)
        return denoise(x[:count], s, None if y is None else y[:count]).float()

    first = call(len(x), middle)
    size = float(first.abs().max()) or 1.0
    half = len(x) // 2
    found = []
    if float((call(len(x), other) - first).abs().max()) < SAME * size:
        found.append(
            f"sigma is ignored: the output is the same for sigma = {middle:.3g} and {other:.3g}"
        )
    if float((call(len(x), middle) - first).abs().max()) > APART * size:
        found.append(
            "two calls with the same input give different images: dropout or sampling is on, call "
            ".eval() on the network"
        )
    elif float((call(half, middle) - first[:half]).abs().max()) > APART * size:
        found.append(
            "an image's output depends on the other images of the batch: batch normalisation is in "
            "training mode, call .eval() on the network"
        )
    return found
