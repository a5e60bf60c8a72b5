"""Power-function averages of the weights, several lengths at once (arXiv 2312.02696, section 3)."""

import torch
from torch import Tensor

from jstar.averages import power_exponent


class PowerEMA:
    """Averages of `weights` for several relative lengths, kept in float32 beside them."""

    def __init__(self, weights: list[Tensor], lengths: list[float]) -> None:
        self.weights = weights
        self.gamma = {length: power_exponent(length) for length in lengths}
        self.averages = {length: [w.detach().clone() for w in weights] for length in lengths}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """average <- b average + (1 - b) weights after `step` steps, b = (1 - 1/step)^(gamma + 1).

        At step 1 the average is the weights themselves, so it never remembers the initial ones.
        """
        for length, averages in self.averages.items():
            share = 1.0 - (1.0 - 1.0 / step) ** (self.gamma[length] + 1.0)
            torch._foreach_lerp_(averages, self.weights, share)
