"""isoFLOP curves, and the compute-optimal numbers of parameters and images."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.figures.panels import flops_ticks, scale_title
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import (
    FLOPS_LABEL,
    LAW_COLOR,
    PAGE,
    label_rows,
    legend,
    log_ticks,
    new_figure,
    note,
    panel_title,
    parameters_label,
    short_number,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.approaches import agreement
from jstar.scaling.isoflop import CONVERGED, EDGE, INSIDE, optimal_exponent, parabola
from jstar.scaling.laws import Array

BUDGETS = 10  # that fit as labels beside the colours
OPTIMA = {"params": r"$N_\mathrm{opt}$ (parameters)", "images": r"$D_\mathrm{opt}$"}


def draw_isoflop(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """One column a noise scale, and one for the total loss."""
    columns = chosen_scales(tables, shown.sigmas)
    figure, axes = new_figure(3, len(columns), PAGE, 5.4)
    colors = _colors(tables)
    for column, sigma in enumerate(columns):
        _curves(axes[0, column], tables, sigma, colors)
        panel_title(axes[0, column], scale_title(sigma))
        for row, name in enumerate(OPTIMA, start=1):
            _optimum(axes[row, column], tables, sigma, name)
        axes[1, column].tick_params(labelbottom=False)
    of = tables.isoflop["of"]
    label = r"loss gap $J-J^*$" if len(of) and of.iloc[0] == "gap" else r"loss $J$"
    label_rows(figure, axes, [label, *OPTIMA.values()])
    axes[2, 0].set_ylabel(f"{OPTIMA['images']} ({tables.data_word})")
    figure.supxlabel(FLOPS_LABEL, fontsize=8.5)
    if colors is not None:
        bar = figure.colorbar(colors, ax=axes[0, :], pad=0.01, aspect=16)
        bar.set_label("$F$ (FLOPs)")
        bar.outline.set_linewidth(0.4)
        rows = tables.at("isoflop", columns[-1])
        budgets = rows["flops"].unique().tolist()
        if len(rows) and rows["by_budget"].all() and len(budgets) <= BUDGETS:
            bar.set_ticks(budgets, labels=[short_number(float(f"{f:.2g}")) for f in budgets])
            bar.minorticks_off()
    legend(figure, _handles())
    return figure, _numbers(tables, columns)


def _colors(tables: StudyTables) -> ScalarMappable | None:
    """One colour a compute, light to dark."""
    flops = tables.isoflop["flops"]
    if flops.empty:
        return None
    colors = mpl.colormaps["cividis_r"](np.linspace(0.15, 1, 64))  # without the palest
    palette = LinearSegmentedColormap.from_list("compute", colors)
    return ScalarMappable(LogNorm(float(flops.min()), float(flops.max())), palette)


def _curves(
    panel: Axes, tables: StudyTables, sigma: float | str, colors: ScalarMappable | None
) -> None:
    """Gap (or loss) over size at fixed compute: along runs lines, by budget the parabolas."""
    rows = tables.at("isoflop", sigma)
    sizes = list(tables.params.values())
    log_ticks(panel, min(sizes) / 1.3, max(sizes) * 1.3, 2, "x", parameters_label)
    panel.set_xlabel("parameters $N$", labelpad=1)
    if rows.empty or colors is None:
        note(panel, str(_approach(tables, sigma, "isoflop")["status"]))
        return
    for flops in rows["flops"].unique():
        curve = rows[rows["flops"] == flops].sort_values("params")
        color, by_budget = colors.to_rgba(flops), bool(curve["by_budget"].iloc[0])
        panel.plot(curve["params"], curve["value"], "o" if by_budget else "o-", ms=2, lw=0.9,
                   color=color)  # fmt: skip
        if by_budget and len(curve) > 2:
            panel.plot(*_parabola(curve), color=color, lw=0.9)
    minima = tables.at("isoflop_minima", sigma)
    for status, mark in ((INSIDE, _MINIMUM), (EDGE, _AT_EDGE)):
        shown = minima[minima["status"] == status]
        panel.plot(shown["params"], shown["value"], ls="", **mark)
    seen = rows.loc[rows["value"] > 0, "value"]
    low, high = float(seen.min()), float(seen.max())
    margin = (high / low) ** 0.08
    log_ticks(panel, low / margin, high * margin)


def _parabola(curve: pd.DataFrame) -> tuple[Array, Array]:
    """Size and value along the parabola of one budget."""
    log_n, value = np.log(curve["params"].to_numpy(dtype=float)), curve["value"].to_numpy()
    along = np.linspace(log_n[0], log_n[-1], 40)
    coefficients = parabola(log_n, value[None])[0]
    return np.exp(along), np.polynomial.polynomial.polyval(along - log_n.mean(), coefficients)


def _approach(tables: StudyTables, sigma: float | str, name: str) -> "pd.Series[Any]":
    rows = tables.at("approaches", sigma)
    return rows[rows["approach"] == name].iloc[0]


_MINIMUM: dict[str, Any] = {
    "marker": "*",
    "ms": 6,
    "color": LAW_COLOR["raw"],
    "mew": 0,
    "zorder": 4,
}
_AT_EDGE: dict[str, Any] = {"marker": "o", "ms": 3.5, "mfc": "white", "mec": "#777777", "mew": 0.7}


def _optimum(panel: Axes, tables: StudyTables, sigma: float | str, name: str) -> None:
    """N_opt(F) or D_opt(F): minima inside are fitted, those at the edge are bounds."""
    minima = tables.at("isoflop_minima", sigma)
    minima = minima[minima[name].notna()]
    inside, edge = (minima[minima["status"] == status] for status in (INSIDE, EDGE))
    panel.set_xscale("log")
    flops_ticks(panel, tables)
    if inside.empty and edge.empty:
        note(panel, "no images" if name == "images" and len(tables.at("isoflop_minima", sigma))
             else str(_approach(tables, sigma, "isoflop")["status"]))  # fmt: skip
        return
    if name == "params":
        _bars(panel, inside)
    panel.plot(edge["flops"], edge[name], ls="", **_AT_EDGE)
    panel.plot(inside["flops"], inside[name], ls="", **_MINIMUM)
    exponent = optimal_exponent(minima, name)
    if np.isfinite(exponent):
        x = np.log(inside["flops"].to_numpy(dtype=float))
        middle = float(np.log(inside[name].astype(float)).mean())
        line = np.exp(middle + exponent * (x - x.mean()))
        panel.plot(inside["flops"], line, color=LAW_COLOR["corrected"], lw=1.2)
    panel_title(panel, _title(tables, sigma, name, exponent), fontsize=7.5)
    seen = np.concatenate([inside[name], edge[name]]).astype(float)
    if name == "params" and inside["params_low"].notna().any():
        seen = np.r_[seen, inside["params_low"].min(), inside["params_high"].max()]
    log_ticks(panel, seen.min() / 1.5, seen.max() * 1.5, text=parameters_label)


def _bars(panel: Axes, inside: pd.DataFrame) -> None:
    """Intervals of N_opt."""
    panel.vlines(inside["flops"], inside["params_low"], inside["params_high"], lw=0.8,
                 color=LAW_COLOR["raw"])  # fmt: skip


def _title(tables: StudyTables, sigma: float | str, name: str, exponent: float) -> str:
    """The exponent, of sizes with its interval, or why there is none."""
    found = _approach(tables, sigma, "isoflop")
    if not np.isfinite(exponent):
        return str(found["status"])
    power = rf"$\propto F^{{{exponent:.2f}}}$"
    if name == "params":
        if found["status"] != CONVERGED:
            power += f", {found['status']}"
        elif np.isfinite(found["size_low"]):
            power += f" [{found['size_low']:.2f}, {found['size_high']:.2f}]"
    return power


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], ls="", label="minimum of a curve", **_MINIMUM),
        Line2D([], [], ls="", label="best size is the largest or smallest", **_AT_EDGE),
        Line2D([], [], color=LAW_COLOR["corrected"], label="power law of the minima"),
    ]


def _numbers(tables: StudyTables, columns: list[float | str]) -> dict[str, Any]:
    """Minima, verdict and what the three approaches say, of every column."""
    rows = []
    for sigma in columns:
        minima = tables.at("isoflop_minima", sigma)
        rows.append(
            {
                "sigma": sigma,
                "verdict": str(tables.at("verdicts", sigma)["verdict"].iloc[0]),
                "inside": int((minima["status"] == INSIDE).sum()),
                "levels": len(minima),
                "data_exponent": optimal_exponent(minima, "images"),
                "agreement": agreement(tables.at("approaches", sigma)),
            }
        )
    by_budget = bool(tables.isoflop["by_budget"].any())
    return {"confidence": 100 * tables.confidence, "by_budget": by_budget, "laws": rows}
