"""The lower envelope of loss against compute over model sizes and snapshots, where it is one.

At every compute the size with the lowest loss is on the frontier (approach 1 of arXiv 2203.15556).
Seeds of a size are averaged first: a minimum over seeds would pick luck. All seeds of a chosen
(size, snapshot) are then points of the fit, and each training run is one cluster.

An envelope is compute-optimal only between the first and the last compute at which a larger size
takes over from a smaller one that still trains. Where every size is best until its images run out,
nothing crosses: the envelope is a chain of tails, and no exponent of it means anything.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.scaling.laws import Array

TOLERANCE = 0.02
LEAST_CROSSINGS = 2  # they bound the compute in which sizes compete
LEVELS = 400  # of ln F at which the best size is looked up


class FrontierStatus(StrEnum):
    """What the envelope shows."""

    FOUND = "found"
    # Fewer than two, or no snapshot between them: no range of compute where sizes compete.
    NO_CROSSING = "no crossing"
    ONE_SIZE = "one size only"  # no envelope over sizes: one size is best at every compute


@dataclass(frozen=True)
class Frontier:
    """on [rows of the table]: whether the row lies on the frontier. sizes: their params.

    crossings: ln F at which a larger size takes over while the smaller one still trains;
    exchanged: the params of both.
    """

    status: FrontierStatus
    on: NDArray[np.bool_]
    sizes: tuple[float, ...]
    points: pd.DataFrame
    crossings: tuple[float, ...] = ()
    exchanged: tuple[tuple[float, float], ...] = ()


def frontier(table: pd.DataFrame, *, value: str = "loss", tolerance: float = TOLERANCE) -> Frontier:
    """Frontier of the rows of one noise scale.

    table: columns run, params, flops and `value` (the loss, or better the gap: the order is the
    same and the noise of x0 is not in it). A row is on the frontier if no other size, interpolated
    at its compute, is lower, and if it is at most `tolerance` (relative) above the best that less
    compute has reached, and if sizes compete there; without two crossings around one, all such rows
    are given and the status says `no crossing`. Raises JstarError for a missing column or an empty
    table.
    """
    for column in ("run", "params", "flops", value):
        if column not in table.columns:
            raise JstarError(
                f"frontier: the column '{column}' is missing, found are {', '.join(table.columns)}"
            )
    if table.empty:
        raise JstarError("frontier: the table has no rows, it needs at least one")
    mean = table.groupby(["params", "flops"], sort=True)[value].mean().reset_index()
    size, flops, level = (mean[c].to_numpy(dtype=float) for c in ("params", "flops", value))
    on_curve = _on_curves(size, flops, level, tolerance)
    crossings, exchanged = _crossings(size, flops, level)
    competing = len(crossings) >= LEAST_CROSSINGS
    if competing:
        log_f = np.log(flops)
        between = on_curve & (log_f >= crossings[0]) & (log_f <= crossings[-1])
        competing = bool(between.any())  # all may lie between two snapshots
        on_curve = between if competing else on_curve
    chosen = mean.loc[on_curve, ["params", "flops"]].assign(on=True)
    merged = table[["params", "flops"]].merge(chosen, on=["params", "flops"], how="left")
    on = merged["on"].notna().to_numpy()
    points = table[on].sort_values("flops")
    sizes = tuple(sorted(float(p) for p in points["params"].unique()))
    status = FrontierStatus.FOUND if competing else FrontierStatus.NO_CROSSING
    if len(np.unique(size)) < 2:
        status = FrontierStatus.ONE_SIZE
    return Frontier(status, on, sizes, points, crossings, exchanged)


def _crossings(
    size: Array, flops: Array, value: Array
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """ln F at which the best size is replaced by a larger one although it goes on training; both
    sizes."""
    log_f = np.log(flops)
    grid = np.linspace(log_f.min(), log_f.max(), LEVELS)
    sizes = np.unique(size)
    curve = np.full((len(sizes), LEVELS), np.inf)
    for k, params in enumerate(sizes):
        mine = size == params
        reached = (grid >= log_f[mine][0]) & (grid <= log_f[mine][-1])
        curve[k, reached] = np.interp(grid[reached], log_f[mine], value[mine])
    found: list[float] = []
    exchanged: list[tuple[float, float]] = []
    best = -1
    for level in range(LEVELS):
        if not np.isfinite(curve[:, level]).any():
            continue
        now = int(np.argmin(curve[:, level]))
        if now > best >= 0 and np.isfinite(curve[best, level]):
            found.append(float(grid[level]))
            exchanged.append((float(sizes[best]), float(sizes[now])))
        best = max(now, best) if np.isfinite(curve[max(best, 0), level]) else now
    return tuple(found), tuple(exchanged)


def _on_curves(size: Array, flops: Array, value: Array, tolerance: float) -> NDArray[np.bool_]:
    """Which points of the mean curves lie on the envelope; rows sorted by size, then compute."""
    on = np.ones(len(value), dtype=bool)
    log_f = np.log(flops)
    for other in np.unique(size):
        mine = size == other
        f, v = log_f[mine], value[mine]
        inside = ~mine & (log_f >= f[0]) & (log_f <= f[-1])
        on[inside] &= value[inside] <= np.interp(log_f[inside], f, v)
    order = np.argsort(flops, kind="stable")
    best = np.minimum.accumulate(value[order])
    slack = np.abs(best) * tolerance
    on[order] &= value[order] <= best + slack
    return on
