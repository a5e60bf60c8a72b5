"""Panels that several figures share: one noise scale's loss, gap, residuals or sensitivity."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jstar.constants import TOTAL
from jstar.figures.style import LAW_COLOR, LAW_LABEL, log_ticks, note, size_colors, size_handles
from jstar.figures.tables import StudyTables

LAWS = ("raw", "corrected")
LAW_LINE: dict[str, Any] = {"raw": (0, (3, 1.5)), "corrected": "-"}
RESIDUAL_MARK: dict[str, Any] = {
    "raw": {"marker": "s", "mfc": "none"},
    "corrected": {"marker": "o"},
}
FRONTIER_MARK: dict[str, Any] = {"marker": "o", "mfc": "white", "mec": "#444444", "mew": 0.6}
AS_FITTED = "as fitted"  # the choice that is the headline


def scale_title(sigma: float | str) -> str:
    """A panel's title: its noise scale, or the total loss."""
    return "total loss" if sigma == TOTAL else rf"$\sigma={sigma:.3g}$"


def laws_panel(
    panel: Axes, tables: StudyTables, sigma: float | str, column: str, ticks: int = 4
) -> None:
    """Loss or gap (`column`), as it was fitted: every run, the frontier, both laws and bands."""
    rows = tables.at("frontier", sigma)
    panel.set_xscale("log")
    seen = rows.loc[rows[column] > 0, column]
    if seen.empty:
        note(panel, str(tables.fit(sigma, "corrected")["status"]))
        return
    colors = size_colors(tables.models)
    for _, run in rows.groupby("run"):
        run = run.sort_values("flops")
        panel.plot(run["flops"], run[column], color=colors[str(run["model"].iloc[0])], lw=0.8,
                   marker="." if len(run) == 1 else "", ms=3)  # fmt: skip
    edge = rows[rows["on_frontier"].astype(bool)]
    panel.plot(edge["flops"], edge[column], ls="", ms=2.4, **{**FRONTIER_MARK, "mew": 0.5})
    for law in LAWS:
        _law(panel, tables, sigma, column, law)
    low, high = float(seen.min()), float(seen.max())
    margin = (high / low) ** 0.08
    log_ticks(panel, low / margin, high * margin, ticks)


def _law(panel: Axes, tables: StudyTables, sigma: float | str, column: str, law: str) -> None:
    """One law over the fitted compute with its band; nothing where the fit is not to be quoted."""
    rows = tables.at("predictions", sigma)
    line = rows[rows["law"] == law].sort_values("flops")
    if line.empty:
        return
    panel.plot(line["flops"], line[column].where(line[column] > 0), color=LAW_COLOR[law], lw=1.3,
               zorder=3, ls=LAW_LINE[law])  # fmt: skip
    low, high = (line[f"{column}_{end}"].clip(lower=1e-300) for end in ("low", "high"))
    panel.fill_between(line["flops"], low, high, color=LAW_COLOR[law], alpha=0.13, lw=0, zorder=0)


def residual_panel(panel: Axes, tables: StudyTables, sigma: float | str, ticks: int = 3) -> None:
    """ln(measured J) - ln(law) of the frontier: one response, so that both laws compare."""
    panel.set_xscale("log")
    drawn = [law for law in LAWS if tables.fit(sigma, law)["status"] == "converged"]
    if not drawn:
        note(panel, str(tables.fit(sigma, "corrected")["status"]))
        return
    panel.axhline(0, color="#888888", lw=0.6, zorder=1)
    reach = 0.0
    for law in drawn:
        points = loss_residuals(tables, sigma, law)
        panel.plot(points["flops"], points["residual"], ls="", color=LAW_COLOR[law], ms=1.8,
                   mew=0.5, zorder=3, **RESIDUAL_MARK[law])  # fmt: skip
        reach = max(reach, 1.12 * float(points["residual"].abs().max()))
    panel.set_ylim(-reach, reach)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=ticks, symmetric=True, steps=[1, 2, 5, 10]))


def loss_residuals(tables: StudyTables, sigma: float | str, law: str) -> pd.DataFrame:
    """Residuals of ln J; those of the corrected law are of its own response."""
    rows = tables.at("residuals", sigma)
    rows = rows[rows["law"] == law]
    if law == "raw":
        return rows
    measured = tables.at("frontier", sigma)[["run", "flops", "loss", "gap"]]
    both = rows.merge(measured, on=["run", "flops"])
    fit = tables.fit(sigma, law)
    law_loss = both["loss"] - both["gap"] + fit["beta"] * both["flops"] ** fit["alpha"]
    return both.assign(residual=np.log(both["loss"] / law_loss))


def flops_ticks(panel: Axes, tables: StudyTables) -> None:
    """The same compute axis in every panel, with a few whole decades."""
    flops = tables.frontier["flops"]
    panel.set_xlim(flops.min() / 1.5, flops.max() * 1.5)
    panel.xaxis.set_major_locator(LogLocator(numticks=4))
    panel.xaxis.set_minor_formatter(NullFormatter())


def laws_legend(figure: Figure, tables: StudyTables) -> None:
    """Sizes, frontier and laws above the panels, never over the data."""
    handles = size_handles(tables.models, tables.params, lw=1.2)
    handles.append(Line2D([], [], ls="", ms=3, label="frontier", **FRONTIER_MARK))
    handles += [
        Line2D([], [], color=LAW_COLOR[law], label=LAW_LABEL[law], ls=LAW_LINE[law]) for law in LAWS
    ]
    columns = len(handles) if len(handles) <= 9 else (len(handles) + 1) // 2
    figure.legend(handles=handles, loc="outside upper center", ncols=columns,
                  columnspacing=1.0, handletextpad=0.5, handlelength=1.4)  # fmt: skip


def sensitivity_panel(panel: Axes, rows: pd.DataFrame, choices: list[str]) -> None:
    """Exponent under every choice (downwards) beside the headline interval (band)."""
    place = {choice: number for number, choice in enumerate(choices)}
    panel.set_ylim(len(choices) - 0.4, -0.6)
    panel.set_yticks(range(len(choices)), choices)
    panel.tick_params(axis="y", length=0)
    if rows.empty:
        panel.set_xticks([])
        note(panel, "no corrected law")
        return
    base = rows[rows["choice"] == AS_FITTED].iloc[0]
    panel.axvspan(base["alpha_low"], base["alpha_high"], color=LAW_COLOR["corrected"], alpha=0.13,
                  lw=0)  # fmt: skip
    panel.axvline(base["alpha"], color=LAW_COLOR["corrected"], lw=0.7)
    for _, row in rows.iterrows():
        outside = not base["alpha_low"] <= row["alpha"] <= base["alpha_high"]
        color = LAW_COLOR["raw" if outside else "corrected"]
        y = place[str(row["choice"])]
        panel.plot([row["alpha_low"], row["alpha_high"]], [y, y], color=color, lw=0.9)
        panel.plot(row["alpha"], y, marker="D" if outside else "o", color=color, ms=3.2, ls="")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
    panel.margins(x=0.08)


def choices_of(frame: pd.DataFrame) -> list[str]:
    """Every choice of a sensitivity table, once, in its order."""
    return [str(choice) for choice in dict.fromkeys(frame["choice"])]


def law_in_numbers(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    """Exponents, intervals and verdict of one noise scale, for a caption."""
    verdict = tables.at("verdicts", sigma).iloc[0]
    entry: dict[str, Any] = {
        "sigma": sigma, "verdict": str(verdict["verdict"]), "reason": str(verdict["reason"]),
    }  # fmt: skip
    numbers, words = ("alpha", "alpha_low", "alpha_high", "r2"), ("status", "r2_response")
    for law in LAWS:
        fit = tables.fit(sigma, law)
        quoted = fit["status"] == "converged"
        entry[law] = {key: float(fit[key]) if quoted else np.nan for key in numbers}
        entry[law] |= {key: str(fit[key]) for key in words}
    return entry
