"""Time and peak memory of the whole fit stage: `python benchmarks/scaling_speed.py [--out FOLDER]`

The committed tables of the default study, and a large simulated one (6 sizes x 2 seeds x 17 noise
scales and the total x 40 snapshots): every law, calibration, interval, test and table, each in a
process of its own, with 1,000 bootstrap draws and as many studies behind every verdict as stated;
joint laws solved in C, and by NumPy as where no compiler is. Writes scaling_speed.csv: wall-clock
and processor seconds, GiB.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import FitConfig, Study
from jstar.hardware import cpu_name
from jstar.records import provenance, write_table
from jstar.scaling.fast_solve import kernel
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"


def tables(case: str, folder: Path) -> tuple[Path, Path]:
    """Losses and J* of a case."""
    if case == "default study":
        return REFERENCE / "digits" / "losses.csv", REFERENCE / "digits" / "curve.csv"
    truth = TrueStudy(
        sizes=(1e5, 1e7, 6), seeds=2, images=(1e4, 3e6, 40),
        sigmas=tuple(np.round(np.geomspace(0.02, 80, 17), 5)),
    )  # fmt: skip
    losses, curve = simulate_study(truth, 0)
    if case == "large study, loss - J*":
        losses = losses.drop(columns=["gap", "gap_se"])
    losses.to_csv(folder / "losses.csv", index=False)
    curve.to_csv(folder / "curve.csv", index=False)
    return folder / "losses.csv", folder / "curve.csv"


def timed(case: str, calibration: int, solver: str) -> dict[str, object]:
    """One fit, in this process alone."""
    os.environ["JSTAR_NATIVE"] = str(int(solver == "C"))
    if (kernel() is not None) != (solver == "C"):
        raise SystemExit("no C compiler here")
    config = Study.load(ROOT / "config" / "digits.yaml").fit if case == "default study" else None
    config = (config or FitConfig()).model_copy(update={"calibration": calibration})
    with tempfile.TemporaryDirectory() as name:
        losses, curve = tables(case, Path(name))
        start, before = time.perf_counter(), os.times()
        study = write_fits([losses], curve, Path(name) / "out", config=config, process="edm")
        wall, after = time.perf_counter() - start, os.times()
    points = sum(len(s.points) for s in study.scales) / len(study.scales)
    return {
        "case": case, "solver": solver, "calibration": calibration, "bootstrap": config.bootstrap,
        "noise_scales": len(study.scales), "points": round(points), "wall_seconds": wall,
        "processor_seconds": sum(after[:4]) - sum(before[:4]),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def main() -> None:
    """Time every case and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=REFERENCE / "benchmarks")
    options = parser.parse_args()
    tasks = [("default study", 300), ("default study", 1000)]
    tasks += [("large study, direct gap", 300), ("large study, loss - J*", 300)]
    rows = []
    for task in ((*task, solver) for task in tasks for solver in ("C", "NumPy")):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(timed, *task).result())
        print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.2f"), flush=True)
    facts = provenance(
        command="python benchmarks/scaling_speed.py", cores=os.cpu_count(), device=cpu_name()
    )
    write_table(options.out / "scaling_speed.csv", pd.DataFrame(rows), facts)


if __name__ == "__main__":
    main()
