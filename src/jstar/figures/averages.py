"""Gap (or loss) of the last snapshots against the length of the average: the best of each size."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jstar.config import FiguresConfig
from jstar.errors import JstarError
from jstar.figures.panels import scale_title
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import (
    PAGE,
    legend,
    log_ticks,
    new_figure,
    panel_title,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables

SHOWN = 0.7  # share of the points within a panel: the longest averages may leave it
FITTED: dict[str, Any] = {"color": "#777777", "lw": 0.8, "ls": (0, (4, 2)), "zorder": 1}


def draw_averages(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """One panel a noise scale and one for the total: per cent above each size's best length."""
    if tables.averages.empty:
        raise JstarError(
            "averages.csv: holds no two EMA lengths of a snapshot, the figure compares them "
            "(evaluate.ema)"
        )
    scales = chosen_scales(tables, shown.sigmas)
    figure, axes = new_figure(1, len(scales), PAGE, 2.35)
    for panel, sigma in zip(axes[0], scales, strict=True):
        _panel(panel, tables, sigma)
    of = str(tables.averages["of"].iloc[0])
    axes[0, 0].set_ylabel(f"{of} above the size's lowest (%)")
    figure.supxlabel("relative length of the average", fontsize=8.5)
    handles = [
        Line2D([], [], ls="", ms=4.5, label=label, **_mark(inside, "#444444"))
        for label, inside in (("lowest", True), ("lowest, at an end", False))
    ]
    handles.append(Line2D([], [], label="fitted", **FITTED))
    legend(figure, size_handles(tables.models, tables.params, lw=1), handles)
    return figure, _numbers(tables, of)


def _panel(panel: Axes, tables: StudyTables, sigma: float | str) -> None:
    rows = tables.at("averages", sigma)
    excess = 100 * (rows["value"] / rows.groupby("model")["value"].transform("min") - 1)
    colors, lengths = size_colors(tables.models), rows["ema"]
    # Where sizes share their best length, the marks lie within one another.
    marks = np.linspace(6.5, 3, len(tables.models))
    for model, mark in zip(tables.models, marks, strict=True):
        size, color = rows.assign(excess=excess)[rows["model"] == model], colors[model]
        panel.plot(size["ema"], size["excess"], color=color, lw=1, marker=".", ms=2)
        best = size[size["best"]]
        panel.plot(best["ema"], best["excess"], ls="", zorder=4, ms=mark,
                   **_mark(_inside(best, lengths), color))  # fmt: skip
    panel.axvline(_fitted(rows), **FITTED)
    log_ticks(panel, lengths.min() / 1.1, lengths.max() * 1.1, along="x")
    top = max(float(np.quantile(excess, SHOWN)), 1e-3)
    panel.set_ylim(-0.08 * top, 1.1 * top)
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel_title(panel, scale_title(sigma))


def _mark(inside: bool, color: Any) -> dict[str, Any]:
    """Marker of a lowest value: filled within the lengths measured, open at an end of them."""
    return {"marker": "o", "mec": color, "mfc": color if inside else "white"}


def _inside(best: pd.DataFrame, lengths: "pd.Series[float]") -> bool:
    return bool(best["ema"].gt(lengths.min()).all() and best["ema"].lt(lengths.max()).all())


def _fitted(rows: pd.DataFrame) -> float:
    """The length that is fitted: nothing is gained by it."""
    return float(rows.loc[rows["gain_percent"] == 0, "ema"].iloc[0])


def _numbers(tables: StudyTables, of: str) -> dict[str, Any]:
    rows = tables.averages
    best = rows[rows["best"]]
    gains = [
        {"sigma": sigma, "low": float(at["ema"].min()), "high": float(at["ema"].max()),
         "gain": float(at["gain_percent"].max())}
        for sigma in tables.scales
        for at in [tables.at("averages", sigma).query("best")]
    ]  # fmt: skip
    return {
        "of": of,
        "fitted": _fitted(rows),
        "lengths": sorted(float(v) for v in rows["ema"].unique()),
        "at_end": int(best["ema"].isin([rows["ema"].min(), rows["ema"].max()]).sum()),
        "cases": len(best),
        "most": max(gains, key=lambda g: g["gain"]),
        "scales": gains,
    }
