"""One prompt for all images: its embedding is given to the network in the place of labels.

With one prompt J* is that of the images themselves. With prompts of each image's own it is 0, since
the prompt tells the image; with a few that images share, they are classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jstar.diagnose.adapters import Adapter, guarded
from jstar.diagnose.sample import Sample
from jstar.errors import JstarError
from jstar.evaluate.losses import Denoiser

KINDS = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class Prompt:
    """The embedding of one prompt, float32 [1, ...]."""

    embedding: Tensor

    def told_to(self, adapter: Adapter, labels: bool) -> Adapter:
        """`adapter`, whose network is given the embedding [B, ...] where labels would be.

        labels: whether it is given labels. Raises JstarError where it can be told no prompt.
        """
        if labels or adapter.conditional:
            raise JstarError(
                f"prompt: '{adapter.name}' is given class labels, and a denoiser is given labels "
                "or a prompt, not both"
            )
        if adapter.card_id is not None:
            raise JstarError(f"prompt: '{adapter.name}' is a run of this project, none knows one")
        parts = adapter.parts
        if parts is not None:
            network = parts.network

            def call(x: Tensor, time: Tensor, *_: Tensor) -> Tensor:
                return network(x, time, self._rows(x))

            parts = replace(parts, network=call)
        return replace(adapter, denoise=self._given(adapter.denoise), parts=parts)

    @torch.inference_mode()
    def unheard(self, adapter: Adapter, sample: Sample) -> tuple[str, ...]:
        """A sentence where `adapter`, not told yet, returns the same for the opposite embedding."""
        sigma = float(sample.places(adapter.sigma_min, adapter.sigma_max)[-1])
        x = sample.x0_MCHW[:2] + sigma * sample.noise_MCHW[:2]
        told_B = torch.full((len(x),), sigma, device=x.device)
        one, other = (
            guarded(prompt._given(adapter.denoise))(x, told_B, None)
            for prompt in (self, Prompt(-self.embedding))
        )
        if not torch.equal(one, other):
            return ()
        return ("the prompt is ignored: the output is the same for the opposite embedding",)

    def _given(self, denoise: Denoiser) -> Denoiser:
        return lambda x, sigma, _: denoise(x, sigma, self._rows(x))

    def _rows(self, x: Tensor) -> Tensor:
        one = self.embedding.to(x.device)
        return one.expand(len(x), *one.shape[1:])


def open_prompt(prompt: Any) -> Prompt:
    """A Prompt of an array or tensor, [C] or [1, ...], or of a file that holds one.

    Raises JstarError, also for more embeddings than one.
    """
    where = "prompt"
    if isinstance(prompt, str | Path):
        where = f"prompt: {prompt}"
        array = _read(Path(prompt))
    else:
        array = np.asarray(prompt.detach().cpu() if isinstance(prompt, Tensor) else prompt)
    if array.dtype.kind != "f" or not array.size or not np.isfinite(array).all():
        raise JstarError(f"{where}: must hold finite floats, found are {array.dtype}")
    if array.ndim == 1:
        array = array[None]
    if array.ndim == 0 or len(array) != 1:
        raise JstarError(
            f"{where}: has shape {array.shape}, allowed is one embedding for all images, "
            "[1, tokens, channels] or [channels]: given each image's own prompt J* is 0, and "
            "prompts that images share are classes (--labels)"
        )
    return Prompt(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))


def _read(path: Path) -> NDArray[Any]:
    """The one array of a file."""
    if path.suffix not in KINDS:
        raise JstarError(f"prompt: {path} is not allowed, it must be one of {', '.join(KINDS)}")
    try:
        if path.suffix == ".npy":
            alone: NDArray[Any] = np.load(path, allow_pickle=False)
            return alone
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        else:
            arrays = {n: t.float().numpy() for n, t in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise JstarError(f"prompt: {path} cannot be read ({error})") from error
    if len(arrays) != 1:
        raise JstarError(
            f"prompt: {path} holds {', '.join(arrays) or 'nothing'}, allowed is one array"
        )
    return next(iter(arrays.values()))
