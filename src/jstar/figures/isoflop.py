"""isoFLOP curves, and the compute-optimal numbers of parameters and images."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.figures.panels import flops_ticks, law_in_numbers, scale_title
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import (
    FLOPS_LABEL,
    LAW_COLOR,
    PAGE,
    label_rows,
    log_ticks,
    new_figure,
    note,
    panel_title,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.isoflop import optimal_exponent

OPTIMA = {"params": r"$N_\mathrm{opt}$ (parameters)", "images": r"$D_\mathrm{opt}$"}
EDGE = "at the edge"


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
    figure.legend(handles=_handles(), loc="outside upper center", ncols=4)
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
    """Gap (or loss) over size at fixed compute, with the minima that lie inside."""
    rows = tables.at("isoflop", sigma)
    sizes = list(tables.params.values())
    panel.set_xscale("log")
    panel.set_xlim(min(sizes) / 1.3, max(sizes) * 1.3)
    panel.set_xlabel("parameters $N$", labelpad=1)
    if rows.empty or colors is None:
        note(panel, "too few sizes")
        return
    for flops in rows["flops"].unique():
        curve = rows[rows["flops"] == flops].sort_values("params")
        panel.plot(curve["params"], curve["value"], "o-", ms=2, lw=0.9, color=colors.to_rgba(flops))
    minima = tables.at("isoflop_minima", sigma)
    minima = minima[minima["status"] == "inside"]
    panel.plot(minima["params"], minima["value"], ls="", **_MINIMUM)
    low, high = float(rows["value"].min()), float(rows["value"].max())
    margin = (high / low) ** 0.08
    log_ticks(panel, low / margin, high * margin)


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
    inside, edge = (minima[minima["status"] == status] for status in ("inside", EDGE))
    panel.set_xscale("log")
    flops_ticks(panel, tables)
    if inside.empty and edge.empty:
        note(panel, "no minimum")
        return
    panel.plot(edge["flops"], edge[name], ls="", **_AT_EDGE)
    panel.plot(inside["flops"], inside[name], ls="", **_MINIMUM)
    exponent = optimal_exponent(minima, name)
    if np.isfinite(exponent):
        x = np.log(inside["flops"].to_numpy(dtype=float))
        middle = float(np.log(inside[name].astype(float)).mean())
        line = np.exp(middle + exponent * (x - x.mean()))
        panel.plot(inside["flops"], line, color=LAW_COLOR["corrected"], lw=1.2)
        panel_title(panel, rf"$\propto F^{{{exponent:.2f}}}$", fontsize=7.5)
    seen = np.concatenate([inside[name], edge[name]]).astype(float)
    log_ticks(panel, seen.min() / 1.5, seen.max() * 1.5)


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], ls="", label="minimum of a curve", **_MINIMUM),
        Line2D([], [], ls="", label="best size is the largest or smallest", **_AT_EDGE),
        Line2D([], [], color=LAW_COLOR["corrected"], label="power law of the minima"),
    ]


def _numbers(tables: StudyTables, columns: list[float | str]) -> dict[str, Any]:
    """Both exponents of every column, and those of L(N, D) with its floor at J*."""
    rows = []
    for sigma in columns:
        minima, parametric = tables.at("isoflop_minima", sigma), tables.at("parametric", sigma)
        fitted = (parametric["floor"] == "optimal") & (parametric["status"] == "converged")
        law = parametric[fitted][["alpha", "size_exponent"]].add_prefix("parametric_")
        rows.append(
            {
                **law_in_numbers(tables, sigma),
                "inside": int((minima["status"] == "inside").sum()),
                "levels": len(minima),
                "size_exponent": optimal_exponent(minima, "params"),
                "data_exponent": optimal_exponent(minima, "images"),
                **{str(key): float(value) for key, value in law.max().items()},  # nan: not fitted
            }
        )
    return {"confidence": 100 * tables.confidence, "laws": rows}
