"""Whether the blocks of a run are computed in C or by torch: chosen once, and kept with the run.

The two round differently. So a run notes its choice, and goes on, and is evaluated, with it
wherever it is resumed; only a new run asks. Where the widths decide nothing is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from jstar.model.fast_block import (
    MAX_TOKENS,
    SLICE,
    SOURCE,
    STEPS,
    SURE_WIDTH,
    FastBlock,
    block_kernel,
    head_step,
)
from jstar.model.ladder import DiTConfig
from jstar.native import files_of
from jstar.probe import Way, measured

IN_C, IN_TORCH = "c", "torch"
HOPELESS_WIDTH = 768  # from here on not asked, but torch: timing it would take half a minute
TIMED_TOKENS = 4096  # of the batch that is timed, unless every thread then had less than a slice


@dataclass(frozen=True)
class BlockChoice:
    """What computes the blocks (IN_C or IN_TORCH), and why, in words."""

    way: str
    why: str


def choose_block(config: DiTConfig, batch: int) -> BlockChoice:
    """The faster way for a new run of float32 on this CPU, uncompiled, `batch` images at a time.

    Between SURE_WIDTH and HOPELESS_WIDTH it is measured, with torch's present number of threads.
    """
    width, step = config.width, head_step(config.width, config.heads)
    if config.classic or config.tokens > MAX_TOKENS or step is None:
        return BlockChoice(IN_TORCH, "it alone has such blocks")
    if block_kernel(step) is None:
        return BlockChoice(IN_TORCH, "no compiled block here")
    if width <= SURE_WIDTH:
        return BlockChoice(IN_C, f"width at most {SURE_WIDTH}")
    if width >= HOPELESS_WIDTH:
        return BlockChoice(IN_TORCH, f"width at least {HOPELESS_WIDTH}")
    threads = torch.get_num_threads()
    batch = min(batch, max(SLICE * threads, TIMED_TOKENS // config.tokens))
    question = (
        f"block: {config.tokens} tokens, width {width}, {config.heads} heads, batch {batch}, "
        f"threads {threads}"
    )
    answer = measured(question, lambda: block_passes(config, batch), files_of(SOURCE))
    return BlockChoice(answer.faster, f"measured here {answer.times:.2f} times as fast")


def block_passes(config: DiTConfig, batch: int) -> tuple[Way, Way]:
    """What is timed: a forward and backward pass of one block, in C and in torch."""
    block = FastBlock(config)
    with torch.no_grad():
        for weight in block.parameters():
            weight.fill_(1 / config.width)
    x_BTE = torch.linspace(-1, 1, batch * config.tokens * config.width).reshape(
        batch, config.tokens, config.width
    )
    condition_BE = torch.ones(batch, config.width)

    def passes(in_c: bool) -> Callable[[], None]:
        def both() -> None:
            block.in_c = in_c
            with torch.enable_grad():  # a run that resumes asks without
                out: torch.Tensor = block(x_BTE.requires_grad_(), condition_BE)
                out.sum().backward()  # type: ignore[no-untyped-call]

        return both

    return (IN_C, passes(True)), (IN_TORCH, passes(False))


def block_words(choices: dict[str, BlockChoice]) -> str:
    """What computes the blocks of every size, and why, in one sentence."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, choice in choices.items():
        where = "in C" if choice.way == IN_C else "by torch"
        names.setdefault((where, choice.why), []).append(name)
    parts = [f"{where} for {', '.join(sizes)} ({why})" for (where, why), sizes in names.items()]
    return f"Blocks are computed {'; '.join(parts)}."


def noted_block(note: str | None, config: DiTConfig) -> str:
    """What a run's record says of its blocks; None: of a jstar that went by widths alone."""
    if note is not None:
        return note
    narrow = config.width <= SURE_WIDTH and config.tokens <= MAX_TOKENS and not config.classic
    return IN_C if narrow and head_step(config.width, config.heads) == STEPS[0] else IN_TORCH
