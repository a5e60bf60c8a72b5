"""Figure 1: the optimal loss J*(sigma), with the losses of the trained sizes above it."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.style import (
    COLUMN,
    OPTIMAL_COLOR,
    new_figure,
    parameters_label,
    sigma_axis,
    size_colors,
)
from jstar.figures.tables import StudyTables


def draw_optimal_loss(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """J*(sigma) with its interval, and J_sigma of every size at its last snapshot."""
    figure, axes = new_figure(1, 1, COLUMN, 2.9)
    panel = axes[0, 0]
    curve = tables.curve
    floor = 0.3 * tables.last().query("sigma != @TOTAL")["loss"].min()
    colors = size_colors(tables.models)
    last = tables.last()
    for model in tables.models:
        rows = last[(last["model"] == model) & (last["sigma"] != TOTAL)]
        mean = rows.groupby(rows["sigma"].astype(float))["loss"].mean()
        label = parameters_label(tables.params[model])
        panel.plot(mean.index, mean, "o-", color=colors[model], lw=0.9, ms=2.2, label=label)
    # Log axes: below the floor the line leaves through the lower edge.
    tiny = curve["loss"].where(curve["loss"] > 0)
    lower, visible = curve["lower"].clip(lower=1e-300), curve["loss"] > floor
    panel.fill_between(
        curve["sigma"], lower, curve["upper"], where=visible, color=OPTIMAL_COLOR, alpha=0.2, lw=0
    )
    panel.plot(curve["sigma"], tiny, color=OPTIMAL_COLOR, lw=1.4, zorder=1.5)
    variance = float(curve["loss"].iloc[-1])
    panel.set(
        yscale="log",
        ylabel="mean squared error per dimension",
        ylim=(floor, 2.2 * variance),
    )
    sigma_axis(panel)
    high = curve["loss"] > 30 * floor
    place = curve.iloc[int(high.to_numpy().argmax())]  # the first such, or the first of all
    panel.annotate(
        r"optimal loss $J^*$",
        (place["sigma"], place["loss"]),
        xytext=(10, -6),
        textcoords="offset points",
        va="center",
    )
    panel.legend(title="parameters", loc="lower right", title_fontsize=7.5)
    return figure, _numbers(tables)


def _numbers(tables: StudyTables) -> dict[str, Any]:
    """What the caption says."""
    sigmas, last = tables.sigmas, tables.last()
    best = last[last["sigma"] != TOTAL].groupby(last["sigma"].astype(str))["loss"].min()
    share = {s: tables.optimal(s) / float(best[best.index.astype(float) == s].iloc[0])
             for s in sigmas}  # fmt: skip
    half = next((s for s in sigmas if share[s] > 0.5), float("nan"))
    return {
        "images": tables.facts.get("count"),
        "closure": tables.facts.get("closure"),
        "log_count": tables.facts.get("log_count"),
        "sigma_half": half,
        "share_at_top": share[sigmas[-1]],
        "sigma_top": sigmas[-1],
        "sizes": len(tables.models),
        "largest_relative_stderr": float(
            np.nanmax(np.where(tables.curve["loss"] > 0,
                               tables.curve["stderr"] / tables.curve["loss"].clip(lower=1e-300),
                               np.nan))
        ),
    }  # fmt: skip
