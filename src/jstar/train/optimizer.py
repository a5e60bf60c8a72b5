"""AdamW with clipping and a skip of non-finite steps, all on the device, without a sync."""

import math

import torch
from torch import Tensor, nn

from jstar.config import TrainConfig

EPS = 1e-8


def learning_rate(config: TrainConfig, width: int, images: int) -> float:
    """Constant after a linear warm-up: learning_rate x sqrt(learning_rate_width / width).

    Every snapshot of a constant-rate run is a legitimate point of the compute curve; the EMA
    does what a decay would do. `images` are those seen after the step.
    """
    peak = config.learning_rate * math.sqrt(config.learning_rate_width / width)
    return peak * min(1.0, images / config.warmup_images) if config.warmup_images else peak


class Optimizer:
    """Fused AdamW over float32 weights.

    A gradient that is not finite changes nothing but `skipped`, a count on the device.
    """

    def __init__(self, weights: list[nn.Parameter], config: TrainConfig) -> None:
        self.weights, self.clip_norm = weights, config.clip_norm
        self.adam = torch.optim.AdamW(
            weights, lr=0.0, betas=config.betas, eps=EPS, weight_decay=config.weight_decay,
            fused=True,
        )  # fmt: skip
        device = weights[0].device
        self.skipped = torch.zeros((), device=device)

    def step(self, rate: float) -> None:
        """One update from the gradients in `.grad`, which it clears."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        bad = (~torch.isfinite(norm)).float()
        # The fused kernel divides gradients by grad_scale and does nothing where found_inf is 1.
        vars(self.adam).update(
            grad_scale=torch.clamp(norm / self.clip_norm, min=1.0), found_inf=bad
        )
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.skipped += bad

    def moments(self) -> dict[str, list[Tensor]]:
        """AdamW's state, one list a kind, in the order of the weights."""
        for weight in self.weights:  # a state that has not stepped yet
            state = self.adam.state[weight]
            if not state:
                state["step"] = torch.zeros((), device=weight.device)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
        states = [self.adam.state[w] for w in self.weights]
        return {key: [s[key] for s in states] for key in ("step", "exp_avg", "exp_avg_sq")}
