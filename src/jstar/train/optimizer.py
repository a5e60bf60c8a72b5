"""AdamW with clipping and a skip of non-finite steps, all on the device, without a sync."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from jstar.config import TrainConfig
from jstar.train.events import Branch
from jstar.train.parallel import Ranks, is_sharded, local

EPS = 1e-8
FEW, IN_STEPS = 10, 1000  # bad steps among the last so many that are too many
IN_A_ROW = 3
FEW_WEIGHTS = 2**22  # a CPU steps them as one tensor: more would feel the copy of their gradients


def learning_rate(
    config: TrainConfig, width: int, images: int, branch: Branch | None = None
) -> float:
    """Constant after a linear warm-up: learning_rate x sqrt(learning_rate_width / width).

    Every snapshot of a constant-rate run is a legitimate point of the compute curve; the EMA
    does what a decay would do. In a branch the rate falls linearly, from its full height at the
    first step to 0 after the last. `images` are those seen after the step. The root is a prior: on
    the digits over 60,000 images one `learning_rate` costs widths 16 to 128 at most 1.3 % of the
    loss at the best rate of each (benchmarks/train_width.py). What a size needs, the stage tune
    finds.
    """
    peak = config.learning_rate * math.sqrt(config.learning_rate_width / width)
    rate = peak * min(1.0, images / config.warmup_images) if config.warmup_images else peak
    if branch is None:
        return rate
    return rate * (branch.end + 1 - images / config.batch) / (branch.end - branch.start)


class Optimizer:
    """Fused AdamW over float32 weights, this rank's part of them where FSDP2 shards.

    A gradient that is not finite changes nothing but `health`, counts on the device: steps skipped,
    of these the last ones in a row, the longest row, their decaying number (over IN_STEPS), and of
    the gradient norms since the last record their number, sum and maximum.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainConfig, ranks: Ranks) -> None:
        self.parameters, self.ranks, self.config = parameters, ranks, config
        self.sharded = any(is_sharded(p) for p in parameters)
        # AdamW works number by number, so it need not know that it sees only a part.
        self.weights: list[Tensor] = [local(p).detach() if self.sharded else p for p in parameters]
        few = sum(p.numel() for p in parameters) <= FEW_WEIGHTS
        self.whole = ranks.device.type == "cpu" and few and not self.sharded
        self.stepped = [in_one_piece(parameters)] if self.whole else self.weights
        self.steps = [torch.zeros((), device=w.device) for w in self.stepped]
        self.mean, self.square = ([torch.zeros_like(w) for w in self.stepped] for _ in range(2))
        self.health = torch.zeros(7, device=ranks.device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients in `.grad`, which it clears."""
        gradients = [local(cast(Tensor, p.grad)) for p in self.parameters]
        self.clear()
        if self.whole:
            gradients = [torch.cat([gradient.view(-1) for gradient in gradients])]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.sharded:
            norm = self.ranks.sum(norm.square()).sqrt()
        bad = (~torch.isfinite(norm)).float()
        beta1, beta2 = self.config.betas
        # The fused kernel divides gradients by grad_scale and does nothing where found_inf is 1.
        # The class AdamW does no more, but loads torch's compiler, which takes a second.
        adamw(
            self.stepped, gradients, self.mean, self.square, [], self.steps, fused=True,
            grad_scale=torch.clamp(norm / self.config.clip_norm, min=1.0), found_inf=bad,
            amsgrad=False, beta1=beta1, beta2=beta2, lr=rate, eps=EPS, maximize=False,
            weight_decay=self.config.weight_decay,
        )  # fmt: skip
        self._watch(norm, bad)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _watch(self, norm: Tensor, bad: Tensor) -> None:
        total, row, longest, recent, count, norms, highest = self.health
        good, row = 1 - bad, (row + 1) * bad
        finite = torch.where(bad > 0, 0.0, norm)
        self.health = torch.stack([
            total + bad, row, torch.maximum(longest, row), recent * (1 - 1 / IN_STEPS) + bad,
            count + good, norms + finite, torch.maximum(highest, finite),
        ])  # fmt: skip

    def take_norms(self) -> tuple[float, float]:
        """Mean and maximum of the finite gradient norms since the last call; NaN without any."""
        count, norms, highest = self.health[4:].tolist()
        self.health[4:] = 0.0
        return (norms / count, highest) if count else (math.nan, math.nan)

    def moments(self) -> dict[str, list[Tensor]]:
        """AdamW's state, one list a kind, in the order of the weights."""
        mean, square = self.mean, self.square
        if self.whole:
            mean, square = (parts_of(m[0], self.parameters) for m in (mean, square))
        return {"step": self.steps, "exp_avg": mean, "exp_avg_sq": square}


def in_one_piece(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor that holds all these numbers from now on; each parameter is a part of it."""
    whole = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, part in zip(parameters, parts_of(whole, parameters), strict=True):
        parameter.data = part
    return whole


def parts_of(whole: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Each parameter's part of one tensor of as many numbers, in its shape."""
    pieces = torch.split(whole, [p.numel() for p in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
