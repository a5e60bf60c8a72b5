"""Weak but real networks for benchmarks/diagnose_*.py: python benchmarks/weak_networks.py NAME

Each is trained for one or two minutes of one core on the first images of Fashion-MNIST and kept in
--work/NAME.pt (memorise-STEP.pt: snapshots of one run on 64 images of half the size).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from jstar.diagnose.readings import ddpm_sigmas
from jstar.model import DiT, ladder
from jstar.model.dit import sinusoids

IMAGES, FEW = 4000, 64  # trained on; by the run that is to memorise
BATCH, STEPS, RATE = 24, 1200, 2e-3
SNAPSHOTS = (50, 100, 200, 400, 800, 1600, 3200, 5000)
FEATURES = 64


class UNet(nn.Module):
    """A small U-Net of two levels that is told one number, as x and noise conditioning [B]."""

    def __init__(self, channels: int = 1, width: int = 24, scale: float = 1.0) -> None:
        super().__init__()
        self.scale, wide = scale, 2 * width
        self.noise = nn.Sequential(nn.Linear(FEATURES, 64), nn.SiLU())
        self.start = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.high = Residual(width, width)
        self.low = nn.ModuleList([Residual(width, wide), Residual(wide, wide)])
        self.join = Residual(wide + width, width)
        self.end = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.end.weight)

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        told = self.noise(sinusoids(c.float() * self.scale, FEATURES))
        high = self.high(self.start(F.pixel_unshuffle(x, 2)), told)
        low = F.avg_pool2d(high, 2, ceil_mode=True)
        for block in self.low:
            low = block(low, told)
        back = F.interpolate(low, size=high.shape[-2:])
        return F.pixel_shuffle(self.end(self.join(torch.cat([back, high], 1), told)), 2)


class Residual(nn.Module):
    """Two convolutions and the noise level's shift."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.GroupNorm(4, after)
        self.told = nn.Linear(64, after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        inner = F.silu(self.norm(self.first(x)) + self.told(told)[:, :, None, None])
        return self.skip(x) + self.second(inner)


@dataclass(frozen=True)
class Kind:
    """How one network is made and trained: batch(x0, eps, generator) -> input, noise, target."""

    make: Callable[[], nn.Module]
    batch: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
    data: tuple[float, float] = (2.0, -1.0)  # x0 = a u + b of images u in 0..1


def _ddpm(x0: Tensor, eps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    step = torch.randint(1000, (len(x0),), generator=generator)
    sigma = torch.from_numpy(ddpm_sigmas()).float()[step][:, None, None, None]
    return (x0 + sigma * eps) / (1 + sigma**2).sqrt(), step.float(), eps


def _cosine_v(x0: Tensor, eps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.rand(len(x0), generator=generator)
    alpha, sigma = (t * np.pi / 2).cos(), (t * np.pi / 2).sin()
    a, s = alpha[:, None, None, None], sigma[:, None, None, None]
    return a * x0 + s * eps, t, a * eps - s * x0


def _flow(x0: Tensor, eps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.randn(len(x0), generator=generator).sigmoid()
    s = t[:, None, None, None]
    return (1 - s) * x0 + s * eps, t, eps - x0


def _edm(x0: Tensor, eps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    log_s = torch.randn(len(x0), generator=generator) * 1.4 - 0.8
    s, v = log_s.exp()[:, None, None, None], 0.25
    x = x0 + s * eps
    skip, out = v / (s * s + v), s * 0.5 / (s * s + v).sqrt()
    return x / (s * s + v).sqrt(), log_s / 4, (x0 - skip * x) / out


def _dit() -> nn.Module:
    config = ladder(3, shape=(1, 28, 28), patch=4, width=64, head_width=32)
    config = replace(config, noise_scale=1000.0)
    return DiT(config).initialise(torch.Generator().manual_seed(0))


KINDS = {
    "eps-unet": Kind(UNet, _ddpm),
    "edm-unet": Kind(lambda: UNet(scale=100.0), _edm),
    "flow-dit": Kind(_dit, _flow),
    "v-unet": Kind(lambda: UNet(scale=1000.0), _cosine_v),
    "eps-unet-unit": Kind(UNet, _ddpm, (1.0, 0.0)),
    "memorise": Kind(lambda: UNet(scale=100.0, width=32), _edm),
}


def scaled(images_NHWC: NDArray[np.uint8], kind: Kind) -> Tensor:
    """Images as the network is given them, float32 [N, C, H, W]."""
    unit = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 255
    return kind.data[0] * unit + kind.data[1]


def fit(
    network: nn.Module, kind: Kind, x0_NCHW: Tensor, steps: int, save: Callable[[int], None]
) -> None:
    """Adam with warm-up and a rate that falls to 0; save(step) after every step."""
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    for step in range(1, steps + 1):
        rate = RATE * min(1, step / 50) * (1 - (step - 1) / steps)
        optimiser.param_groups[0]["lr"] = rate
        picked = torch.randint(len(x0_NCHW), (BATCH,), generator=generator)
        x0 = x0_NCHW[picked]
        eps = torch.randn(x0.shape, generator=generator)
        given, noise, target = kind.batch(x0, eps, generator)
        loss = (network(given, noise) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        save(step)


def train(name: str, images: Path, work: Path) -> None:
    """Train KINDS[name] and write its weights."""
    kind, few = KINDS[name], name == "memorise"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(images) as stored:
        x0_NCHW = scaled(stored["images"][: FEW if few else IMAGES], kind)
    if few:
        x0_NCHW = F.avg_pool2d(x0_NCHW, 2)
    network = kind.make()
    steps = SNAPSHOTS[-1] if few else STEPS
    work.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        if step == steps or (few and step in SNAPSHOTS):
            stem = f"{name}-{step}" if few else name
            torch.save(network.state_dict(), work / f"{stem}.pt")

    fit(network, kind, x0_NCHW, steps, save)


def load(name: str, work: Path, stem: str | None = None) -> nn.Module:
    """The trained network, in evaluation mode."""
    network = KINDS[name].make()
    network.load_state_dict(torch.load(work / f"{stem or name}.pt", weights_only=True))
    return network.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--images", type=Path, required=True, help="fashion-mnist-train.npz")
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    train(asked.name, asked.images, asked.work)
