"""Checks of whole tables: mixed units, losses below J*, a total of another process."""

import numpy as np
import pandas as pd

from jstar.constants import TOTAL
from jstar.curve import OptimalLoss
from jstar.errors import JstarError
from jstar.noise import Process, process, total_weights

WORK_FACTOR = 1e3  # FLOPs per parameter and image differ this much only between units
STEP_FACTOR = 1e6  # compute of two neighbouring snapshots of a run
LOSS_FACTOR = 1e3  # losses of one noise scale about their median
SIGMAS_BELOW = 4.0  # standard errors below J* that are taken for noise
TIMES_VARIANCE = 10.0  # even a network that knows only the data's mean has a loss of 1 variance
LEVEL = 1.2  # ratio of the last two values of J* that has come near the variance
UNKNOWN_ERROR = 0.05  # relative error of a loss without loss_se


def check_runs(losses: pd.DataFrame) -> None:
    """Refuse a run of two numbers of parameters: it is one network, seen at several times."""
    first = losses.groupby("run", sort=False)["params"].transform("first")
    bad = losses["params"] != first
    if bad.any():
        row = losses[bad].iloc[0]
        raise JstarError(
            f"{row['source']}: line {row['line']}, column 'params': found {row['params']:g}, run "
            f"'{row['run']}' has {first[bad].iloc[0]:g} before; a run is one network, give others "
            "another name"
        )


def check_units(losses: pd.DataFrame) -> None:
    """Refuse tables whose rows are in different units. Raises JstarError naming file and line."""
    flops = losses["flops"].to_numpy(dtype=float)
    if "images" in losses and (losses["images"] > 0).all():
        work = flops / losses["params"].to_numpy(dtype=float) / losses["images"].to_numpy(float)
        _about_median(losses, work, WORK_FACTOR, "flops", "FLOPs per parameter and image")
    for _, run in losses.drop_duplicates(["run", "flops"]).groupby("run", sort=False):
        ordered = run.sort_values("flops")
        step = ordered["flops"].to_numpy(dtype=float)
        far = np.flatnonzero(step[1:] > STEP_FACTOR * step[:-1])
        if len(far):
            a, b = ordered.iloc[int(far[0])], ordered.iloc[int(far[0]) + 1]
            raise JstarError(
                f"{b['source']}: line {b['line']}, column 'flops': {b['flops']:g} follows "
                f"{a['flops']:g} in run '{b['run']}'; mixed units (FLOPs, GFLOPs)?"
            )
    for sigma, rows in losses.groupby("sigma", sort=False):
        loss = rows["loss"].to_numpy(dtype=float)
        _about_median(rows, loss, LOSS_FACTOR, "loss", f"losses at sigma = {sigma}")
    if "gap" in losses:
        error = losses["gap_se"].fillna(0.0) if "gap_se" in losses else 0.0
        bad = losses["gap"] > 1.5 * losses["loss"] + SIGMAS_BELOW * error
        if bad.any():
            row = losses[bad].iloc[0]
            raise JstarError(
                f"{row['source']}: line {row['line']}, column 'gap': {row['gap']:g} is above the "
                f"loss {row['loss']:g}; a gap is loss - J*, in the unit of the loss"
            )


def _about_median(
    rows: pd.DataFrame, value: np.ndarray, factor: float, column: str, what: str
) -> None:
    middle = float(np.median(value))
    bad = np.flatnonzero((value > factor * middle) | (value < middle / factor))
    if len(bad):
        row = rows.iloc[int(bad[0])]
        raise JstarError(
            f"{row['source']}: line {row['line']}, column '{column}': {row[column]:g} makes "
            f"{what} {value[bad[0]]:.3g}, the median is {middle:.3g}; mixed units?"
        )


def check_against_optimal(rows: pd.DataFrame, optimal: float, optimal_se: float) -> None:
    """Refuse losses clearly below J*: no model can do that on the distribution it belongs to."""
    if not np.isfinite(optimal):
        return
    loss = rows["loss"].to_numpy(dtype=float)
    if "loss_se" in rows and rows["loss_se"].notna().all():
        error = rows["loss_se"].to_numpy(dtype=float)
    else:
        error = UNKNOWN_ERROR * loss / SIGMAS_BELOW
    bad = np.flatnonzero(loss < optimal - SIGMAS_BELOW * np.hypot(error, optimal_se))
    if len(bad):
        row = rows.iloc[int(bad[0])]
        raise JstarError(
            f"{row['source']}: line {row['line']}, column 'loss': {row['loss']:g} at sigma = "
            f"{row['sigma']} is below the optimal loss {optimal:g} (standard error "
            f"{optimal_se:.2g}); J* must be of the same data, in the unit of the losses"
        )


def check_below_data(rows: pd.DataFrame, sigma: float | str, curve: OptimalLoss | None) -> None:
    """Refuse losses of one noise scale that all lie far above the variance of the data.

    The largest J* stands for it where curve.json gives it, or where the curve has levelled off:
    summed over dimensions or in another scale of the data, no loss is near it, not even the best.
    """
    if curve is None or sigma == TOTAL or len(curve.loss) < 2:
        return
    level = "variance" in curve.origin or curve.loss[-1] <= LEVEL * curve.loss[-2]
    top = max(float(curve.loss.max()), curve.variance)
    best = rows.iloc[int(rows["loss"].to_numpy().argmin())]
    if level and best["loss"] > TIMES_VARIANCE * top:
        raise JstarError(
            f"{best['source']}: line {best['line']}, column 'loss': {best['loss']:g}, the lowest "
            f"at sigma = {sigma}, is {best['loss'] / top:.3g} times the variance of the data "
            f"({top:g}, from J*); losses and J* must be means over the dimensions of the same data"
        )


def check_total(losses: pd.DataFrame, proc: Process | str | None) -> None:
    """Refuse rows with sigma = total that are not the weighted sum that `proc` makes of the rest.

    J* of the total is made with the same weights: with others the gap would mean nothing.
    """
    if proc is None or not (losses["sigma"] == TOTAL).any():
        return
    key = [c for c in ("run", "flops", "ema", "split") if c in losses]
    rows = losses[(losses[key] == losses.loc[losses["sigma"] == TOTAL, key].iloc[0]).all(axis=1)]
    single = rows[rows["sigma"] != TOTAL]
    if len(single) < 2:
        return
    chosen = process(proc) if isinstance(proc, str) else proc
    single = single.assign(sigma=single["sigma"].astype(float)).sort_values("sigma")
    expected = float(total_weights(chosen, single["sigma"].to_numpy()) @ single["loss"])
    row = rows[rows["sigma"] == TOTAL].iloc[0]
    if abs(row["loss"] - expected) > 1e-4 * expected:
        raise JstarError(
            f"{row['source']}: line {row['line']}, column 'loss': the total {row['loss']:g} is "
            f"not the sum that the weights of process '{chosen.name}' make of the noise scales "
            f"({expected:g}); give the process that was trained, with its parameters"
        )
