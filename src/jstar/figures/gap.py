"""Figure 4: the directly measured loss gap over the noise scale, by size."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.style import (
    COLUMN,
    ONE_LOSS,
    OPTIMAL_COLOR,
    legend,
    log_ticks,
    new_figure,
    note,
    parameters_label,
    sigma_axis,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables


def draw_gap(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """E|D - D*|^2 of every size at its last snapshot, with two standard errors, and J* itself."""
    figure, axes = new_figure(1, 1, COLUMN, 3.1)
    panel = axes[0, 0]
    colors, last = size_colors(tables.models), tables.last()
    worst: dict[str, float] = {}
    largest = tables.models[-1]
    seen = {"largest": parameters_label(tables.params[largest])}
    gaps = last.loc[(last["sigma"] != TOTAL) & (last["gap"] > 0), "gap"]
    if gaps.empty:
        note(panel, "no optimal loss" if len(tables.sigmas) else ONE_LOSS)
        return figure, {**seen, "worst_sigma": np.nan, "top_gap_share": np.nan}
    for model in tables.models:
        rows = last[(last["model"] == model) & (last["sigma"] != TOTAL)]
        grouped = rows.groupby(rows["sigma"].astype(float))
        gap = grouped["gap"].mean()
        # Runs of a size share the draws, so their mean is no more precise than one of them.
        error = 2 * grouped["gap_se"].mean()
        color = colors[model]
        panel.fill_between(gap.index, (gap - error).clip(lower=0.2 * gap), gap + error,
                           color=color, alpha=0.25, lw=0)  # fmt: skip
        panel.plot(gap.index, gap, "o-", color=color, lw=0.9, ms=2.2)
        worst[model] = float(gap.index[int(gap.to_numpy().argmax())])
    curve = tables.curve
    panel.plot(curve["sigma"], curve["loss"].where(curve["loss"] > 0), color=OPTIMAL_COLOR,
               lw=1, ls=(0, (4, 2)))  # fmt: skip
    panel.set_ylabel(r"loss gap $J_\sigma-J^*_\sigma$")
    log_ticks(panel, 0.5 * gaps.min(), 3 * gaps.max())
    sigma_axis(panel)
    handles = size_handles(tables.models, tables.params, marker="o", ms=2.2, lw=0.9)
    if curve["loss"].astype(float).between(*panel.get_ylim()).any():
        handles.append(Line2D([], [], color=OPTIMAL_COLOR, lw=1, ls=(0, (4, 2)), label="$J^*$"))
    legend(figure, handles)
    return figure, {
        **seen,
        "worst_sigma": worst[largest],
        "top_gap_share": float(
            last[(last["model"] == largest) & (last["sigma"] != TOTAL)]
            .assign(s=lambda f: f["sigma"].astype(float))
            .sort_values("s")
            .iloc[-1][["gap", "loss"]]
            .pipe(lambda r: r["gap"] / r["loss"])
        ),
    }
