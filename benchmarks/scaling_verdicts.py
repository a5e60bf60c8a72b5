"""How often is a verdict wrong, and does a study know it? Whole studies through `jstar fit`'s code.

    python benchmarks/scaling_verdicts.py [--studies 200] [--out results/reference/benchmarks]

Writes scaling_verdicts_studies.csv, what each study said (one begun is continued), and
scaling_verdicts.csv, one row per (design, truth). Designs: sizes that cross; equal images for every
size, so that none cross (digits-equal-images, the first default study); the committed studies' own
sizes and snapshots. Truths: no floor, the floor J*, a floor above J*. `wrong` counts `corrected` or
`above` without a floor, `raw` with one, `above` where the floor is J*, and `corrected` where the
floor lies above J* by more than RESOLVED times what the study resolves. printed_*: the rates that
the studies themselves printed, on average. Below them cells whose errors are not those that the
fit assumes.
"""

import argparse
import io
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import FitConfig
from jstar.curve import OptimalLoss, read_curve
from jstar.progress import Progress
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
    shipped = {"digits-equal-images": 16_000, "digits": 32_000, "fashion-mnist": 16_000}
    for name, first in shipped.items():
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


def _seed(cell: Cell) -> int:
    """A seed of the cell's own: with one for all, the luck of its draws is in every cell."""
    return zlib.crc32(f"{cell.design}, {cell.truth}, {cell.label}".encode())


def as_read(losses: pd.DataFrame, curve: pd.DataFrame) -> tuple[pd.DataFrame, OptimalLoss]:
    """Both tables as a study reads them from its files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in (("losses", losses), ("curve", curve)):
            frame.to_csv(Path(folder) / f"{name}.csv", index=False)
        return read_losses([Path(folder) / "losses.csv"]), read_curve(Path(folder) / "curve.csv")


def study(task: tuple[Cell, StudyDesign, int, int]) -> dict[str, object]:
    """One study: simulated, written as tables, read and fitted; what it said."""
    cell, design, index, draws = task
    truth = cell.joint()
    table, optimal = as_read(*simulate_design(design, truth, _seed(cell), index))
    config = FitConfig(calibration=draws, bootstrap=200, seed=index)
    with redirect_stderr(io.StringIO()):
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
    """Every design and truth, and unusual errors for one design."""
    usual = [Cell(design, truth) for design in designs() for truth in FLOORS]
    odd = {
        "3 % run noise": {"run_noise": 0.03},
        "correlated snapshots": {"correlation": 0.9, "snapshot_noise": 0.01},
        "a .5, b .25": {"a": 0.5, "b": 0.25},
        "J* off by .5 %, no direct gap": {"optimal_error": 0.005},
    }
    seeds = {
        "1 % of sizes, none of runs": {"size_noise": 0.01, "run_noise": 0.0},
        "1 % of sizes, 1 % of runs": {"size_noise": 0.01},
    }  # the digits have two seeds at small sizes, one at large ones
    hostile = Cell(
        "digits-equal-images", "no floor", "a term of N so flat that it imitates a floor", FLAT
    )
    return [
        *usual,
        *(
            Cell("digits-equal-images", truth, label, law)
            for label, law in odd.items()
            for truth in FLOORS
        ),
        *(Cell("digits", "floor J*", label, law) for label, law in seeds.items()),
        hostile,
    ]


def measure(tasks: list[tuple[Cell, StudyDesign, int, int]], raw: Path) -> pd.DataFrame:
    """What every study said; those that stand in the file `raw` already are not run again."""
    key = ["design", "truth", "errors", "index", "draws"]
    done = pd.read_csv(raw, keep_default_na=False) if raw.is_file() else pd.DataFrame(columns=key)
    known = set(done[key].itertuples(index=False, name=None))
    left = [t for t in tasks if (t[0].design, t[0].truth, t[0].label, *t[2:]) not in known]
    with ProcessPoolExecutor(2) as pool, Progress("verdicts", len(left), "studies") as bar:
        for (cell, _, index, draws), said in zip(left, pool.map(study, left), strict=True):
            row = {"design": cell.design, "truth": cell.truth, "errors": cell.label}
            frame = pd.DataFrame([{**row, "index": index, "draws": draws, **said}])
            frame.to_csv(raw, mode="a", header=not raw.is_file(), index=False)
            bar.advance(1)
    wanted = {(t[0].design, t[0].truth, t[0].label, *t[2:]) for t in tasks}
    rows = pd.read_csv(raw, keep_default_na=False)
    return rows[[k in wanted for k in rows[key].itertuples(index=False, name=None)]]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: shares of the verdicts, and means of everything else."""
    found = []
    for (design, truth, label), part in rows.groupby(["design", "truth", "errors"], sort=False):
        said = {f"said_{v}": float((part["verdict"] == v).mean()) for v in VERDICTS}
        numbers = part.drop(columns=[*part.columns[:5], "verdict", "envelope_status"])
        found.append(
            {
                "design": design, "truth": truth, "errors": label or "1 %, .3 %",
                "studies": len(part), **said,
                **numbers.replace({"True": 1, "False": 0, "": np.nan}).astype(float).mean(),
                "envelope": part["envelope_status"].mode()[0],
            }
        )  # fmt: skip
    return pd.DataFrame(found)


def _studies(cell: Cell, options: argparse.Namespace) -> int:
    """More where alpha's coverage is the question, fewer where errors are unusual."""
    if cell.label:
        return options.odd
    return options.optimal if cell.truth == "floor J*" else options.studies


def main() -> None:
    """Run every cell and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200, help="fit.calibration of each study")
    parser.add_argument("--optimal", type=int, default=400, help="studies whose floor is J*")
    parser.add_argument("--odd", type=int, default=50, help="studies of cells with unusual errors")
    parser.add_argument("--out", type=Path, default=REFERENCE / "benchmarks")
    options = parser.parse_args()
    known = designs()
    tasks = [
        (cell, known[cell.design], index, options.draws)
        for cell in cells()
        for index in range(_studies(cell, options))
    ]
    rows = measure(tasks, options.out / "scaling_verdicts_studies.csv")
    facts = provenance(
        command=f"python benchmarks/scaling_verdicts.py --studies {options.studies} "
        f"--optimal {options.optimal} --odd {options.odd} --draws {options.draws}",
        resolved=RESOLVED,
    )
    found = summary(rows)
    write_table(options.out / "scaling_verdicts.csv", found, facts)
    print(found.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
