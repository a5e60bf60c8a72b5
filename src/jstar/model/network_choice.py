"""Whether the network of a run is computed in C or by torch: chosen once, and kept with the run.

The two round differently. So a run notes its choice, and goes on, and is evaluated, with it
wherever it is resumed; only a new run asks. Where the widths decide nothing is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from jstar.model.dit import DiT
from jstar.model.fast_network import (
    MAX_TOKENS,
    SLICE,
    SOURCE,
    STEPS,
    SURE_WIDTH,
    head_step,
    network_kernel,
)
from jstar.model.flops import flops
from jstar.model.ladder import DiTConfig
from jstar.native import files_of
from jstar.probe import Way, measured

IN_C, IN_TORCH = "c", "torch"
TIE = 1.03  # C then: beside another job, as runs have one, it loses less than torch
TIMED_TOKENS = 4096  # of the batch that is timed, unless every thread then had less than a slice
TIMED_FLOPS = 5e10  # likewise, where that is fewer tokens: half a second of one core


@dataclass(frozen=True)
class NetworkChoice:
    """What computes a network (IN_C or IN_TORCH), and why, in words."""

    way: str
    why: str


def choose_network(config: DiTConfig, batch: int) -> NetworkChoice:
    """The faster way for a new run of float32 on this CPU, uncompiled, `batch` images at a time.

    From SURE_WIDTH on it is measured, with torch's present number of threads.
    """
    width, step = config.width, head_step(config.width, config.heads)
    if config.classic or config.tokens > MAX_TOKENS or step is None:
        return NetworkChoice(IN_TORCH, "it alone has such blocks")
    if network_kernel(step) is None:
        return NetworkChoice(IN_TORCH, "nothing compiled here")
    if width <= SURE_WIDTH:
        return NetworkChoice(IN_C, f"width at most {SURE_WIDTH}")
    threads = torch.get_num_threads()
    timed = min(TIMED_TOKENS // config.tokens, int(TIMED_FLOPS / (3 * flops(_one_block(config)))))
    batch = min(batch, max(SLICE * threads, timed))
    question = (
        f"network: {config.tokens} tokens, width {width}, {config.heads} heads, batch {batch}, "
        f"threads {threads}"
    )
    answer = measured(question, lambda: network_passes(config, batch), files_of(SOURCE))
    if answer.times < TIE:
        return NetworkChoice(IN_C, f"less than {TIE - 1:.0%} between the two here")
    return NetworkChoice(answer.faster, f"measured here {answer.times:.2f} times as fast")


def network_passes(config: DiTConfig, batch: int) -> tuple[Way, Way]:
    """What is timed: a forward and backward pass of a network of one block, in C and in torch."""
    network = DiT.drawn(_one_block(config), seed=0)
    count = batch * config.channels * config.rows * config.columns
    x = torch.linspace(-1, 1, count).view(batch, config.channels, config.rows, config.columns)
    c_noise = torch.linspace(-1, 1, batch)

    def passes(in_c: bool) -> Callable[[], None]:
        def both() -> None:
            network.in_c = in_c
            with torch.enable_grad():  # a run that resumes asks without
                out: torch.Tensor = network(x, c_noise)
                out.square().mean().backward()  # type: ignore[no-untyped-call]
            network.zero_grad()  # as after a step: gradients that stay would be added to

        return both

    return (IN_C, passes(True)), (IN_TORCH, passes(False))


def _one_block(config: DiTConfig) -> DiTConfig:
    return replace(config, depth=1)


def network_words(choices: dict[str, NetworkChoice]) -> str:
    """What computes the network of every size, and why, in one sentence."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, choice in choices.items():
        where = "in C" if choice.way == IN_C else "by torch"
        names.setdefault((where, choice.why), []).append(name)
    parts = [f"{where} for {', '.join(sizes)} ({why})" for (where, why), sizes in names.items()]
    return f"Networks are computed {'; '.join(parts)}."


def noted_network(note: str | None, config: DiTConfig) -> str:
    """What a run's record says of its network; None: of a jstar that went by widths alone."""
    if note is not None:
        return note
    narrow = config.width <= SURE_WIDTH and config.tokens <= MAX_TOKENS and not config.classic
    return IN_C if narrow and head_step(config.width, config.heads) == STEPS[0] else IN_TORCH
