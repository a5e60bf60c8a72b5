"""Latents of images through a local diffusers AutoencoderKL (optional extra `latents`)."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources import Rows, Shape, Source, paired
from jstar.data.sources.base import first_line
from jstar.data.sources.latents import GAUSSIANS, MEANS, Scaling, latent_rows
from jstar.errors import JstarError

BATCH = 8  # images in one forward pass of the encoder; part of what makes a rerun bit-identical
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def with_vae(source: Source, config: DatasetConfig) -> Source:
    """The source itself, or where the study names a VAE the source of its images' latents."""
    latent = source.dtype != "uint8"
    if (latent or config.vae) and config.mirror and not paired(config):
        raise JstarError(
            "dataset.mirror: latents cannot be mirrored, the latent of a mirrored image is another"
        )
    if config.vae is None:
        if config.channel_mean is not None and not latent:
            raise JstarError("dataset.channel_mean: only latents are scaled by channel")
        if config.posterior == "mean" and not latent:
            raise JstarError("dataset.posterior: only latents have a mean and a deviation")
        return source
    if source.shape[0] != 3:
        raise JstarError(f"dataset.vae: encodes RGB images, '{config.name}' has {source.shape[0]} "
                         "channel(s)")  # fmt: skip
    vae = Vae(Path(config.vae))
    scaling = Scaling(vae.mean, vae.std).of(config, vae.channels)
    gaussian = config.posterior == "gaussian"
    _, rows, columns = source.shape
    if rows % vae.factor or columns % vae.factor:
        raise JstarError(
            f"dataset.size: images of {columns}x{rows} do not divide by the VAE's {vae.factor}"
        )

    def finish(found: Rows) -> Rows:
        latents = vae.encode(found.images_BCHW)
        means = latents[:, : vae.channels]
        stds = latents[:, vae.channels :] if gaussian else None
        where = f"{config.vae}, latents of '{config.name}'"
        encoded = latent_rows(means, stds, found.labels_B, scaling, where)
        return replace(encoded, traits=found.traits)

    return replace(
        source,
        shape=(vae.channels, rows // vae.factor, columns // vae.factor),
        identity=[source.identity, vae.description],
        dtype="float16",
        offset=0.0,
        scale=config.latent_std,
        sampled=gaussian,
        latents=GAUSSIANS if gaussian else MEANS,
        channel_mean=scaling.mean,
        channel_std=scaling.std,
        decoded_bytes=3 * rows * columns,
        finish=finish,
        encoder=vae.description,
    )


def latent_shape(config: DatasetConfig, shape: Shape) -> Shape:
    """[C, H, W] of what is stored of images of `shape`; of a VAE that is not there yet, as of
    Stable Diffusion's: 4 channels at an eighth of the size."""
    if config.vae is None:
        return shape
    channels, factor = 4, 8
    if Path(config.vae).exists():
        vae = Vae(Path(config.vae))
        channels, factor = vae.channels, vae.factor
    return channels, shape[1] // factor, shape[2] // factor


class Vae:
    """An AutoencoderKL in a folder: what its config.json says, and its encoder on every GPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.channels = int(facts["latent_channels"])
            self.factor = 2 ** (len(facts["block_out_channels"]) - 1)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JstarError(
                f"dataset.vae = '{folder}': is not the folder of a diffusers AutoencoderKL "
                "(config.json and weights); put one there, none is downloaded"
            ) from error
        weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if not weights:
            raise JstarError(f"{folder}: holds no weights ({' or '.join(WEIGHTS)})")
        # A VAE states its scaling as per-channel moments, or as one factor and shift.
        spread = 1 / float(facts.get("scaling_factor") or 1.0)
        shift = float(facts.get("shift_factor") or 0.0)
        self.mean = tuple(facts.get("latents_mean") or (shift,) * self.channels)
        self.std = tuple(facts.get("latents_std") or (spread,) * self.channels)
        with weights[0].open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.description = f"AutoencoderKL {folder.name}, weights sha256 {digest}"

    @cached_property
    def _encoders(self) -> list[tuple[Any, Any]]:
        """(device, model) on every GPU, or on the CPU; loaded when the first image is there."""
        try:
            import torch
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise JstarError(
                "dataset.vae: encoding needs diffusers, install it with: "
                f"pip install 'jstar[latents]' ({first_line(error)})"
            ) from error
        gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
        found = []
        for name in gpus or ["cpu"]:
            try:
                model = AutoencoderKL.from_pretrained(str(self.folder), local_files_only=True)
            except (OSError, ValueError, RuntimeError) as error:
                reason = first_line(error)
                raise JstarError(f"{self.folder}: cannot be loaded ({reason})") from error
            device = torch.device(name)
            found.append((device, model.to(device, torch.float32).eval().requires_grad_(False)))
        return found

    def encode(self, images_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Mean and standard deviation of the posterior, [B, 2C, h, w], of pixels taken to -1..1.

        Batches go to the GPUs in turn; the numbers do not depend on how many there are.
        """
        batches = [images_BCHW[at : at + BATCH] for at in range(0, len(images_BCHW), BATCH)]
        encoders = self._encoders
        with ThreadPoolExecutor(len(encoders)) as pool:
            jobs = [
                pool.submit(_encode, *encoders[n % len(encoders)], batch)
                for n, batch in enumerate(batches)
            ]
            return np.concatenate([job.result() for job in jobs])


def _encode(device: Any, model: Any, images_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(images_BCHW)).to(device)
    with torch.inference_mode():
        posterior = model.encode(pixels.float() / 127.5 - 1).latent_dist
        both = torch.cat([posterior.mean, posterior.std], dim=1)
    return np.asarray(both.cpu().numpy(), np.float32)
