"""Verdicts of studies whose runs leave a plateau, with and without the onset of the joint law.

    python benchmarks/scaling_onset.py [--studies 60] [--out results/reference/benchmarks]

The default study's own sizes, snapshots and seeds. After the law's gap come 50 % more of it until
about 80,000 images, as much as the digits' runs show; the plateau ends in the same images at every
size, or in ever more of them. Truths as in scaling_verdicts.py; beside them the same studies
without a plateau. Writes scaling_onset.csv, one row per (truth, plateau, onset): how often each
verdict was said, was wrong, and how often alpha's interval held the true one.
"""

import argparse
import io
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
from scaling_verdicts import FLOORS, OPTIMAL, REFERENCE, as_read, designs

from jstar.config import FitConfig
from jstar.progress import Progress
from jstar.records import provenance, write_table
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.noise_scales import fit_study
from jstar.scaling.verdict import ABOVE, CORRECTED, RAW, VERDICTS

# Sure enough for words without a plateau.
NOISE = {"run_noise": 0.01, "snapshot_noise": 0.005, "correlation": 0.5}
PLATEAUS = {"none": None, "at the same images": 0.0, "later at larger sizes": 0.15}
HEIGHT, ENDS, WIDTH = 0.5, 80_000, 0.2  # of the gap; images; ln D


def study(task: tuple[StudyDesign, str, str, bool, int]) -> dict[str, object]:
    """One study: what it said."""
    design, world, plateau, onset, index = task
    truth = JointTruth(floor=FLOORS[world], optimal=OPTIMAL[world], **NOISE)
    losses, curve = simulate_design(design, truth, 5, index)
    optimal, power = float(curve["loss"].iloc[0]), PLATEAUS[plateau]
    if power is not None:
        ends = ENDS * (losses["params"] / losses["params"].median()) ** power
        more = HEIGHT / (1 + np.exp(np.log(losses["images"] / ends) / WIDTH))
        losses["loss"] += more * (losses["loss"] - truth.floor * truth.optimal)
    losses["gap"] = losses["loss"] - optimal
    table, known = as_read(losses, curve)
    config = FitConfig(calibration=200, bootstrap=100, seed=index, onset=onset)
    with redirect_stderr(io.StringIO()):
        found = fit_study(table, known, config, None)
    joint, law = found.scales[0].joint, found.scales[0].joint.alpha
    return {
        "truth": world, "plateau": plateau, "onset": onset, "verdict": joint.verdict,
        "wrong": joint.verdict in {"no floor": (CORRECTED, ABOVE), "floor J*": (RAW, ABOVE),
                                   "floor above J*": (RAW,)}[world],
        "held": law is not None and law.low["alpha"] <= truth.alpha <= law.high["alpha"],
        "fitted_from": float(found.onsets["fitted_from"].iloc[0]),
    }  # fmt: skip


def main() -> None:
    """Run every cell and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--out", type=Path, default=REFERENCE / "benchmarks")
    options = parser.parse_args()
    design = designs()["digits"]
    tasks = [
        (design, world, plateau, onset, index)
        for world in FLOORS
        for plateau in PLATEAUS
        for onset in (True, False)
        for index in range(options.studies)
    ]
    with ProcessPoolExecutor(2) as pool, Progress("onset", len(tasks), "studies") as bar:
        rows = []
        for row in pool.map(study, tasks):
            rows.append(row)
            bar.advance(1)
    frame = pd.DataFrame(rows)
    for verdict in VERDICTS:
        frame[f"said_{verdict}"] = frame["verdict"] == verdict
    found = frame.drop(columns="verdict").groupby(["truth", "plateau", "onset"], sort=False)
    found = found.mean().reset_index().assign(studies=options.studies)
    command = f"python benchmarks/scaling_onset.py --studies {options.studies}"
    write_table(options.out / "scaling_onset.csv", found, provenance(command=command))
    print(found.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
