"""Where a network in C pays: python benchmarks/train_network.py [--grid] [--out FILE.csv].

Forward and backward pass, and the forward pass alone, of whole networks in C and in torch, in
turns, one thread, processor time of this process: torch's time over that in C, of pairs of passes
that nothing else disturbed (`jstar.probe.ratio`). `used`: what
`jstar.model.network_choice` chooses at that size here.
The ladders of the digits and of Fashion-MNIST as their studies train them; wider networks with
heads of 64, two blocks deep. --grid: one block over widths, tokens and batches instead. `lost`: the
time of the way used over that of the faster one, less 1.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jstar.config import Study
from jstar.hardware import cpu_name
from jstar.model import DiT, DiTConfig, ladder, model_config
from jstar.model.network_choice import IN_C, choose_network
from jstar.probe import ratio
from jstar.records import provenance, write_table
from jstar.train.memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28)}
WIDE = (128, 192, 256, 384, 512)
GRID_WIDTHS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 512)
GRID_BATCHES = (16, 64, 256)
CLOSE, MORE = 1.1, 4  # times as fast; times the rounds, more
SECONDS = 0.5  # of one measurement, at least


def sizes() -> list[tuple[str, DiTConfig, int]]:
    """Name, network and batch of every row."""
    rows = []
    for name, shape in SHAPES.items():
        study = Study.load(ROOT / "config" / f"{name}.yaml")
        for entry in study.ladder:
            network = model_config(study.model, entry, shape, classes=0)
            rows.append((f"{name} {entry.name}", network, study.train.batch))
    for tokens, side in ((16, 16), (64, 32)):
        for width in WIDE:
            network = ladder(2, shape=(3, side, side), patch=4, width=width)
            rows.append((f"width {width}", network, 2048 // tokens))
    return rows


def grid() -> list[tuple[str, DiTConfig, int]]:
    """One block of every width, number of tokens (more than 64 are torch's alone) and batch."""
    return [
        (f"{width} x {side * side}", ladder(
            1, shape=(3, 4 * side, 4 * side), patch=4, width=width,
            head_width=64 if width % 64 == 0 else min(width // 2, 32),
        ), batch)
        for side in (4, 8) for width in GRID_WIDTHS for batch in GRID_BATCHES
    ]  # fmt: skip


def passes(network: DiT, batch: int) -> dict[str, Callable[[], None]]:
    """What is timed: a forward and backward pass, and a forward pass, of one batch."""
    generator, config = torch.Generator().manual_seed(0), network.config
    x = torch.randn(batch, config.channels, config.rows, config.columns, generator=generator)
    c_noise = torch.randn(batch, generator=generator)

    def both() -> None:
        network(x, c_noise).square().mean().backward()
        network.zero_grad()

    @torch.inference_mode()
    def forward() -> None:
        network(x, c_noise)

    return {"": both, "forward_": forward}


def seconds(network: DiT, work: Callable[[], None], in_c: bool) -> float:
    """Processor time of a pass."""
    network.in_c = in_c
    start = time.process_time()
    work()
    return time.process_time() - start


class Row:
    """One size: its network, what is timed of it, and the seconds that a pass took in C and not."""

    def __init__(self, name: str, config: DiTConfig, batch: int) -> None:
        self.network = DiT(config).initialise(torch.Generator().manual_seed(0))
        self.facts: dict[str, Any] = {
            "size": name, "tokens": config.tokens, "depth": config.depth, "width": config.width,
            "heads": config.heads, "batch": batch,
            "used": choose_network(config, batch).way == IN_C,
        }  # fmt: skip
        self.works = passes(self.network, batch)
        self.times: dict[tuple[str, bool], list[float]] = {}

    def measure(self) -> None:
        """One round more."""
        for kind, work in self.works.items():
            for in_c in (True, False):  # what the last size left in the caches is gone
                seconds(self.network, work, in_c)
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                first = len(self.times.get((kind, True), ())) % 2 == 0  # neither always goes first
                for in_c in (first, not first):
                    spent = seconds(self.network, work, in_c)
                    self.times.setdefault((kind, in_c), []).append(spent)

    def found(self) -> dict[str, Any]:
        """As a row of the table."""
        row = dict(self.facts)
        for kind in self.works:
            times = ratio(self.times[kind, False], self.times[kind, True])
            row[f"{kind}torch_ms"] = 1e3 * statistics.median(self.times[kind, False])
            row[f"{kind}c_times_torch"] = times
            row[f"{kind}lost"] = max(1 / times if self.facts["used"] else times, 1) - 1
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--grid", action="store_true", help="widths x tokens x batches instead")
    parser.add_argument("--out", type=Path, help="also write the table there, provenance beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    rows = [Row(*size) for size in (grid() if args.grid else sizes())]
    # A round is of all sizes: a slow minute of the machine then spoils one round of each, not all
    # rounds of a few.
    for number in range(args.rounds):
        for row in rows:
            row.measure()
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    # Pairs of passes scatter by 5 % here: where the two are that close, more of them.
    close = [row for row in rows if 1 / CLOSE < row.found()["c_times_torch"] < CLOSE]
    for _ in range(MORE * args.rounds):
        for row in close:
            row.measure()
    table = pd.DataFrame([row.found() for row in rows])
    print(table.to_string(index=False, float_format="%.3g"))
    if args.out:
        command = " ".join(["python benchmarks/train_network.py", *sys.argv[1:]])
        features = torch.backends.cpu.get_cpu_capability()
        facts = provenance(command=command, device=cpu_name(), features=features,
                           torch=torch.__version__)  # fmt: skip
        write_table(args.out, table, facts)


if __name__ == "__main__":
    main()
