"""Coverage of the headline interval: does a 95 % interval hold the true exponent 95 times of 100?

    python benchmarks/scaling_coverage.py [--studies 800] [--out results/reference/benchmarks]

Writes scaling_coverage.csv (a grid of truths), scaling_coverage_optimal.csv (J* off by its own
error, with that error in the interval and without), scaling_coverage_frontier.csv (whole learning
curves, from which the frontier is taken first) and scaling_coverage.png.
"""

import argparse
import itertools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from jstar.figures.style import COLUMN, legend, new_figure
from jstar.records import provenance, write_atomically, write_table
from jstar.scaling.fit import fit_points
from jstar.scaling.frontier import frontier
from jstar.scaling.intervals import bootstrap
from jstar.scaling.laws import LawPoints
from jstar.scaling.noise_scales import points_of_rows, with_gap
from jstar.scaling.simulate import TrueLaw, TrueStudy, simulate_points, simulate_study

SHARES = (0.0, 0.5, 0.95)
ALPHAS = (-0.02, -0.1, -0.4)
RUNS = (4, 6, 8)
NOISES = (0.0005, 0.02)


def coverage(
    truth: TrueLaw, studies: int, draws: int, seed: int, *, propagate: bool = True
) -> dict:
    """Share of studies whose interval holds the truth, and the bias of alpha in its own SD."""

    def points(index: int) -> LawPoints:
        made = simulate_points(truth, seed, index)
        return made if propagate else replace(made, optimal_se=0.0)

    found = held(points, truth.alpha, studies, draws)
    return {**asdict(truth), "propagated": propagate, **found}


def frontier_coverage(truth: TrueStudy, cluster: str, studies: int, draws: int) -> dict:
    """The same for frontiers of whole studies, sizes and seeds with their learning curves."""

    def points(index: int) -> LawPoints:
        losses, curve = simulate_study(truth, 0, index)
        optimal = float(curve["loss"].iloc[0]), float(curve["stderr"].iloc[0])
        rows, direct = with_gap(losses, optimal[0])
        return points_of_rows(frontier(rows, value="gap_fit").points, optimal, direct, cluster)

    setting = {"alpha": truth.alpha, "seeds": truth.seeds, "run_noise": truth.run_noise}
    return {**setting, "cluster": cluster, **held(points, truth.alpha, studies, draws)}


def held(make: Callable[[int], LawPoints], alpha: float, studies: int, draws: int) -> dict:
    """Coverage and bias over `studies` sets of points."""
    ends, alphas = np.full((studies, 2), np.nan), np.full(studies, np.nan)
    for index in range(studies):
        points = make(index)
        fit = fit_points(points, "corrected")
        if fit.ok:
            alphas[index] = fit.alpha
            ends[index] = bootstrap(points, fit, draws, index).interval(0.95)
    inside = (ends[:, 0] <= alpha) & (alpha <= ends[:, 1])
    good = np.isfinite(alphas)
    return {
        "studies": studies,
        "fitted": int(good.sum()),
        "coverage": float(inside[good].mean()),
        "coverage_se": float(np.sqrt(0.05 * 0.95 / good.sum())),
        "bias_over_sd": float((alphas[good].mean() - alpha) / alphas[good].std(ddof=1)),
        "sd": float(alphas[good].std(ddof=1)),
        "median_width": float(np.median((ends[:, 1] - ends[:, 0])[good])),
    }


def grid() -> list[TrueLaw]:
    """Every combination; the gap is made by subtraction wherever J* is not zero."""
    truths = []
    for share, alpha, runs, noise in itertools.product(SHARES, ALPHAS, RUNS, NOISES):
        truths.append(
            TrueLaw(alpha, share, runs, run_noise=noise, point_noise=noise / 2, direct=share == 0)
        )
    return truths


def off_by_its_error(share: float, relative: float) -> TrueLaw:
    """J* is `share` of the loss, its error `relative` of the smallest gap."""
    truth = TrueLaw(-0.1, share, 6, run_noise=0.005, point_noise=0.002, direct=False)
    smallest = (1 - share) * 10 ** (truth.alpha * truth.decades / 2)
    return replace(truth, optimal_error=relative * smallest / share)


def run(job: tuple[TrueLaw, int, int, int, bool]) -> dict:
    truth, studies, draws, seed, propagate = job
    return coverage(truth, studies, draws, seed, propagate=propagate)


def run_frontier(job: tuple[TrueStudy, str, int, int]) -> dict:
    return frontier_coverage(*job)


def figure(table: pd.DataFrame, path: Path) -> None:
    """Coverage of every cell, by number of runs, with the range that is allowed."""
    mpl.use("Agg")
    drawing, axes = new_figure(1, 1, COLUMN, 2.6)
    panel = axes[0, 0]
    rng = np.random.default_rng(0)
    for alpha, marker in zip(ALPHAS, "osv", strict=True):
        rows = table[table["alpha"] == alpha]
        jitter = rng.uniform(-0.35, 0.35, len(rows))
        panel.plot(rows["runs"] + jitter, 100 * rows["coverage"], marker, ms=4, mfc="none",
                   label=rf"$\alpha={alpha:g}$")  # fmt: skip
    panel.axhspan(92, 98, color="#dddddd", zorder=0, label="92 to 98 %")
    panel.axhline(95, color="#888888", lw=0.7)
    panel.set(xlabel="training runs on the frontier", xticks=RUNS)
    panel.set_ylabel(r"95 % intervals that hold $\alpha$ (%)")
    legend(drawing, panel.get_legend_handles_labels()[0])
    write_atomically(path, lambda p: drawing.savefig(p, dpi=300))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=800)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/reference/benchmarks"))
    options = parser.parse_args()
    size = options.studies, options.draws
    # Every cell has studies of its own: alpha and J* only shift and stretch the same points.
    jobs = [(truth, *size, seed, True) for seed, truth in enumerate(grid())]
    errors = [
        (off_by_its_error(share, relative), *size, 1000 + seed, propagate)
        for seed, (share, relative) in enumerate(itertools.product((0.5, 0.9), (0.02, 0.1, 0.2)))
        for propagate in (True, False)
    ]
    whole = [
        (TrueStudy(seeds=seeds, run_noise=noise, sigmas=(1.0,)), cluster, *size)
        for seeds, noise, cluster in (
            (1, 0.002, "size"), (1, 0.02, "size"), (2, 0.002, "size"), (2, 0.002, "run"),
            (2, 0.02, "size"), (2, 0.02, "run"),
        )
    ]  # fmt: skip
    with ProcessPoolExecutor(2) as pool:
        table = pd.DataFrame(pool.map(run, jobs))
        optimal = pd.DataFrame(pool.map(run, errors))
        edges = pd.DataFrame(pool.map(run_frontier, whole))
    facts = provenance(command="python benchmarks/scaling_coverage.py", draws=options.draws)
    write_table(options.out / "scaling_coverage.csv", table, facts)
    write_table(options.out / "scaling_coverage_optimal.csv", optimal, facts)
    write_table(options.out / "scaling_coverage_frontier.csv", edges, facts)
    figure(table, options.out / "scaling_coverage.png")
    for name, frame in (("grid", table), ("frontiers", edges)):
        print(f"{name}: coverage {frame['coverage'].min():.3f} to {frame['coverage'].max():.3f}, "
              f"largest bias {frame['bias_over_sd'].abs().max():.2f} SD")  # fmt: skip
    print(edges[["seeds", "run_noise", "cluster", "coverage", "bias_over_sd"]].to_string())
    print(optimal[["optimal_share", "optimal_error", "propagated", "coverage"]].to_string())


if __name__ == "__main__":
    main()
