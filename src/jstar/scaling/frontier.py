"""The lower envelope of loss against compute over model sizes and snapshots.

At every compute the size with the lowest loss is on the frontier (approach 1 of arXiv 2203.15556).
Seeds of a size are averaged first: a minimum over seeds would pick luck. All seeds of a chosen
(size, snapshot) are then points of the fit, and each training run is one cluster.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.scaling.laws import Array

TOLERANCE = 0.02


class FrontierStatus(StrEnum):
    """What the envelope shows."""

    FOUND = "found"
    ONE_SIZE = "one size only"  # no envelope over sizes: one size is best at every compute


@dataclass(frozen=True)
class Frontier:
    """on [rows of the table]: whether the row lies on the frontier. sizes: their params."""

    status: FrontierStatus
    on: NDArray[np.bool_]
    sizes: tuple[float, ...]
    points: pd.DataFrame


def frontier(table: pd.DataFrame, *, value: str = "loss", tolerance: float = TOLERANCE) -> Frontier:
    """Frontier of the rows of one noise scale.

    table: columns run, params, flops and `value` (the loss, or better the gap: the order is the
    same and the noise of x0 is not in it). A row is on the frontier if no other size, interpolated
    at its compute, is lower, and if it is at most `tolerance` (relative) above the best that less
    compute has reached. Raises JstarError for a missing column or an empty table.
    """
    for column in ("run", "params", "flops", value):
        if column not in table.columns:
            raise JstarError(
                f"frontier: the column '{column}' is missing, found are {', '.join(table.columns)}"
            )
    if table.empty:
        raise JstarError("frontier: the table has no rows, it needs at least one")
    mean = table.groupby(["params", "flops"], sort=True)[value].mean().reset_index()
    size, flops, low = (mean[c].to_numpy(dtype=float) for c in ("params", "flops", value))
    on_curve = _on_curves(size, flops, low, tolerance)
    chosen = mean.loc[on_curve, ["params", "flops"]].assign(on=True)
    merged = table[["params", "flops"]].merge(chosen, on=["params", "flops"], how="left")
    on = merged["on"].notna().to_numpy()
    points = table[on].sort_values("flops")
    sizes = tuple(sorted(float(p) for p in points["params"].unique()))
    status = FrontierStatus.FOUND if len(sizes) > 1 else FrontierStatus.ONE_SIZE
    return Frontier(status, on, sizes, points)


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
