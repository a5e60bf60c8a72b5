"""The equation of a DiT block: attention and MLP, modulated by the condition (arXiv 2212.09748).

By default with RMSNorm, QK-norm (arXiv 2302.05442) and no biases that adaLN's shift makes idle;
`classic` gives the 2023 block.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jstar.model.ladder import DiTConfig

NORM_EPS = 1e-6


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, bias = config.width, config.classic
        self.heads, self.classic = config.heads, config.classic
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)
        if not config.classic:
            self.qk_scale = nn.Parameter(torch.empty(2, 1, width // config.heads))

    def forward(self, x_BTE: Tensor, condition_BE: Tensor) -> Tensor:
        """x + gate f(norm(x) (1 + scale) + shift) for f = attention, then for f = MLP.

        [B, T, E] -> [B, T, E]; condition_BE has passed its SiLU already.
        """
        modulation = self.modulation(condition_BE).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        h_BTE = modulated_norm(x_BTE, shift1, scale1, self.classic)
        x_BTE = torch.addcmul(x_BTE, gate1, self.attention(h_BTE))
        h_BTE = modulated_norm(x_BTE, shift2, scale2, self.classic)
        # On a CPU torch computes the exact GELU faster than the tanh form of the 2023 DiT.
        h_BTE = F.gelu(self.up(h_BTE), approximate="tanh" if self.classic else "none")
        return torch.addcmul(x_BTE, gate2, self.down(h_BTE))

    def attention(self, h_BTE: Tensor) -> Tensor:
        """Self-attention over the tokens of an image."""
        qkv = self.qkv(h_BTE).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, heads, E / heads]
        if self.classic:
            q, k, v = qkv.unbind(2)
        else:
            # CUDA's autocast would hand on float32, in casts of their own; the kernel sums in it
            # anyway, and a CPU's autocast leaves it alone (torch 2.13).
            half = qkv.dtype == torch.bfloat16
            with torch.autocast(qkv.device.type, enabled=False) if half else nullcontext():
                qk = norm(qkv[:, :, :2], classic=False) * self.qk_scale.to(qkv.dtype)
            (q, k), v = qk.unbind(2), qkv[:, :, 2]
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        out_BTE: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return out_BTE


def modulated_norm(x_BTE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor, classic: bool) -> Tensor:
    """norm(x) (1 + scale) + shift."""
    return torch.addcmul(shift_B1E, norm(x_BTE, classic), 1 + scale_B1E)


def norm(x: Tensor, classic: bool) -> Tensor:
    """LayerNorm or RMSNorm over the last axis, without weights: adaLN brings them."""
    if classic:
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS)
