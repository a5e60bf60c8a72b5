"""Is the rate that short trials choose the best of whole runs? python benchmarks/tune.py

Trains sizes of the digits study in full at many rates (steps of 1.3) and measures every snapshot.
The rate is constant, so a snapshot is what a trial of that length ends with: one sweep says which
rate is best at every length, and what `jstar tune` would choose there by its own factors.
`regret_percent`: loss of the whole run at the chosen rate above that at its own best, both by a
cubic in ln rate through all whole runs, because single ones have luck (`scatter_percent`);
`prior_regret_percent`: the same at the width rule's rate; `cost_percent`: what tune itself says.
Writes tune_sweep.csv and tune_transfer.csv. Resumes: runs that are finished stay in --work.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import Study
from jstar.data import open_dataset, prepare
from jstar.evaluate import write_losses
from jstar.layout import Layout
from jstar.optimal.stage import write_oracle
from jstar.records import provenance, write_table
from jstar.train import train
from jstar.train.events import run_events
from jstar.tune.minimum import Minimum, find_minimum, next_rate
from jstar.tune.trials import prior_rate

ROOT = Path(__file__).resolve().parents[1]
STEP = 1.3
SHARES = (0.05, 0.1, 0.2, 0.4, 1.0)


def one_run(layout: Layout, name: str, rate: float, threads: int) -> pd.DataFrame:
    """Total loss and gap of every snapshot of a whole run at one rate."""
    tree = layout.study.model_dump(mode="json")
    entry = next(e for e in tree["ladder"] if e["name"] == name)
    images = run_events(layout.study, name, open_dataset(layout.data).card.shape).images
    tree["ladder"] = [{**entry, "learning_rate": rate}]
    first = int(SHARES[0] * images)
    tree["train"] |= {"snapshots": 14, "first_snapshot": first}
    tree["tune"] = {}
    study = Study.parse(tree)
    out = layout.root / "sweep" / f"{name}-{rate:g}"
    if not (out / "losses.json").is_file():
        if not train(study, name, 0, layout.data, out, out / "state", device="cpu",
                     threads=threads).finished:  # fmt: skip
            raise SystemExit(f"{out}: asked to stop, start me again")
        write_losses(study, out, layout.data, layout.oracle, out / "losses.csv", out / "state",
                     "cpu")  # fmt: skip
    losses = pd.read_csv(out / "losses.csv")
    rows = losses[(losses["sigma"] == "total") & (losses["split"] == "train")]
    return rows.assign(model=name, rate=rate, share=rows["images"] / images)


def at_share(rows: pd.DataFrame, share: float, floor: float) -> dict[float, float]:
    """Loss of every rate at the snapshot nearest to a share of the run."""
    shares = rows["share"].unique()
    near = shares[np.argmin(np.abs(np.log(shares / share)))]
    chosen = rows[rows["share"] == near]
    return dict(zip(chosen["rate"], floor + chosen["gap"], strict=True))


def between(loss_of: dict[float, float], rate: float) -> float:
    """Loss at any rate, in ln and ln: between the runs, and on beyond the first and the last."""
    rates = np.array(sorted(loss_of))
    k = int(np.clip(np.searchsorted(rates, rate), 1, len(rates) - 1))
    x, y = np.log(rates[k - 1 : k + 1]), np.log([loss_of[r] for r in rates[k - 1 : k + 1]])
    return float(np.exp(y[0] + (np.log(rate) - x[0]) * (y[1] - y[0]) / (x[1] - x[0])))


def smooth(loss_of: dict[float, float]) -> tuple[float, dict[float, float], float]:
    """Best rate, losses and scatter by the cubic in ln rate through all: single runs have luck."""
    rates = np.array(sorted(loss_of))
    x, y = np.log(rates), np.log([loss_of[rate] for rate in rates])
    cubic = np.polyfit(x, y, 3)
    fine = np.linspace(x[0], x[-1], 1000)
    goal = float(np.exp(fine[np.polyval(cubic, fine).argmin()]))
    rest = y - np.polyval(cubic, x)
    scatter = float(np.sqrt(rest @ rest / (len(x) - 4)))
    dense = {float(np.exp(v)): float(np.exp(np.polyval(cubic, v))) for v in fine}
    return goal, dense, scatter


def chosen(loss_of: dict[float, float], prior: float, factors: list[float]) -> tuple[Minimum, int]:
    """What `jstar tune` chooses from such losses, and after how many trials."""
    tried: dict[float, float] = {}
    while (rate := next_rate(tried, prior, factors)) is not None:
        tried[rate] = between(loss_of, rate)
    rates = np.array(sorted(tried))
    return find_minimum(rates, np.array([tried[rate] for rate in rates]), 0), len(tried)


def transfer(sweep: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row per size and share."""
    rows = []
    for name, runs in sweep.groupby("model"):
        floor = float((runs["loss"] - runs["gap"]).mean())
        prior = prior_rate(study, name)
        goal, whole, _ = smooth(at_share(runs, 1.0, floor))
        least = min(whole.values())
        for share in SHARES:
            here = at_share(runs, share, floor)
            found, trials = chosen(here, prior, study.tune.factors)
            rows.append({
                "model": name, "width": study.width(name), "share": share, "prior_rate": prior,
                "best_rate": smooth(here)[0], "scatter_percent": 100 * smooth(here)[2],
                "chosen_rate": found.rate, "trials": trials,
                "cost_percent": 100 * found.cost,
                "whole_best_rate": goal, "whole_loss": least,
                "gap_share": 1 - floor / least,
                "regret_percent": 100 * (between(whole, found.rate) / least - 1),
                "prior_regret_percent": 100 * (between(whole, prior) / least - 1),
            })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "digits.yaml")
    parser.add_argument("--sizes", nargs="+", default=["w12", "w24", "w40"])
    parser.add_argument("--below", type=int, default=2, help="rates below the prior")
    parser.add_argument("--above", type=int, default=5, help="rates above it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    args = parser.parse_args()
    study = Study.load(args.config)
    layout = Layout(study, args.work)
    if not (layout.oracle / "oracle.json").is_file():
        prepare(study.dataset, layout.data)
        write_oracle(study, layout.data, layout.oracle)
    frames = []
    for name in args.sizes:
        for k in range(-args.below, args.above + 1):
            rate = float(f"{prior_rate(study, name) * STEP**k:.3g}")
            frames.append(one_run(layout, name, rate, args.threads))
    columns = ["model", "params", "rate", "images", "share", "loss", "gap", "gap_se"]
    sweep = pd.concat(frames, ignore_index=True)[columns]
    table = transfer(sweep, study)
    print(table.round(5).to_string(index=False))
    facts = provenance(command=" ".join(["python benchmarks/tune.py", *sys.argv[1:]]))
    write_table(args.out / "tune_sweep.csv", sweep, facts)
    write_table(args.out / "tune_transfer.csv", table, facts)


if __name__ == "__main__":
    main()
