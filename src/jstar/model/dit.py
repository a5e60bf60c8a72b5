"""The diffusion transformer: patches, 2-D positions, adaLN-Zero blocks (arXiv 2212.09748).

The network is the raw F of `jstar.noise.Process.denoise`; the equation of a block is in block.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jstar.model.block import Block, modulated_norm
from jstar.model.fast_network import SURE_WIDTH, c_network, c_network_takes
from jstar.model.ladder import DiTConfig

MAX_PERIOD = 10_000.0  # of the sinusoids, as in the 2023 DiT


class DiT(nn.Module):
    """The raw network F(x, c_noise, labels) of `config`.

    Weights are those of `initialise(generator)`, which the constructor does not call: a network
    can be built on the meta device, and two networks never share a random state. Its fixed
    positions come with them, or from `place_positions`.
    """

    positions_TE: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # every block's activations, in the backward pass
        # Compute it in C where that can be (`jstar.model.network_choice` says where it should).
        self.in_c = config.width <= SURE_WIDTH
        width = config.width
        self.patches = nn.Linear(config.token_dim, width)
        self.noise1 = nn.Linear(config.time_features, width)
        self.noise2 = nn.Linear(width, width)
        if config.classes:
            self.labels = nn.Embedding(config.classes + 1, width)  # the last row: no label
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, config.token_dim)
        # Empty: to load what `arange` on the meta device needs would take longer than a second.
        unset_TE = torch.empty(config.tokens, width)
        self.register_buffer("positions_TE", unset_TE, persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> "DiT":
        """Set all weights from `generator` (on the CPU, so equal on every device); returns self.

        Xavier-uniform matrices; adaLN and last layer zero, so every block starts as the identity.
        """
        for name, weight in self.named_parameters():
            # On a CPU in its own place: a second copy of 6 GB takes seconds.
            own = weight.device.type == "cpu" and weight.dtype == torch.float32
            value = weight.zero_() if own else torch.zeros(weight.shape)
            if name.endswith("qk_scale"):
                value.fill_(1.0)
            elif name.startswith(("noise", "labels")) and name.endswith("weight"):
                value.normal_(std=0.02, generator=generator)
            elif not name.startswith("last") and "modulation" not in name and value.ndim == 2:
                bound = math.sqrt(6.0 / sum(value.shape))
                value.uniform_(-bound, bound, generator=generator)
            if not own:
                weight.copy_(value)
        self.place_positions(self.positions_TE.device)
        return self

    @classmethod
    def drawn(cls, config: DiTConfig, seed: int) -> "DiT":
        """A new network on the CPU, with the weights of `seed`: none is drawn twice."""
        with torch.device("meta"):
            network = cls(config)
        for module in network.modules():  # `to_empty` loads half of sympy for it
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty(weight.shape)))
        network.positions_TE = torch.empty(config.tokens, config.width)
        return network.initialise(torch.Generator().manual_seed(seed))

    def place_positions(self, device: torch.device | str) -> None:
        """Set the fixed positions, which a network lacks as it is built."""
        self.positions_TE = positions(self.config).to(device)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, C, H, W], [B] (or [1]), labels [B] or None (no label) -> [B, C, H, W]."""
        c = self.config
        if self.in_c and c_network_takes(self, x, c_noise):
            c_noise_B = c_noise.expand(len(x))
            sinusoids_BF = self.sinusoids(c_noise_B)
            return c_network(self, x, sinusoids_BF, self._labels(c_noise_B, labels))
        rows, columns, p = c.rows // c.patch, c.columns // c.patch, c.patch
        tokens = x.reshape(-1, c.channels, rows, p, columns, p)
        tokens = tokens.permute(0, 2, 4, 1, 3, 5).reshape(-1, c.tokens, c.token_dim)
        x_BTE = self.patches(tokens) + self.positions_TE
        condition_BE = F.silu(self.condition(c_noise.expand(len(x)), labels))
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x_BTE = checkpoint(
                    block, x_BTE, condition_BE, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BTE = block(x_BTE, condition_BE)
        shift, scale = self.last_modulation(condition_BE).unsqueeze(1).chunk(2, dim=-1)
        out = self.last(modulated_norm(x_BTE, shift, scale, c.classic))
        out = out.reshape(-1, rows, columns, c.channels, p, p).permute(0, 3, 1, 4, 2, 5)
        image: Tensor = out.reshape(-1, c.channels, c.rows, c.columns)
        return image

    def condition(self, c_noise_B: Tensor, labels_B: Tensor | None) -> Tensor:
        """Embedding of the noise level (and label), [B, E]."""
        features = self.sinusoids(c_noise_B)
        condition_BE: Tensor = self.noise2(F.silu(self.noise1(features)))
        labels_B = self._labels(c_noise_B, labels_B)
        return condition_BE if labels_B is None else condition_BE + self.labels(labels_B)

    def sinusoids(self, c_noise_B: Tensor) -> Tensor:
        """What the embedding of the noise level begins with, [B, F]."""
        return sinusoids(c_noise_B.float() * self.config.noise_scale, self.config.time_features)

    def _labels(self, c_noise_B: Tensor, labels_B: Tensor | None) -> Tensor | None:
        """The labels, `no label` where none are given; None of a network without labels."""
        if labels_B is None and self.config.classes:
            return torch.full_like(c_noise_B, self.config.classes, dtype=torch.long)
        return labels_B if self.config.classes else None


def sinusoids(value: Tensor, count: int) -> Tensor:
    """[...] -> [..., count]: cosines, then sines, with periods from 2 pi to 2 pi 10,000."""
    step = torch.arange(count // 2, device=value.device, dtype=torch.float32)
    angle = value.unsqueeze(-1) * torch.exp(step * (-math.log(MAX_PERIOD) / (count // 2)))
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def positions(config: DiTConfig) -> Tensor:
    """Fixed 2-D positions [T, E]: half of the width for the row, half for the column."""
    row = torch.arange(config.rows // config.patch, device="cpu", dtype=torch.float32)
    column = torch.arange(config.columns // config.patch, device="cpu", dtype=torch.float32)
    half = config.width // 2
    grid = torch.cat(
        [
            sinusoids(row, half)[:, None].expand(-1, len(column), -1),
            sinusoids(column, half)[None].expand(len(row), -1, -1),
        ],
        dim=-1,
    )
    return grid.flatten(0, 1)
