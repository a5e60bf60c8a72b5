"""The default study again and again with other seeds: does it say the same?

    python benchmarks/scaling_replicas.py [--replicas 4] [--work FOLDER] [--out FOLDER]

What no simulation can ask: errors are the runs' own, at all noise scales together. Trains and
evaluates config/digits.yaml with the seeds of every replica, about four minutes of two cores each
(begun again it continues), and fits each replica as `jstar fit` does. Writes scaling_replicas.csv,
one row per (replica, sigma): verdict, what the joint law says ahead, alpha with its interval, the
free floor; and scaling_replicas_expected.csv, how many verdicts a study of this design expects.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from jstar.config import Study
from jstar.curve import read_curve
from jstar.layout import Layout
from jstar.records import provenance, write_table
from jstar.scaling.inputs import read_losses
from jstar.scaling.noise_scales import StudyFits, fit_study

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "digits.yaml"
NAME = "replicas"


def seeds_of(entry: dict, replica: int) -> list[int]:
    """A size's seeds in a replica: as many as the default study has, and none of another's."""
    count = len(entry.get("seeds", [0]))
    return [replica * count + k for k in range(count)]


def trained(work: Path, replicas: list[int]) -> Study:
    """The study of all replicas' runs, trained and evaluated below `work`."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for entry in config["ladder"]:
        entry["seeds"] = [seed for r in replicas for seed in seeds_of(entry, r)]
    config["study"] = NAME
    path = work / f"{NAME}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ["-s", ROOT / "Snakefile", "--configfile", path, "--cores", "all", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, command), "--until", "evaluate", "optimal"],
        check=True, cwd=work,
    )  # fmt: skip
    return Study.load(path)


def rows_of(fits: StudyFits, replica: int) -> list[dict[str, object]]:
    """What one replica says at every noise scale."""
    rows = []
    for scale in fits.scales:
        joint, law = scale.joint, scale.joint.alpha
        rows.append(
            {
                "replica": replica, "sigma": scale.sigma, "verdict": joint.verdict,
                "reason": joint.reason, "alpha": law.alpha, "alpha_low": law.low["alpha"],
                "alpha_high": law.high["alpha"], "floor": joint.laws["free"].E,
                "floor_low": joint.laws["free"].low["E"],
                "floor_high": joint.laws["free"].high["E"], "optimal": joint.optimal,
                "power": joint.rates("optimal", "corrected"),
                "fitted_from": fits.onsets["fitted_from"].iloc[0], "shared_error": fits.shared,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Train what is missing, fit every replica, write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--work", type=Path, default=Path("/tmp/jstar-replicas"))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    options = parser.parse_args()
    replicas = list(range(1, options.replicas + 1))  # replica 0 is the default study itself
    study = trained(options.work, replicas)
    layout = Layout(study, options.work / "results")
    table = read_losses([layout.losses(model, seed) for model, seed in study.runs()])
    curve = read_curve(layout.curve)
    rows, expected = [], []
    for replica in replicas:
        mine = pd.concat([
            table[(table["model"] == entry["name"]) & table["seed"].isin(seeds_of(entry, replica))]
            for entry in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["ladder"]
        ])  # fmt: skip
        fits = fit_study(mine, curve, study.fit, study.process)
        rows += rows_of(fits, replica)
        expected.append(fits.expected.assign(replica=replica))
    facts = provenance(
        command=f"python benchmarks/scaling_replicas.py --replicas {options.replicas}"
    )
    frame = pd.DataFrame(rows)
    write_table(options.out / "scaling_replicas.csv", frame, facts)
    write_table(options.out / "scaling_replicas_expected.csv", pd.concat(expected), facts)
    print(
        frame.pivot_table(
            index="sigma", columns="replica", values="verdict", aggfunc="first"
        ).to_string()
    )


if __name__ == "__main__":
    main()
