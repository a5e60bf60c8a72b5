"""Figure 2: training curves, frontier, and the raw and corrected law, loss above, gap below."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import Study
from jstar.figures.style import (
    FLOPS_LABEL,
    LAW_COLOR,
    LAW_LABEL,
    PAGE,
    log_ticks,
    new_figure,
    panel_title,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables

LAWS = ("raw", "corrected")


def draw(tables: StudyTables, study: Study) -> tuple[Figure, dict[str, Any]]:
    """One column a noise scale, and one for the total loss."""
    columns: list[float | str] = [*chosen_sigmas(tables, study.figures.sigmas), "total"]
    figure, axes = new_figure(2, len(columns), PAGE, 3.9, sharex=True)
    draw_panels(figure, axes, tables, columns)
    return figure, {"sigmas": columns[:-1], "laws": _laws_in_words(tables, columns)}


def draw_panels(figure: Figure, axes: Any, tables: StudyTables, columns: list[float | str]) -> None:
    """Loss (axes[0]) and gap (axes[1]) of each column's noise scale, with one legend."""
    for column, sigma in enumerate(columns):
        top, bottom = axes[0, column], axes[1, column]
        _curves(top, tables, sigma, "loss")
        _curves(bottom, tables, sigma, "gap")
        _laws(top, tables, sigma, "loss")
        _laws(bottom, tables, sigma, "gap")
        title = "total loss" if sigma == "total" else rf"$\sigma={sigma:.3g}$"
        panel_title(top, title)
        verdict = tables.at("verdicts", sigma)
        if len(verdict):
            panel_title(bottom, f"verdict: {verdict['verdict'].iloc[0]}")
    axes[0, 0].set_ylabel(r"loss $J$")
    axes[1, 0].set_ylabel(r"loss gap $J-J^*$")
    figure.supxlabel(FLOPS_LABEL, fontsize=8.5)
    _legend(figure, tables)


def chosen_sigmas(tables: StudyTables, count: int) -> list[float]:
    """`count` noise scales at which J* is ever more of the loss: 20 % ... 99.5 % of it."""
    last = tables.last()
    best = [float(last.loc[np.isclose(_numbers(last), s), "loss"].min()) for s in tables.sigmas]
    share = np.array([tables.optimal(s) for s in tables.sigmas]) / np.array(best)
    chosen: list[float] = []
    for target in np.linspace(0.2, 0.995, count) if count > 1 else [0.9]:
        order = np.argsort(np.abs(share - target))
        chosen.append(next(float(tables.sigmas[i]) for i in order
                           if float(tables.sigmas[i]) not in chosen))  # fmt: skip
    return sorted(chosen)


def _numbers(frame: Any) -> Any:
    return frame["sigma"].replace("total", np.nan).astype(float)


def _curves(panel: Axes, tables: StudyTables, sigma: float | str, column: str) -> None:
    """Every run over its compute, and the frontier as open circles."""
    rows, colors = tables.at("losses", sigma), size_colors(tables.models)
    for _, run in rows.groupby("run"):
        run = run.sort_values("flops")
        model = str(run["model"].iloc[0])
        panel.plot(run["flops"], run[column], color=colors[model], lw=0.8, alpha=0.9)
    points = tables.at("frontier", sigma)
    points = points[points["on_frontier"].astype(bool)]
    panel.plot(points["flops"], points[column], "o", mfc="white", mec="#444444", mew=0.6, ms=2.6)
    panel.set_xscale("log")


def _laws(panel: Axes, tables: StudyTables, sigma: float | str, column: str) -> None:
    """Both laws over the fitted compute with their bands."""
    rows = tables.at("predictions", sigma)
    seen = tables.at("losses", sigma)[column]
    for law in LAWS:
        line = rows[rows["law"] == law].sort_values("flops")
        if line.empty:
            continue
        positive = line[column].where(line[column] > 0)
        panel.plot(line["flops"], positive, color=LAW_COLOR[law], lw=1.3, zorder=3,
                   ls="-" if law == "corrected" else (0, (3, 1.5)))  # fmt: skip
        panel.fill_between(line["flops"], line[f"{column}_low"].clip(lower=1e-12),
                           line[f"{column}_high"].clip(lower=1e-12),
                           color=LAW_COLOR[law], alpha=0.14, lw=0)  # fmt: skip
    low, high = float(seen[seen > 0].min()), float(seen.max())
    margin = (high / low) ** 0.08
    log_ticks(panel, low / margin, high * margin)


def _legend(figure: Figure, tables: StudyTables) -> None:
    """Sizes, frontier and laws in one row above the panels, never over the data."""
    handles = size_handles(tables.models, tables.params, lw=1.2)
    handles.append(
        Line2D([], [], ls="", marker="o", mfc="white", mec="#444444", ms=3, label="frontier")
    )
    handles += [
        Line2D([], [], color=LAW_COLOR[law], label=LAW_LABEL[law],
               ls="-" if law == "corrected" else (0, (3, 1.5)))
        for law in LAWS
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles),
                  columnspacing=1.1, handletextpad=0.5)  # fmt: skip


def _laws_in_words(tables: StudyTables, columns: list[float | str]) -> list[dict[str, Any]]:
    """Exponent, interval and verdict of each column, for the caption."""
    rows: list[dict[str, Any]] = []
    for sigma in columns:
        fits, verdict = tables.at("fits", sigma), tables.at("verdicts", sigma)
        entry: dict[str, Any] = {
            "sigma": sigma,
            "verdict": str(verdict["verdict"].iloc[0]) if len(verdict) else "none",
        }
        for law in LAWS:
            fit = fits[fits["law"] == law].iloc[0]
            entry[law] = {
                key: (str(fit[key]) if key in ("status", "r2_response") else float(fit[key]))
                for key in ("alpha", "alpha_low", "alpha_high", "beta", "r2", "r2_response",
                            "status")
            }  # fmt: skip
        rows.append(entry)
    return rows
