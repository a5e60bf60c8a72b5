"""What the optimal-loss noise law costs: python benchmarks/train_noise_law.py [--json FILE].

Two runs of one size of the digits study, with the own law and with train.noise, in turns; CPU time
of this process, so that other work on the machine hardly matters. Beside the difference of whole
steps, which is small against its scatter, the same difference with the network's steps left out:
drawing a chunk, and following the gap after it, are all that the law adds to.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jstar.config import Study
from jstar.data import prepare
from jstar.optimal.stage import write_curve
from jstar.records import provenance
from jstar.train.loop import run_chunk
from jstar.train.parallel import Ranks
from jstar.train.run import Run

ROOT = Path(__file__).resolve().parents[1]


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU time of one call, in ms."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def around(run: Run, steps: int) -> Callable[[], None]:
    """All of a chunk but the network's steps."""
    error = torch.ones(steps, run.config.batch)

    def work() -> None:
        chunk = run.stream.chunk(run.step, run.step + steps)
        run.bins.add(chunk, error)
        run.noise_law.follow(chunk, error, run.images + steps * run.config.batch, run.ranks)

    return work


def measure(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """One size: ms a step with either law."""
    study = Study.load(ROOT / "config" / "digits.yaml")
    tree = study.model_dump(mode="json")
    runs = {}
    for law, noise in (("own", None), ("optimal_loss", {"law": "optimal_loss"})):
        tree["train"]["noise"] = noise
        cpu = Ranks(0, 1, torch.device("cpu"))
        runs[law] = Run(
            Study.parse(tree), name, 0, folder / "data", folder / law, cpu, folder / "curve.csv"
        )
    events = runs["own"].events
    steps = events.border(0)  # the first chunk, as long as the others: they end at records
    whole: dict[str, list[float]] = {law: [] for law in runs}
    outside: dict[str, list[float]] = {law: [] for law in runs}
    for k in range(rounds + 1):
        for law in list(runs)[:: 1 if k % 2 else -1]:  # neither always goes first
            run = runs[law]
            took = cpu_ms(lambda run=run: run_chunk(run, run.step + steps)) / steps  # type: ignore[misc]
            rest = min(cpu_ms(around(run, steps)) for _ in range(5)) / steps
            if k:  # the first warms up
                whole[law].append(took)
                outside[law].append(rest)
    # Work that is the same each time takes its least time where nothing disturbs it.
    step = {law: min(values) for law, values in whole.items()}
    rest = {law: min(values) for law, values in outside.items()}
    added = rest["optimal_loss"] - rest["own"]
    return {
        "model": name, "batch": events.batch, "steps_a_chunk": steps, "rounds": rounds,
        "step_ms_own": step["own"], "step_ms_optimal_loss": step["optimal_loss"],
        "step_difference": step["optimal_loss"] / step["own"] - 1,
        "around_ms_own": rest["own"], "around_ms_optimal_loss": rest["optimal_loss"],
        "overhead": added / step["own"],
    }  # fmt: skip


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--models", nargs="+", default=["w16", "w24", "w40"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = Study.load(ROOT / "config" / "digits.yaml")
        prepare(study.dataset, folder / "data")
        write_curve(study, folder / "data", folder / "curve.csv")
        rows = [measure(model, args.rounds, folder) for model in args.models]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.4g"))
    if args.json:
        facts = provenance(
            command=" ".join(["python benchmarks/train_noise_law.py", *sys.argv[1:]])
        )
        args.json.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
