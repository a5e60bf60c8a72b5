"""Figure 1: the optimal loss J*(sigma), with the losses of the trained sizes above it."""

from typing import Any

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
    sigma_axis,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables


def draw_optimal_loss(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """J*(sigma) with its interval, and J_sigma of every size at its last snapshot."""
    figure, axes = new_figure(1, 1, COLUMN, 2.9)
    panel = axes[0, 0]
    curve = tables.curve
    if not len(tables.sigmas):
        note(panel, ONE_LOSS)
        return figure, _numbers(tables)
    floor = 0.3 * tables.last().query("sigma != @TOTAL")["loss"].min()
    colors = size_colors(tables.models)
    last = tables.last()
    for model in tables.models:
        rows = last[(last["model"] == model) & (last["sigma"] != TOTAL)]
        mean = rows.groupby(rows["sigma"].astype(float))["loss"].mean()
        panel.plot(mean.index, mean, "o-", color=colors[model], lw=0.9, ms=2.2)
    # Log axes: below the floor the line leaves through the lower edge.
    tiny = curve["loss"].where(curve["loss"] > 0)
    lower, visible = curve["lower"].clip(lower=1e-300), curve["loss"] > floor
    panel.fill_between(
        curve["sigma"], lower, curve["upper"], where=visible, color=OPTIMAL_COLOR, alpha=0.2, lw=0
    )
    panel.plot(curve["sigma"], tiny, color=OPTIMAL_COLOR, lw=1.4, zorder=1.5)
    top = last.query("sigma != @TOTAL")["loss"].max() if curve.empty else curve["loss"].iloc[-1]
    panel.set_ylabel(tables.loss_word)
    log_ticks(panel, floor, 2.2 * float(top))
    sigma_axis(panel)
    handles = size_handles(tables.models, tables.params, marker="o", ms=2.2, lw=0.9)
    if not curve.empty:
        handles.append(Line2D([], [], color=OPTIMAL_COLOR, lw=1.4, label=r"optimal loss $J^*$"))
    legend(figure, handles)
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
        "share_at_top": share[sigmas[-1]] if share else float("nan"),
        "sigma_top": sigmas[-1] if share else float("nan"),
        "sizes": len(tables.models),
    }  # fmt: skip
