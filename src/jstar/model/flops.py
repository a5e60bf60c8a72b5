"""What a network costs: parameters and FLOPs (2 per multiply-add), both exact."""

import torch

from jstar.model.dit import DiT
from jstar.model.ladder import DiTConfig


def flops(config: DiTConfig) -> float:
    """FLOPs of one forward pass of one image; training costs 3 times that.

    Matrix products only, 2 per multiply-add: 24 L T E^2 + 4 L T^2 E + 12 L E^2 for L blocks of
    width E on T tokens (adaLN once an image), plus patches, noise embedding and the last layer.
    Equal to torch's own counter on the meta device.
    """
    L, T, E = config.depth, config.tokens, config.width
    blocks = L * (24 * T * E**2 + 4 * T**2 * E + 12 * E**2)
    patches = 2 * 2 * T * config.token_dim * E  # in and out
    noise = 2 * (config.time_features * E + E**2)
    last = 2 * E * 2 * E
    return float(blocks + patches + noise + last)


def parameters(config: DiTConfig) -> int:
    """Trained parameters; the fixed positions do not count."""
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(config).parameters())
