"""How long a step takes on a device, from what its kernels compute and move."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from jstar.hardware import Gpu
from jstar.model import DiTConfig, flops, parameters
from jstar.train.footprint import Cut, Load

# Shares of the maker's numbers that kernels of this size reach. Assumed, from published timings;
# `jstar plan` prints them.
MATRIX, ATTENTION, MEMORY, LINK = 0.66, 0.5, 0.8, 0.7
NETWORK = 50e9  # bytes/s of one GPU between nodes (400 Gb/s); assumed
BACKWARD = 2 / 3  # of a pass: the exchange of gradients hides behind it


@dataclass(frozen=True)
class Machine:
    """Rates that are reached: FLOP/s and bytes/s. `peak` is what MFU compares with."""

    name: str
    matrix: float
    attention: float
    memory: float
    link: float
    peak: float

    @classmethod
    def of(cls, gpu: Gpu, *, bf16: bool, nodes: int = 1) -> "Machine":
        """A GPU from the table of its makers' numbers."""
        peak = gpu.bf16 if bf16 else gpu.float32
        link = gpu.link if nodes == 1 else min(gpu.link, NETWORK)
        return cls(
            gpu.name, MATRIX * peak, ATTENTION * peak, MEMORY * gpu.bandwidth, LINK * link, peak
        )

    @classmethod
    def measured(cls, shape: DiTConfig) -> "Machine":
        """This processor, timed for a fraction of a second on products of a network's shape."""
        import torch

        a, b = torch.randn(shape.tokens, shape.width), torch.randn(shape.width, 4 * shape.width)
        once = 2.0 * shape.tokens * shape.width * 4 * shape.width
        rate = once / _seconds(lambda: a @ b)
        moved = _memory_rate()
        return cls("this CPU", rate, rate, moved, moved, rate)


@cache
def _memory_rate() -> float:
    """Bytes/s that this processor reads and writes, more than fit into a cache."""
    import torch

    big = torch.zeros(2**22)
    return 2 * big.nbytes / _seconds(lambda: big.clone())


def _seconds(work: Callable[[], object]) -> float:
    """Of one call, repeated for a fraction of a second."""
    work()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.15:
        work()
        done += 1
    return (time.perf_counter() - start) / done


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step, and what they are spent on."""

    matrix: float
    attention: float
    moved: float
    update: float  # AdamW, gradient norm and averages
    exchange: float  # of gradients and weights between GPUs, as far as nothing hides it

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return float(sum(vars(self).values()))


def step_time(load: Load, cut: Cut, machine: Machine) -> StepTime:
    """A step of a size that is cut up so, at the speeds of a machine."""
    cost, passes = load.cost(cut), -(-load.share // cut.microbatch)
    images = load.share / cut.microbatch  # the last microbatch may be smaller
    matrix, attention = cost.matrix / machine.matrix, cost.attention / machine.attention
    moved = cost.moved / machine.memory
    weights = 4.0 * parameters(load.shape)
    mine = weights / load.world if cut.shard else weights
    # AdamW reads and writes weight and moments and reads the gradient twice (its norm).
    update = (8 + 3 * len(load.config.ema)) * mine / machine.memory
    ring = (load.world - 1) / load.world * weights / machine.link  # each byte once around
    if cut.shard:  # weights for each pass and its backward pass, in bf16 half; gradients once
        half = 0.5 if load.config.precision == "bf16" else 1.0
        travel, hidden = (2 * half * passes + 1) * ring, images * (matrix + attention + moved)
    else:
        travel, hidden = 2 * ring, BACKWARD * (matrix + attention + moved)
    return StepTime(
        matrix * images, attention * images, moved * images, update, max(0.0, travel - hidden)
    )


def images_per_second(load: Load, cut: Cut, machine: Machine) -> float:
    """Of all processes together."""
    return load.share * load.world / step_time(load, cut, machine).total


def mfu(load: Load, cut: Cut, machine: Machine) -> float:
    """Useful FLOPs (3 x forward) over the peak."""
    useful = 3 * flops(load.shape) * load.share
    return useful / step_time(load, cut, machine).total / machine.peak
