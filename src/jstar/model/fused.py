"""Two pieces of a block with hand-written gradients, for small networks on a CPU.

There the matrix products of a tiny DiT take a third of a step; the rest is one pass over memory
after another. These make fewer passes. Larger networks and GPUs use torch's own kernels.
"""

from typing import Any

import torch
from torch import Tensor

MAX_TOKENS = 64  # beyond, the T x T weights that `SmallAttention` keeps cost more than they save


def pays_off(x_BTE: Tensor) -> bool:
    """Whether `x_BTE` is a case for the functions below (they keep no graph of their own)."""
    return (
        x_BTE.device.type == "cpu"
        and x_BTE.dtype == torch.float32
        and x_BTE.shape[1] <= MAX_TOKENS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last axis, which is kept."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse: Tensor = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return inverse


def modulated_norm(x_BTE: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """RMSNorm(x) (1 + scale) + shift, the last two [B, 1, E]."""
    out_BTE: Tensor = ModulatedNorm.apply(x_BTE, shift, scale, eps)  # type: ignore[no-untyped-call]
    return out_BTE


def small_attention(qkv: Tensor, qk_scale: Tensor, eps: float) -> Tensor:
    """Self-attention with RMS-normed queries and keys: [B,T,3,heads,h], [2,1,h] -> [B,T,E]."""
    out_BTE: Tensor = SmallAttention.apply(qkv, qk_scale, eps)  # type: ignore[no-untyped-call]
    return out_BTE


class ModulatedNorm(torch.autograd.Function):
    """See `modulated_norm`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        unit, gain = x * inverse, 1 + scale
        ctx.save_for_backward(unit, inverse, gain)
        return torch.addcmul(shift, unit, gain)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        unit, inverse, gain = ctx.saved_tensors
        product = grad * unit
        mean = torch.bmm(product, gain.mT).div_(unit.shape[-1])  # of grad gain unit, a token
        grad_x = (grad * gain).addcmul_(unit, mean, value=-1).mul_(inverse)
        return grad_x, grad.sum(1, keepdim=True), product.sum(1, keepdim=True), None


class SmallAttention(torch.autograd.Function):
    """See `small_attention`."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, qk_scale: Tensor, eps: float) -> Tensor:
        B, T, _, heads, h = qkv.shape
        parts = qkv.permute(2, 0, 3, 1, 4).reshape(3, B * heads, T, h)
        inverse = _inverse_rms(parts[:2], eps)
        unit = parts[:2] * inverse
        gain = qk_scale.unsqueeze(1) * qk_scale.new_tensor([h**-0.5, 1.0]).view(2, 1, 1, 1)
        q, k = (unit * gain).unbind(0)
        v = parts[2]
        weights = torch.softmax(torch.bmm(q, k.mT), dim=-1)
        out = torch.bmm(weights, v)
        ctx.save_for_backward(unit, inverse, gain, q, k, v, weights)
        ctx.heads = heads
        return out.view(B, heads, T, h).transpose(1, 2).reshape(B, T, heads * h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, inverse, gain, q, k, v, weights = ctx.saved_tensors
        heads = ctx.heads
        BH, T, h = v.shape
        grad_out = grads[0].view(-1, T, heads, h).transpose(1, 2).reshape(BH, T, h)
        grad = v.new_empty(3, BH, T, h)
        torch.bmm(weights.mT, grad_out, out=grad[2])
        scores = torch._softmax_backward_data(torch.bmm(grad_out, v.mT), weights, -1, weights.dtype)
        torch.bmm(scores, k, out=grad[0])
        torch.bmm(scores.mT, q, out=grad[1])
        grad_qk = grad[:2]
        grad_gain = (grad_qk * unit).sum(dim=(1, 2)).unsqueeze(1)
        grad_qk.mul_(gain)
        mean = (grad_qk * unit).mean(dim=-1, keepdim=True)
        grad_qk.addcmul_(unit, mean, value=-1).mul_(inverse)
        grad_scale = grad_gain * grad_gain.new_tensor([h**-0.5, 1.0]).view(2, 1, 1)
        grad_qkv = grad.view(3, BH // heads, heads, T, h).permute(1, 3, 0, 2, 4).contiguous()
        return grad_qkv, grad_scale, None
