"""How long training stands still for checkpoints: python benchmarks/train_saves.py --seconds 300.

Trains a network on the digits, on a CPU, where a checkpoint takes at least two seconds to write:
the disk is simulated, the writer sleeps after each block as long as one of --disk MB/s would take
(benchmarks/throttle.py). Once as a run does it, in the background, and once waiting for every file,
as a trainer without a saver would. Writes train_saves.csv; exit status 1 if the first stands still
for more than 1 % of its time. The wait after the last step is once a run, and stands apart.

With --processes 2 several train under DDP, whose first rank writes, and under FSDP, where each
writes its part at its share of --disk; what is told is of the rank that stood still longest.
Writes train_saves_ranks.csv.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from throttle import throttle
from train_kill import ranks

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
        "write_seconds": min(seconds, default=0.0), "wall_seconds": wall, "images": images,
        "stalled_seconds": facts["saving"], "stalled_share": facts["saving"] / wall,
        "seconds_after_last_step": end - last,
    }  # fmt: skip


def rows_of_one(study: Study, data: Path, folder: Path, disk: float) -> list[dict[str, Any]]:
    """One process, both ways."""
    throttle(1e6 * disk)
    rows = []
    for how, start in (("in the background", START), ("waited for", waiting_start)):
        Saver.start = start  # type: ignore[method-assign]
        rows.append({"saves": how, **measure(study, data, folder / how, disk)})
    return rows


def be_rank(folder: Path, disk: float, waits: bool) -> None:
    """One of several processes: writes what it measured to RANK.json."""
    throttle(1e6 * disk)
    if waits:
        Saver.start = waiting_start  # type: ignore[method-assign]
    study = Study.load(folder / "study.yaml")
    found = measure(study, folder.parent / "data", folder, disk)
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def rows_of_several(
    study: Study, data: Path, folder: Path, disk: float, count: int
) -> list[dict[str, Any]]:  # fmt: skip
    """Several processes by torchrun: DDP and FSDP, and FSDP both ways."""
    rows = []
    for parallel, waits in (("ddp", False), ("fsdp", False), ("fsdp", True)):
        here = folder / f"{parallel}{waits}"
        here.mkdir()
        train = study.train.model_copy(update={"parallel": parallel})
        tree = study.model_copy(update={"train": train}).model_dump(mode="json")
        (here / "study.yaml").write_text(yaml.safe_dump(tree))
        own = disk / count if parallel == "fsdp" else disk
        command = [sys.executable, __file__, "--rank", str(here), "--disk", str(own)]
        done = [p.wait() for p in ranks([*command, *["--waits"] * waits], count)]
        if any(done):
            sys.exit(f"{parallel}: the processes ended with status {done}")
        told = [json.loads((here / f"{rank}.json").read_text()) for rank in range(count)]
        worst = max(told, key=lambda found: found["stalled_share"])
        writers = [found for found in told if found["checkpoints"]]
        for key in ("checkpoints", "write_seconds"):  # under DDP the second rank has none
            worst[key] = min(found[key] for found in writers)
        how = "waited for" if waits else "in the background"
        rows.append({"parallel": parallel, "processes": count, "saves": how, **worst})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of each of the runs")
    parser.add_argument("--disk", type=float, default=20, help="MB/s")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)  # be one of several
    parser.add_argument("--waits", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        be_rank(options.rank, options.disk, options.waits)
        return
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["model"]["patch"] = 8  # one token an image: many weights, little work
    tree["ladder"] = [{"name": "d4", "depth": 4, "width": 256, "images": 10**9}]
    tree["train"] |= {
        "checkpoint_seconds": 10, "time_budget_minutes": options.seconds / 60, "snapshots": 12,
        "first_snapshot": 2000, "cooldown": None, "flops": None, "batch": 16,
    }  # fmt: skip
    study, several = Study.parse(tree), options.processes > 1
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare(study.dataset, data)
        given = (study, data, Path(folder), options.disk)
        rows = rows_of_several(*given, options.processes) if several else rows_of_one(*given)
    frame = pd.DataFrame(rows)
    command = "python benchmarks/train_saves.py " + " ".join(sys.argv[1:])
    facts = provenance(command=command, cores=cpu_count(), checkpoint_seconds=10)
    name = "train_saves_ranks.csv" if several else "train_saves.csv"
    write_table(options.out / name, frame, facts)
    print(frame.T.to_string())
    background = frame[frame["saves"] == "in the background"]
    worst = float(background["stalled_share"].max())
    sys.exit(worst > ALLOWED or float(frame["write_seconds"].min()) < 2)


if __name__ == "__main__":
    main()
