"""How long training stands still for checkpoints: python benchmarks/train_saves.py --seconds 300.

Trains a network on the digits, on a CPU, where a checkpoint takes at least two seconds to write:
the disk is simulated, the writer sleeps after each block as long as one of --disk MB/s would take
(benchmarks/throttle.py). Once as a run does it, in the background, and once waiting for every file,
as a trainer without a saver would. Writes train_saves.csv; exit status 1 if the first stands still
for more than 1 % of its time. The wait after the last step is once a run, and stands apart.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from throttle import throttle

from jstar.config import Study
from jstar.data import prepare
from jstar.pool import cpu_count
from jstar.records import provenance, write_table
from jstar.train import loop, train
from jstar.train.run import CHECKPOINTS, Run
from jstar.train.saver import Saver
from jstar.train.tensor_file import TensorFile

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 0.01
START = Saver.start


def waiting_start(self: Saver, kind: str, write: Any) -> None:
    """A save that training waits for."""
    START(self, kind, write)
    self.wait()


def measure(study: Study, data: Path, folder: Path, disk: float) -> dict[str, Any]:
    """One run, until its time budget is over."""
    seconds: list[float] = []
    write, ends, parts = TensorFile.write, [], loop._train_part

    def timed(self: TensorFile, path: Path) -> dict[str, Any]:
        begun = time.perf_counter()
        made = write(self, path)
        if path.parent.name == CHECKPOINTS:
            seconds.append(time.perf_counter() - begun)
        return made

    def until_last_step(run: Run, *more: Any) -> Any:
        reason = parts(run, *more)
        ends.append((time.perf_counter(), run.speed.facts(), run.save_bytes, run.images))
        return reason

    TensorFile.write, loop._train_part = timed, until_last_step  # type: ignore[method-assign]
    try:
        train(study, study.ladder[0].name, 0, data, folder / "out", folder / "state", device="cpu",
              threads=1)  # fmt: skip
    finally:
        TensorFile.write, loop._train_part = write, parts  # type: ignore[method-assign]
    (last, facts, size, images), end = ends[-1], time.perf_counter()
    wall = facts["seconds"] + facts["saving"] + facts["waiting"]
    return {
        "checkpoint_mb": size / 1e6, "disk_mb_per_second": disk, "checkpoints": len(seconds),
        "write_seconds": min(seconds), "wall_seconds": wall, "images": images,
        "stalled_seconds": facts["saving"], "stalled_share": facts["saving"] / wall,
        "seconds_after_last_step": end - last,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of each of the two runs")
    parser.add_argument("--disk", type=float, default=20, help="MB/s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    options = parser.parse_args()
    throttle(1e6 * options.disk)
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["model"]["patch"] = 8  # one token an image: many weights, little work
    tree["ladder"] = [{"name": "d4", "depth": 4, "width": 256, "images": 10**9}]
    tree["train"] |= {
        "checkpoint_seconds": 10, "time_budget_minutes": options.seconds / 60, "snapshots": 12,
        "first_snapshot": 2000, "cooldown": None, "flops": None, "batch": 16,
    }  # fmt: skip
    study = Study.parse(tree)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(study.dataset, Path(folder) / "data")
        for how, start in (("in the background", START), ("waited for", waiting_start)):
            Saver.start = start  # type: ignore[method-assign]
            found = measure(study, Path(folder) / "data", Path(folder) / how, options.disk)
            rows.append({"saves": how, **found})
    frame = pd.DataFrame(rows)
    command = "python benchmarks/train_saves.py " + " ".join(sys.argv[1:])
    facts = provenance(command=command, cores=cpu_count(), checkpoint_seconds=10)
    write_table(options.out / "train_saves.csv", frame, facts)
    print(frame.T.to_string())
    worst = float(frame["stalled_share"].iloc[0])
    sys.exit(worst > ALLOWED or float(frame["write_seconds"].min()) < 2)


if __name__ == "__main__":
    main()
