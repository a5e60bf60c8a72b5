"""How well are averages reconstructed that were not stored? python benchmarks/averages.py

Trains two networks on the digits that store ten EMA lengths, hides all but a few, and compares
each average that `load_network` makes of these with the one that was tracked: in the weights
(relative to the tracked average), and in the direct gap, of the total and at the worst noise scale.
`nearest`: the same errors if the stored length with the nearest weights is taken instead.
Writes averages.csv.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar import averages
from jstar.config import Study
from jstar.data import open_dataset, prepare
from jstar.evaluate import measure
from jstar.noise import total_weights
from jstar.optimal.oracle import open_oracle
from jstar.optimal.stage import write_oracle
from jstar.records import provenance, read_json, write_json, write_table
from jstar.train import train
from jstar.train.snapshots import (
    list_snapshots,
    load_denoiser,
    load_network,
    run_process,
    stored_averages,
)

ROOT = Path(__file__).resolve().parents[1]
TRACKED = [0.03, 0.04, 0.05, 0.07, 0.1, 0.12, 0.15, 0.2, 0.25, 0.28]
SIZES = {"d3": (3, 24), "d5": (5, 40)}  # depth, width
RUN = {"images": 220_000, "first_snapshot": 2_000, "snapshots": 24, "ema": TRACKED}
STORED = [[0.1], [0.05, 0.1], [0.1, 0.2], [0.05, 0.2], [0.05, 0.1, 0.2]]


def compare(study: Study, model: str, folder: Path, threads: int) -> pd.DataFrame:
    """One row a (snapshot, stored lengths, length that is not among them)."""
    run = folder / model
    train(study, model, 0, folder / "data", run, folder / f"state-{model}",
          device="cpu", threads=threads)  # fmt: skip
    data, draws = open_dataset(folder / "data"), open_oracle(folder / "oracle")
    last, weight_S = list_snapshots(run)[-1].index, total_weights(run_process(run), draws.sigma)
    x0, noise = draws.x0(data), draws.noise()

    def look(place: Path, snapshot: int, length: float) -> tuple[torch.Tensor, np.ndarray]:
        """Weights, and the gap at every noise scale and of the total."""
        denoiser = load_denoiser(place, snapshot, length)
        gap_SM = measure(denoiser, x0, noise, draws.sigma,
                         posterior_mean=draws.posterior_mean).gap_SM  # fmt: skip
        gap_S = gap_SM.mean(axis=1)
        network = load_network(place, snapshot, length)
        weights = torch.cat([p.flatten() for p in network.parameters()])
        return weights, np.append(gap_S, weight_S @ gap_S)

    rows = []
    for snapshot in (last // 2, last):
        tracked = {length: look(run, snapshot, length) for length in TRACKED}
        for stored in STORED:
            hidden = folder / f"{model}-{'-'.join(map(str, stored))}"
            shutil.copytree(run, hidden, dirs_exist_ok=True)
            info = read_json(run / "run.json")
            info["config"]["train"]["ema"] = stored
            write_json(hidden / "run.json", info)
            for length in [t for t in TRACKED if t not in stored]:
                truth, gap_S = tracked[length]
                made = look(hidden, snapshot, length)
                near = min((tracked[s] for s in stored), key=lambda n: float((n[0] - truth).norm()))
                kept = stored_averages(hidden, snapshot)
                row = {"model": model, "images": kept.times[-1], "length": length,
                       "stored": " ".join(map(str, stored)),
                       "residual": kept.combine(length)[1]}  # fmt: skip
                for name, (weights, gaps) in (("", made), ("nearest_", near)):
                    off = gaps / gap_S - 1
                    row[f"{name}weights"] = float((weights - truth).norm() / truth.norm())
                    row[f"{name}total_gap"] = float(off[-1])
                    row[f"{name}worst_gap"] = float(np.abs(off).max())
                rows.append(row)
            shutil.rmtree(hidden)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bound, averages.WORST = averages.WORST, np.inf  # what is refused is measured too
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["train"] |= RUN
    tree["ladder"] = [{"name": n, "depth": d, "width": w} for n, (d, w) in SIZES.items()]
    study = Study.parse(tree)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(study.dataset, folder / "data")
        write_oracle(study, folder / "data", folder / "oracle")
        table = pd.concat([compare(study, m, folder, args.threads) for m in SIZES])
    worst = table.assign(total_gap=table["total_gap"].abs()).groupby(["stored", "length"])
    print(worst[["residual", "weights", "total_gap", "worst_gap"]].max().round(4).to_string())
    command = " ".join(["python benchmarks/averages.py", *sys.argv[1:]])
    facts = provenance(command=command, snapshots=study.train.snapshots, bound=bound)
    write_table(args.out / "averages.csv", table, facts)


if __name__ == "__main__":
    main()
