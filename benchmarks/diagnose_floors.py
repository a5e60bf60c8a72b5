"""Does the second floor tell healthy from memorising? python benchmarks/diagnose_floors.py

Snapshots of one run on 64 images (`memorise` of benchmarks/weak_networks.py), from under-trained to
memorising, each diagnosed with held-out images. `gap`: weighted gap to J*, which memorising closes;
`above_floor`: weighted held-out loss. Writes diagnose_floors.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import avg_pool2d
from weak_networks import FEW, KINDS, SNAPSHOTS, load, scaled

from jstar.diagnose import diagnose_images, preconditioned
from jstar.diagnose.words import denoiser_verdict
from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 1000


def half_size(path: Path, count: int) -> np.ndarray:
    """The first images of a file, as the network is given them."""
    with np.load(path) as stored:
        return avg_pool2d(scaled(stored["images"][:count], KINDS["memorise"]), 2).numpy()


def main(train: Path, test: Path, work: Path, out: Path) -> None:
    torch.set_num_threads(1)
    images, held_out = half_size(train, FEW), half_size(test, HELD_OUT)
    rows = []
    for step in SNAPSHOTS:
        network = preconditioned(load("memorise", work, f"memorise-{step}"), "edm")
        found = diagnose_images(network, images, held_out=held_out, out=work / "memorise")
        frame = found.to_frame()
        weight = frame["weight"]
        rows.append({
            "step": step, "verdict": denoiser_verdict(frame), "adapter": found.adapter.verdict,
            "gap": float(weight @ frame["gap"]), "above_floor": float(weight @ frame["held_out"]),
            "loss": float(weight @ frame["loss"]), "memorised": float(frame["memorised"].max()),
            "says": found.summary().split("measured on")[0],
        })  # fmt: skip
        print(rows[-1], flush=True)
    write_table(out / "diagnose_floors.csv", pd.DataFrame(rows), provenance())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="fashion-mnist-train.npz")
    parser.add_argument("--test", type=Path, required=True, help="fashion-mnist-test.npz")
    parser.add_argument("--work", type=Path, required=True, help="of weak_networks.py")
    parser.add_argument("--out", type=Path, default=ROOT / "results/reference/benchmarks")
    asked = parser.parse_args()
    main(asked.train, asked.test, asked.work, asked.out)
