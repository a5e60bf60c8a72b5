"""Does `jstar plan` foresee what studies find? Its expected verdicts against synthetic studies.

    python benchmarks/scaling_expected.py [--studies 40] [--out results/reference/benchmarks]

Writes scaling_expected.csv: one row per (design, errors, world). said_*, width: of `studies`
studies, each simulated and judged as `jstar fit` judges a noise scale; expected_*: what the plan
says of them in two seconds. In both, alpha's width is under the floor of the world.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.records import provenance, write_table
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.expected import expect, without_floor
from jstar.scaling.joint import joint_points
from jstar.scaling.planning import MEASURED, crossing_design, stated_truth
from jstar.scaling.verdict import VERDICTS, judge

SIZES = (10_932.0, 34_780.0, 80_100.0, 153_804.0, 262_804.0, 414_012.0)
COST = tuple(66.3 * n for n in SIZES)
ERRORS = {
    "1 %, .3 %": (0.9, JointTruth(run_noise=0.01, snapshot_noise=0.003)),
    "3 %, 5 %, correlated": (0.9, MEASURED),
    "3 %, 5 %, correlated, half a floor": (0.5, MEASURED),
}


def designs() -> dict[str, StudyDesign]:
    """The old default's equal images, the plan's proposal for it, and one point a run."""
    equal = StudyDesign.even(SIZES, [220_032] * 6, 13, 1 / 14)
    equal = replace(equal, seeds=(2, 2, 1, 1, 1, 1), flops_per_image=COST)
    truth = stated_truth(equal, JointTruth(), None, 0.5)
    return {
        "equal images": equal,
        "crossing": crossing_design(equal, truth)[0],
        "isoFLOP": StudyDesign.iso_flop(SIZES, list(np.geomspace(3e11, 3e13, 5)), COST),
    }


def study(task: tuple[StudyDesign, JointTruth, int, int]) -> dict[str, object]:
    """One study simulated and judged."""
    design, truth, index, draws = task
    losses, curve = simulate_design(design, truth, 17, index)
    optimal = float(curve["loss"].iloc[0]), float(curve["stderr"].iloc[0])
    scale = judge(joint_points(losses, "loss", optimal, "size"), 0.95, draws, index)
    law = scale.laws["optimal" if truth.floor else "zero"]
    low, high = law.low["alpha"], law.high["alpha"]
    return {
        "verdict": scale.verdict,
        "width": high - low,
        "held": low <= truth.alpha <= high,
    }


def main() -> None:
    """Compare every cell and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--out", type=Path,
        default=Path(__file__).resolve().parents[1] / "results/reference/benchmarks",
    )  # fmt: skip
    options = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(options.processes) as pool:
        for name, design in designs().items():
            for label, (share, errors) in ERRORS.items():
                truth = stated_truth(design, errors, None, share)
                expected = expect(design, truth)
                for world, law in (("optimal", truth), ("zero", without_floor(design, truth))):
                    tasks = [(design, law, k, options.draws) for k in range(options.studies)]
                    found = pd.DataFrame(pool.map(study, tasks, chunksize=4))
                    row = {"design": name, "errors": label, "world": world}
                    for verdict in VERDICTS:
                        row[f"said_{verdict}"] = float((found["verdict"] == verdict).mean())
                        row[f"expected_{verdict}"] = expected.rates(world, verdict)
                    row |= {"width": found["width"].median(), "held": found["held"].mean()}
                    row["expected_width"] = expected.width if world == "optimal" else float("nan")
                    rows.append({**row, "studies": len(found)})
                    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()},
                          flush=True)  # fmt: skip
    facts = provenance(
        command=f"python benchmarks/scaling_expected.py --studies {options.studies} "
        f"--draws {options.draws}"
    )
    write_table(options.out / "scaling_expected.csv", pd.DataFrame(rows), facts)


if __name__ == "__main__":
    main()
