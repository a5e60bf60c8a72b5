"""The first call of a denoiser, on two images, before any work is done for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.diagnose.adapters import Adapter, guarded
from jstar.diagnose.sample import PLACES
from jstar.errors import JstarError

FAR = 30.0  # data beyond this are hardly scaled for a network


@torch.inference_mode()
def first_call(
    adapter: Adapter,
    images_BCHW: NDArray[np.float32],
    labels_B: NDArray[np.int64] | None,
    device: str = "cpu",
) -> None:
    """Call the denoiser with two images at three noise scales.

    Raises JstarError, one sentence, where it fails or returns another type, shape or dtype, or
    numbers that are not finite; where the data or the labels cannot be what it was trained on.
    """
    far = float(np.abs(images_BCHW).max())
    if far > FAR:
        raise JstarError(
            f"dataset: its numbers reach {far:.3g}; they must be in the scale that the network was "
            "trained in, such as -1..1"
        )
    x0 = torch.from_numpy(np.ascontiguousarray(images_BCHW)).to(device)
    labels = None if labels_B is None else torch.from_numpy(np.array(labels_B)).to(device)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(device)
    denoise = guarded(adapter.denoise)
    for place in (PLACES[0], 1.0, PLACES[-1]):
        sigma = min(max(place, adapter.sigma_min), adapter.sigma_max)
        x = x0 + sigma * noise
        out = denoise(x, torch.full((len(x),), sigma, device=device), labels)
        _check(out, x, sigma)


def _check(out: Tensor, x: Tensor, sigma: float) -> None:
    if out.shape != x.shape:
        raise JstarError(
            f"denoiser: returned shape {tuple(out.shape)} for images of shape {tuple(x.shape)}, it "
            "must return the same shape"
        )
    if not out.is_floating_point():
        raise JstarError(f"denoiser: returned {out.dtype}, it must return floats")
    if not torch.isfinite(out).all():
        raise JstarError(f"denoiser: returned numbers that are not finite at sigma = {sigma:g}")
