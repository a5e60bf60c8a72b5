"""Time and peak memory of the whole fit stage for a large study.

    python benchmarks/scaling_speed.py

6 sizes x 2 seeds x 17 noise scales and the total x 40 snapshots, 1,000 bootstrap draws: every law,
interval, test, sensitivity and table. The issue allows 20 s on two cores and 1 GiB.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from jstar.config import FitConfig
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits


def main() -> None:
    truth = TrueStudy(
        sizes=(1e5, 1e7, 6), seeds=2, images=(1e4, 3e6, 40),
        sigmas=tuple(np.round(np.geomspace(0.02, 80, 17), 5)),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        losses, curve = simulate_study(truth, 0)
        losses.to_csv(Path(folder) / "losses.csv", index=False)
        curve.to_csv(Path(folder) / "curve.csv", index=False)
        for kind in ("direct gap", "loss - J*"):
            if kind != "direct gap":
                losses.drop(columns=["gap", "gap_se"]).to_csv(
                    Path(folder) / "losses.csv", index=False
                )
            start = time.perf_counter()
            study = write_fits(
                [Path(folder) / "losses.csv"], Path(folder) / "curve.csv", Path(folder) / "out",
                config=FitConfig(), process="edm",
            )  # fmt: skip
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            count = sum(len(s.points) for s in study.scales) / len(study.scales)
            print(
                f"{kind}: {len(losses)} rows, {len(study.scales)} fits of {count:.0f} points: "
                f"{seconds:.1f} s, peak {peak:.2f} GiB"
            )


if __name__ == "__main__":
    main()
