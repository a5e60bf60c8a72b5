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
from numpy.typing import NDArray

from jstar.config import OptimalConfig
from jstar.curve import OptimalLoss
from jstar.data.store import Dataset
from jstar.errors import JstarError
from jstar.optimal.exact.job import Advance, Job, default_device, make_job
from jstar.optimal.exact.moments import Moments
from jstar.optimal.oracle import dataset_points
from jstar.optimal.paper.subsets import SubsetPlan, standard_errors, subset_means
from jstar.optimal.points import Points
from jstar.progress import Progress
from jstar.records import provenance, write_table

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
    if dataset.stds_NCHW is not None:
        raise JstarError(
            f"dataset '{dataset.card.name}': holds sampled latents, only the exact estimator "
            "exists for them and there is nothing to compare"
        )
    points, device = dataset_points(dataset), default_device(None)
    job = make_job(
        points, sigmas, estimator="exact", queries=config.queries, seed=config.seed, device=device
    )
    with Progress(f"forms {dataset.card.name}", 2 * len(points), "points") as bar:
        sums = job.sums(advance=bar.advance)
        exact = job.curve(sums)
        by_form = forms(job, sums, exact, bar.advance)
    plan = SubsetPlan(config.subset, config.repeats, config.own_weight)
    facts = provenance(
        card_id=dataset.card.id, dataset=dataset.card.name, count=len(points), dim=points.dim,
        variance=exact.variance, queries=len(job.source_M), seed=config.seed,
        subset=plan.size(len(points)), subset_draws=SUBSET_DRAWS, closure=exact.closure[0],
        log_count=exact.closure[1], threads=torch.get_num_threads(),
    )  # fmt: skip
    write_table(out / "forms.csv", by_form, facts)
    write_table(out / "estimators.csv", estimators(points, job.moments, exact, plan, config.seed),
                facts)  # fmt: skip
    write_table(out / "convergence.csv", convergence(points, job.moments, exact, plan, config.seed),
                facts)  # fmt: skip


def forms(
    job: Job, sums_GMSF: NDArray[np.float64], exact: OptimalLoss, advance: Advance
) -> pd.DataFrame:
    """One row per (noise scale, form): loss, stderr, and flops of all draws at all noise scales.

    The two products of the whole curve are 4 M N D FLOPs; the moment form adds 2 M N D for every
    noise scale and sign. `moment, random draws` is the paper's: sources drawn at random, so its
    error counts the spread over the images that ours takes out by its systematic sample.
    """
    moment_job = replace(job, form="moment")
    values = moment_job.sums(advance=advance)
    moment = moment_job.curve(values)
    unit = job.points.scale**2 / job.points.dim
    random = unit * values[0, :, :, 0].std(axis=0, ddof=1) / np.sqrt(len(job.source_M))
    pair = replace(job, form="pair").curve(sums_GMSF)
    products = 4.0 * len(job.source_M) * len(job.points) * job.points.dim
    third = 0.5 * products * len(job.sigma_S) * job.signs
    rows: list[tuple[object, ...]] = []
    for name, curve, stderr_S, flops in (
        ("moment, random draws", moment, random, products + third),
        ("moment", moment, moment.stderr, products + third),
        ("pair", pair, pair.stderr, products),
        ("pair+controls", exact, exact.stderr, products),
    ):
        rows += _rows(name, curve.sigma, curve.loss, stderr_S, flops)
    return pd.DataFrame(rows, columns=["sigma", "form", "loss", "stderr", "flops"])


def estimators(
    points: Points, moments: Moments, exact: OptimalLoss, plan: SubsetPlan, seed: int
) -> pd.DataFrame:
    """One row per (noise scale, estimator): loss and stderr."""
    size, constant = plan.size(len(points)), plan.constant(len(points))
    mean_ERS = subset_means(
        points, moments, exact.sigma, size, [constant], plan.repeats,
        plan.repeats * SUBSET_DRAWS, seed, default_device(None),
    )  # fmt: skip
    rows = _rows("exact", exact.sigma, exact.loss, exact.stderr)
    for name, mean_S, error_S in zip(
        ("dol", "cdol", "snis"), mean_ERS.mean(axis=1), standard_errors(mean_ERS), strict=True
    ):
        rows += _rows(name, exact.sigma, mean_S, error_S)
    return pd.DataFrame(rows, columns=["sigma", "estimator", "loss", "stderr"])


def convergence(
    points: Points, moments: Moments, exact: OptimalLoss, plan: SubsetPlan, seed: int
) -> pd.DataFrame:
    """One row per (what varies, its value, estimator) at the noise scale of the transition."""
    count, size = len(points), plan.size(len(points))
    sigma_1 = transition(exact)
    device, rows = default_device(None), []

    def means(size: int, constants: list[float], repeats: int) -> NDArray[np.float64]:
        draws = repeats * SUBSET_DRAWS
        return subset_means(
            points, moments, sigma_1, size, constants, repeats, draws, seed, device
        )[:, :, 0]

    names = ("dol", "cdol", "snis")
    many_ER = means(size, [plan.constant(count)], SUBSETS)
    for r in range(2, SUBSETS + 1):
        rows += _convergence_rows("subsets", r, names, many_ER[:, :r], sigma_1)
    for length in sorted({count // share for share in SIZES}):
        if 2 <= length <= LARGEST_SUBSET:
            own = replace(plan, subset=length, own_weight=None)
            found_ER = means(length, [own.constant(count)], plan.repeats)
            rows += _convergence_rows("L", length, names, found_ER, sigma_1)
    constants = [factor * count / size for factor in FACTORS if factor * count / size >= 1]
    by_constant = means(size, constants, plan.repeats)[1:-1]
    for constant, mean_R in zip(constants, by_constant, strict=True):
        rows += _convergence_rows("C", constant, ("cdol",), mean_R[None], sigma_1)
    return pd.DataFrame(rows, columns=["varied", "value", "estimator", "loss", "stderr", "sigma"])


def transition(exact: OptimalLoss) -> NDArray[np.float64]:
    """The noise scale [1] at which J* is nearest a tenth of the variance, on the log scale."""
    away = np.abs(np.log(np.maximum(exact.loss, 1e-300) / (TRANSITION * exact.variance)))
    return exact.sigma[[int(away.argmin())]]


def _rows(
    name: str, sigma_S: NDArray[np.float64], loss_S: NDArray[np.float64],
    stderr_S: NDArray[np.float64], *more: float,
) -> list[tuple[object, ...]]:  # fmt: skip
    return [
        (float(sigma), name, float(loss), float(stderr), *more)
        for sigma, loss, stderr in zip(sigma_S, loss_S, stderr_S, strict=True)
    ]


def _convergence_rows(
    varied: str, value: float, names: Iterable[str], mean_ER: NDArray[np.float64],
    sigma_1: NDArray[np.float64],
) -> list[tuple[object, ...]]:  # fmt: skip
    error_E = standard_errors(mean_ER)
    return [
        (varied, value, name, float(mean_R.mean()), float(error), float(sigma_1[0]))
        for name, mean_R, error in zip(names, mean_ER, error_E, strict=True)
    ]
