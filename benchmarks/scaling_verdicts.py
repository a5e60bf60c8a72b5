"""How often is which law called the winner, where the truth is known?

    python benchmarks/scaling_verdicts.py [--studies 400] [--out results/reference/benchmarks]

Writes scaling_verdicts.csv: raw truths with a J* given all the same, corrected truths, and the
published total-loss law J = 0.3675 F^-0.014 + 0.015 (arXiv 2506.13763) over three decades; and
scaling_verdicts_optimal.csv: raw and corrected truths with a J* that is off by its own error.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.records import provenance, write_table
from jstar.scaling.compare import compare
from jstar.scaling.fit import fit_points
from jstar.scaling.laws import LawPoints
from jstar.scaling.simulate import TrueLaw, simulate_points

PUBLISHED = (0.3675, -0.014, 0.015)


@dataclass(frozen=True)
class Case:
    """truth: raw, corrected or published. share: J* as a share of the smallest (raw truth) or
    middle loss. noise: from run to run, of the response of the true law; half of it within a run.
    error: standard error of J*, by which it is off, as a share of the smallest gap; the gap is then
    loss - J*.
    """

    truth: str
    share: float
    runs: int
    noise: float
    error: float = 0.0


def points_of(case: Case, index: int) -> LawPoints:
    """The case's points; with `error`, under a J* drawn around the right one."""
    exact = exact_points(case, index)
    if not case.error:
        return exact
    gap = exact.loss - exact.optimal
    error = case.error * float(gap.min())
    off = error * np.random.default_rng([2, index]).standard_normal()
    return replace(exact, gap=gap - off, optimal=exact.optimal + off, optimal_se=error,
                   direct=False)  # fmt: skip


def exact_points(case: Case, index: int) -> LawPoints:
    base = TrueLaw(-0.15, 0.0, case.runs, run_noise=case.noise, point_noise=case.noise / 2)
    if case.truth == "corrected":
        return simulate_points(replace(base, optimal_share=case.share), 1, index)
    made = simulate_points(base, 1, index)
    if case.truth == "raw":
        optimal = case.share * float(made.gap.min())
        return replace(made, loss=made.gap, gap=made.gap - optimal, optimal=optimal, direct=False)
    beta, alpha, floor = PUBLISHED
    flops = made.flops * 10**1.5
    luck = made.gap / np.exp(base.alpha * (np.log(made.flops) - 18 * np.log(10)))
    loss = (beta * flops**alpha + floor) * luck
    return replace(made, flops=flops, loss=loss, gap=loss - floor, optimal=floor, direct=False)


def run(job: tuple[Case, int]) -> dict:
    case, studies = job
    verdict = []
    for index in range(studies):
        points = points_of(case, index)
        raw, corrected = fit_points(points, "raw"), fit_points(points, "corrected")
        verdict.append(compare(points, raw, corrected, level=0.05, draws=400, seed=index).verdict)
    shares = {v: verdict.count(v) / studies for v in ("corrected", "raw", "undecided")}
    return {**case.__dict__, "studies": studies, **shares}


def cases() -> list[Case]:
    return [
        Case(truth, share, runs, noise)
        for runs in (4, 6, 8)
        for truth, shares, noises in (
            ("raw", (0.02, 0.2, 0.5), (0.005,)),
            ("corrected", (0.02, 0.5, 0.9), (0.01,)),
            ("published", (0.0,), (0.0005, 0.002, 0.005)),
        )
        for share in shares
        for noise in noises
    ]


def cases_off() -> list[Case]:
    """J* off by its own error."""
    return [
        Case(truth, share, 6, noise, error)
        for truth, share, noise in (
            ("raw", 0.2, 0.005), ("raw", 0.5, 0.005),
            ("corrected", 0.5, 0.01), ("corrected", 0.9, 0.01),
        )
        for error in (0.05, 0.2)
    ]  # fmt: skip


TABLES = {"scaling_verdicts": cases, "scaling_verdicts_optimal": cases_off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/benchmarks"))
    options = parser.parse_args()
    facts = provenance(command="python benchmarks/scaling_verdicts.py", level=0.05)
    for name in options.tables:
        with ProcessPoolExecutor(2) as pool:
            jobs = [(case, options.studies) for case in TABLES[name]()]
            table = pd.DataFrame(pool.map(run, jobs))
        write_table(options.out / f"{name}.csv", table, facts)
        print(table.to_string())


if __name__ == "__main__":
    main()
