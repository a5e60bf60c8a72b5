"""All estimators and forms of J* side by side on one dataset, as tidy tables for the figures.

estimators.csv: exact, DOL, cDOL and SNIS at every noise scale, with the two-sided bound.
convergence.csv: DOL, cDOL and SNIS at one noise scale against the number of subsets, their size L
and the constant C. forms.csv: standard errors of the exact estimator's forms from the same draws,
and what they cost (arXiv 2506.13763, figures 1, 4 and 5).
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar.config import OptimalConfig, estimator_conflict
from jstar.curve import OptimalLoss
from jstar.data.store import Dataset
from jstar.errors import JstarError
from jstar.optimal.exact.data_moments import DataMoments
from jstar.optimal.exact.pair_form import ControlledPairForm, PairForm
from jstar.optimal.exact.problem import Advance, ExactProblem, Floats, pose_problem
from jstar.optimal.optimal_loss import curve_of_draws, sums_of_draws
from jstar.optimal.oracle import dataset_points
from jstar.optimal.paper.moment_form import MomentForm
from jstar.optimal.paper.subsets import SUBSET_ESTIMATORS, SubsetPlan, standard_errors, subset_means
from jstar.optimal.points import DataPoints
from jstar.progress import Progress
from jstar.records import provenance, write_table
from jstar.torch_device import default_device

TRANSITION = 0.1  # of the variance: J* where the estimators differ most
SUBSETS = 16  # in the convergence over subsets
SIZES = (64, 16, 4, 1)  # L = N / these, if it fits
LARGEST_SUBSET = 32_768
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)  # C in units of N / L
SUBSET_DRAWS = 128  # of each subset


def write_comparison(
    dataset: Dataset, sigmas: list[float], config: OptimalConfig, out: Path
) -> None:
    """Write estimators.csv, convergence.csv and forms.csv of the dataset to the folder `out`.

    Draws, seed, subset, repeats and C are those of `config`. Raises JstarError for sampled latents,
    for which only the exact estimator exists.
    """
    conflict = estimator_conflict("dol", sampled=dataset.stds_NCHW is not None)
    if conflict:
        raise JstarError(f"dataset '{dataset.card.name}': {conflict}")
    points = dataset_points(dataset)
    problem = pose_problem(
        points, sigmas, estimator="exact", queries=config.queries, seed=config.seed
    )
    with Progress(f"forms {dataset.card.name}", 2 * len(points), "points") as bar:
        sums = sums_of_draws(problem, PairForm(), advance=bar.advance)
        exact = curve_of_draws(problem, ControlledPairForm(), sums)
        by_form = compare_forms(problem, sums, exact, bar.advance)
    plan = SubsetPlan(config.subset, config.repeats, config.own_weight)
    facts = provenance(
        card_id=dataset.card.id, dataset=dataset.card.name, count=len(points), dim=points.dim,
        variance=exact.variance, queries=len(problem.source_M), seed=config.seed,
        subset=plan.size(len(points)), subset_draws=SUBSET_DRAWS, closure=exact.closure[0],
        log_count=exact.closure[1], threads=torch.get_num_threads(),
    )  # fmt: skip
    write_table(out / "forms.csv", by_form, facts)
    for name, compare in (("estimators", compare_estimators), ("convergence", compare_convergence)):
        table = compare(points, problem.moments, exact, plan, config.seed)
        write_table(out / f"{name}.csv", table, facts)


def compare_forms(
    problem: ExactProblem, sums_BAMSF: Floats, exact: OptimalLoss, advance: Advance
) -> pd.DataFrame:
    """One row per (noise scale, form): loss, stderr, and flops of all draws at all noise scales.

    The two products of the whole curve are 4 M N D FLOPs; the moment form adds 2 M N D for every
    noise scale and sign. `moment, random draws` is the paper's: sources drawn at random, so its
    error counts the spread over the images that ours takes out by its systematic sample.
    """
    points, draws = problem.points, len(problem.source_M)
    values = sums_of_draws(problem, MomentForm(), advance=advance)
    moment = curve_of_draws(problem, MomentForm(), values)
    unit = points.scale**2 / points.dim
    random = unit * values[0, 0, :, :, 0].std(axis=0, ddof=1) / np.sqrt(draws)
    pair = curve_of_draws(problem, PairForm(), sums_BAMSF)
    products = 4.0 * draws * len(points) * points.dim
    third = 0.5 * products * len(problem.sigma_S) * problem.signs
    columns = (
        ("moment, random draws", moment, random, products + third),
        ("moment", moment, moment.stderr, products + third),
        ("pair", pair, pair.stderr, products),
        ("pair+controls", exact, exact.stderr, products),
    )
    tables = [
        pd.DataFrame({"sigma": curve.sigma, "form": name, "loss": curve.loss, "stderr": stderr_S,
                      "flops": flops})
        for name, curve, stderr_S, flops in columns
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def compare_estimators(
    points: DataPoints, moments: DataMoments, exact: OptimalLoss, plan: SubsetPlan, seed: int
) -> pd.DataFrame:
    """One row per (noise scale, estimator): loss and stderr."""
    size, constant = plan.size(len(points)), plan.constant(len(points))
    mean_ERS = subset_means(
        points, moments, exact.sigma, size, [constant], plan.repeats,
        plan.repeats * SUBSET_DRAWS, seed, default_device(None),
    )  # fmt: skip
    losses = (exact.loss, *mean_ERS.mean(axis=1))
    errors = (exact.stderr, *standard_errors(mean_ERS))
    tables = [
        pd.DataFrame({"sigma": exact.sigma, "estimator": name, "loss": loss_S, "stderr": error_S})
        for name, loss_S, error_S in zip(("exact", *SUBSET_ESTIMATORS), losses, errors, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def compare_convergence(
    points: DataPoints, moments: DataMoments, exact: OptimalLoss, plan: SubsetPlan, seed: int
) -> pd.DataFrame:
    """One row per (what varies, its value, estimator) at the noise scale of the transition."""
    count, size = len(points), plan.size(len(points))
    sigma_1 = transition_sigma(exact)
    device, rows = default_device(None), []

    def means(size: int, constants: list[float], repeats: int) -> Floats:
        draws = repeats * SUBSET_DRAWS
        return subset_means(
            points, moments, sigma_1, size, constants, repeats, draws, seed, device
        )[:, :, 0]

    def add(varied: str, value: float, names: Iterable[str], mean_ER: Floats) -> None:
        for name, mean_R, error in zip(names, mean_ER, standard_errors(mean_ER), strict=True):
            rows.append((varied, value, name, mean_R.mean(), error, sigma_1[0]))

    many_ER = means(size, [plan.constant(count)], SUBSETS)
    for r in range(2, SUBSETS + 1):
        add("subsets", r, SUBSET_ESTIMATORS, many_ER[:, :r])
    for length in sorted({count // share for share in SIZES}):
        if 2 <= length <= LARGEST_SUBSET:
            own = replace(plan, subset=length, own_weight=None)
            add("L", length, SUBSET_ESTIMATORS, means(length, [own.constant(count)], plan.repeats))
    constants = [factor * count / size for factor in FACTORS if factor * count / size >= 1]
    by_constant = means(size, constants, plan.repeats)[1:-1]
    for constant, mean_R in zip(constants, by_constant, strict=True):
        add("C", constant, ("cdol",), mean_R[None])
    return pd.DataFrame(rows, columns=["varied", "value", "estimator", "loss", "stderr", "sigma"])


def transition_sigma(exact: OptimalLoss) -> Floats:
    """The noise scale [1] at which J* is nearest a tenth of the variance, on the log scale."""
    away = np.abs(np.log(np.maximum(exact.loss, 1e-300) / (TRANSITION * exact.variance)))
    return exact.sigma[[int(away.argmin())]]
