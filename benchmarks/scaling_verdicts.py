"""How often is a verdict wrong, and does a study know it? Whole studies through `jstar fit`'s code.

    python benchmarks/scaling_verdicts.py [--studies 200] [--out results/reference/benchmarks]

Writes scaling_verdicts.csv: one row per (design, truth). Designs: equal images for every size, so
that no sizes cross (the first default study); sizes that cross; the committed studies' own sizes
and snapshots. Truths: no floor, the floor J*, a floor above J*. `wrong` counts `corrected` or
`above` without a floor, `raw` with one, `above` where the floor is J*, and `corrected` where the
floor lies above J* by more than RESOLVED times what the study resolves. printed_*: the rates that
the studies themselves printed, on average. Below them cells whose errors are not those that the
fit assumes.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import FitConfig
from jstar.curve import read_curve
from jstar.records import provenance, write_table
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.inputs import read_losses
from jstar.scaling.noise_scales import fit_study
from jstar.scaling.verdict import ABOVE, CORRECTED, RAW, VERDICTS

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
RESOLVED = 2.0  # half widths of the floor's interval
FLAT = {"a": 0.023, "b": 0.298, "part": 0.943, "optimal": 0.9, "run_noise": 0.003,
        "snapshot_noise": 0.005, "correlation": 0.9}  # fmt: skip
FLOORS = {"no floor": 0.0, "floor J*": 1.0, "floor above J*": 1.3}
OPTIMAL = {"no floor": 0.5, "floor J*": 1.0, "floor above J*": 1.0}


def designs() -> dict[str, StudyDesign]:
    """The designs by name."""
    found = {}
    crossing = np.geomspace(1e5, 1e7, 6)
    budgets = np.geomspace(1e10, 3e12, 6) / 6 / crossing
    found["crossing"] = StudyDesign.even(crossing, list(budgets), 16, 1 / 30)
    for name, first in (("digits", 16_000), ("fashion-mnist", 16_000)):
        table = pd.read_csv(REFERENCE / name / "losses.csv")
        found[name] = StudyDesign.of_table(table[table["images"] >= first])
    return found


@dataclass(frozen=True)
class Cell:
    """Studies of one design and truth; label: what is unusual about it."""

    design: str
    truth: str
    label: str = ""
    law: dict = field(default_factory=dict)

    def joint(self) -> JointTruth:
        """The true law."""
        base = {"floor": FLOORS[self.truth], "optimal": OPTIMAL[self.truth]}
        return JointTruth(**{**base, **self.law})


def study(task: tuple[Cell, StudyDesign, int, int]) -> dict[str, object]:
    """One study: simulated, written as tables, read and fitted; what it said."""
    cell, design, index, draws = task
    truth = cell.joint()
    losses, curve = simulate_design(design, truth, 13, index)
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in (("losses", losses), ("curve", curve)):
            frame.to_csv(Path(folder) / f"{name}.csv", index=False)
        table = read_losses([Path(folder) / "losses.csv"])
        optimal = read_curve(Path(folder) / "curve.csv")
    config = FitConfig(calibration=draws, bootstrap=200, seed=index)
    scale = fit_study(table, optimal, config, None).scales[0]
    joint, law = scale.joint, scale.joint.alpha
    true_floor = truth.floor * truth.optimal
    resolved = (true_floor - joint.optimal) / joint.resolution
    said, rates = joint.verdict, joint.rates
    wrong = {
        "no floor": said in (CORRECTED, ABOVE),
        "floor J*": said in (RAW, ABOVE),
        "floor above J*": said == RAW or (said == CORRECTED and resolved > RESOLVED),
    }[cell.truth]
    envelope = scale.fits["raw" if cell.truth == "no floor" else "corrected"]
    return {
        "verdict": said,
        "wrong": wrong,
        "crossings": len(scale.edge.crossings),
        "resolved": resolved,
        "printed_corrected_if_raw": rates("zero", CORRECTED, ABOVE),
        "printed_raw_if_corrected": rates("optimal", RAW),
        "printed_above_if_corrected": rates("optimal", ABOVE),
        "printed_coverage": rates.coverage,
        "held": law is not None and law.low["alpha"] <= truth.alpha <= law.high["alpha"],
        "width": law.high["alpha"] - law.low["alpha"] if law else float("nan"),
        "floor_held": joint.laws["free"].low["E"] <= true_floor <= joint.laws["free"].high["E"],
        "envelope_status": str(scale.edge.status),
        "envelope_held": envelope.alpha_low <= truth.alpha <= envelope.alpha_high,
    }


def cells() -> list[Cell]:
    """The nine cells of every design and truth, and unusual errors for one design."""
    usual = [Cell(design, truth) for design in designs() for truth in FLOORS]
    odd = {
        "3 % run noise": {"run_noise": 0.03},
        "correlated snapshots": {"correlation": 0.9, "snapshot_noise": 0.01},
        "a .5, b .25": {"a": 0.5, "b": 0.25},
        "J* off by .5 %, no direct gap": {"optimal_error": 0.005},
    }
    hostile = Cell("digits", "no floor", "a term of N so flat that it imitates a floor", FLAT)
    return [
        *usual,
        *(Cell("digits", truth, label, law) for label, law in odd.items() for truth in FLOORS),
        hostile,
    ]


def main() -> None:
    """Run every cell and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--draws", type=int, default=300, help="fit.calibration of each study")
    parser.add_argument("--odd", type=int, default=50, help="studies of cells with unusual errors")
    parser.add_argument("--out", type=Path, default=REFERENCE / "benchmarks")
    options = parser.parse_args()
    known, rows = designs(), []
    with ProcessPoolExecutor(2) as pool:
        for cell in cells():
            name = f"{cell.design}/{cell.truth}/{cell.label}"
            count = options.odd if cell.label else options.studies
            tasks = [(cell, known[cell.design], k, options.draws) for k in range(count)]
            if not tasks:
                continue
            found = pd.DataFrame(list(pool.map(study, tasks, chunksize=5)))
            said = {f"said_{v}": float((found["verdict"] == v).mean()) for v in VERDICTS}
            means = found.drop(columns=["verdict", "envelope_status"]).astype(float).mean()
            row = {
                "design": cell.design, "truth": cell.truth, "errors": cell.label or "1 %, .3 %",
                "studies": len(found), **said, **means.to_dict(),
                "envelope": found["envelope_status"].mode()[0],
            }  # fmt: skip
            rows.append(row)
            print(
                f"{name}: wrong {row['wrong']:.3f}, alpha held {row['held']:.3f}, floor held "
                f"{row['floor_held']:.3f}, "
                + ", ".join(f"{v} {said[f'said_{v}']:.2f}" for v in VERDICTS)
                + f"; printed c|raw {row['printed_corrected_if_raw']:.3f} r|c "
                f"{row['printed_raw_if_corrected']:.3f} "
                f"a|c {row['printed_above_if_corrected']:.3f}",
                flush=True,
            )
    facts = provenance(
        command=f"python benchmarks/scaling_verdicts.py --studies {options.studies} "
        f"--odd {options.odd} --draws {options.draws}",
        resolved=RESOLVED,
    )
    write_table(options.out / "scaling_verdicts.csv", pd.DataFrame(rows), facts)


if __name__ == "__main__":
    main()
