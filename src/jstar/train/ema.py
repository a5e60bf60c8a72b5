"""Power-function averages of the weights, several lengths at once (arXiv 2312.02696, section 3)."""

import numpy as np
import torch
from torch import Tensor


def power_exponent(relative_std: float) -> float:
    """gamma of the profile w(t) ~ t^gamma whose standard deviation is `relative_std` of the run.

    The largest root of g^3 + 7 g^2 + (16 - 1/s^2) g + 12 - 1/s^2 (algorithm 2 of the source).
    """
    inverse = relative_std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


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
