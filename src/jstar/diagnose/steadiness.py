"""What a denoiser's output must depend on, and what it must not."""

import torch
from torch import Tensor

from jstar.diagnose.adapters import Adapter
from jstar.diagnose.sample import Sample
from jstar.evaluate.losses import Denoiser

SAME = 1e-6  # relative: outputs that differ by less are the same
APART = 1e-3  # relative: outputs that differ by more are not


def _call(denoise: Denoiser, sample: Sample, count: int, sigma: float, told: float) -> Tensor:
    x = sample.x0_MCHW[:count] + sigma * sample.noise_MCHW[:count]
    labels = None if sample.labels_M is None else sample.labels_M[:count]
    return denoise(x, torch.full((count,), told, device=x.device), labels).float()


def _middle(sample: Sample, adapter: Adapter) -> tuple[float, float]:
    """A noise scale in the middle, and another."""
    sigma_S = sample.places(adapter.sigma_min, adapter.sigma_max)
    return float(sigma_S[len(sigma_S) // 2]), float(sigma_S[-1])


def unsteady(denoise: Denoiser, sample: Sample, adapter: Adapter) -> str:
    """Dropout or batch statistics."""
    sigma, _ = _middle(sample, adapter)
    count = len(sample.x0_MCHW)
    half = max(1, count // 2)
    first = _call(denoise, sample, count, sigma, sigma)
    size = float(first.abs().max()) or 1.0
    if float((_call(denoise, sample, count, sigma, sigma) - first).abs().max()) > APART * size:
        return (
            "two calls with the same input give different images: dropout or sampling is on, call "
            ".eval() on the network"
        )
    if float((_call(denoise, sample, half, sigma, sigma) - first[:half]).abs().max()) > (
        APART * size
    ):
        return (
            "an image's output depends on the other images of the batch: batch normalisation is in "
            "training mode, call .eval() on the network"
        )
    return ""


def blind(denoise: Denoiser, sample: Sample, adapter: Adapter) -> str:
    """Whether sigma is ignored."""
    sigma, other = _middle(sample, adapter)
    few = min(4, len(sample.x0_MCHW))
    first = _call(denoise, sample, few, sigma, sigma)
    size = float(first.abs().max()) or 1.0
    if float((_call(denoise, sample, few, sigma, other) - first).abs().max()) >= SAME * size:
        return ""
    return f"sigma is ignored: the output is the same for sigma = {sigma:.3g} and {other:.3g}"
