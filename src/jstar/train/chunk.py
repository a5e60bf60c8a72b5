"""What the steps between two events train on."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Inputs of K steps of one rank, b images each. With D the denoiser and F the network,

        D - x0 = c_out (F(x_in, c_noise) - target),

    so the squared x0 error is `to_x0` times the network's, the training loss `weight` times.
    """

    x_in: Tensor  # [K, b, C, H, W]
    target: Tensor  # [K, b, C, H, W]
    c_noise: Tensor  # [K, b]
    weight: Tensor  # [K, b], of the network's squared error
    to_x0: Tensor  # [K, b], c_out^2
    log_sigma: Tensor  # [K, b]
    labels: Tensor | None  # [K, b]
    control: Tensor | None = None  # [K, b], a control variate of the squared x0 error
