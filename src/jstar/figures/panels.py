"""Panels that several figures share: one noise scale's loss, gap, residuals or sensitivity."""

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jstar.constants import TOTAL
from jstar.figures.joint import (
    crossings,
    joint_in_numbers,
    joint_law,
    joint_residuals,
    neighbours_alike,
    optimal_line,
    verdict_of,
)
from jstar.figures.style import (
    LAW_COLOR,
    OPTIMAL_COLOR,
    VERDICT_STYLE,
    legend,
    log_ticks,
    note,
    short_number,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.frontier import FrontierStatus

LAWS = ("raw", "corrected")
LAW_LINE: dict[str, Any] = {"raw": (0, (3, 1.5)), "corrected": "-"}
# The band of a law stands where the law is a straight line, and nowhere else.
OWN_COLUMN = {"raw": "loss", "corrected": "gap"}
BAND = 0.16  # opacity
OUTSIDE: Any = (0, (1, 1.2))  # line style where the best size is none of the ladder
FRONTIER_MARK: dict[str, Any] = {"marker": "o", "mfc": "white", "mec": "#444444", "mew": 0.5}
CROSSING_MARK: dict[str, Any] = {"marker": "D", "mfc": "white", "mec": "black", "mew": 0.7}
OPTIMAL_LINE: Any = (0, (5, 2))
NOTHING = 1e-4  # of the lowest loss: a J* that is as good as 0
WAVES = 0.5  # correlation of neighbours along a run from which residuals are no noise
AS_FITTED = "as fitted"  # the choice that is the headline


def scale_title(sigma: float | str) -> str:
    """A panel's title: its noise scale, or the total loss."""
    return "total loss" if sigma == TOTAL else rf"$\sigma={sigma:.3g}$"


def laws_panel(
    panel: Axes,
    tables: StudyTables,
    sigma: float | str,
    column: str,
    ticks: int = 4,
    size: float = 6.5,
) -> None:
    """Loss or gap (`column`), as it was fitted: every run, the joint law along the best sizes, J*.

    Dotted: before the onset, to which the joint law is not fitted.
    The envelope's points, laws and crossings only where sizes compete. Where J* is far below all
    losses, an arrow says where.
    """
    rows = tables.at("frontier", sigma)
    panel.set_xscale("log")
    seen = rows.loc[rows[column] > 0, column]
    if seen.empty:
        note(panel, "no gap without $J^*$" if column == "gap" else "no loss above 0")
        return
    colors = size_colors(tables.models)
    for _, run in rows.groupby("run"):
        run = run.sort_values("flops")
        color = colors[str(run["model"].iloc[0])]
        value = run[column].where(run[column] > 0)
        if not run["fitted"].all():  # both lines hold the first snapshot that is fitted
            early = ~(run["fitted"] & run["fitted"].shift(fill_value=False))
            panel.plot(run["flops"], value.where(early), color=color, lw=0.6, ls=":")
        panel.plot(run["flops"], value.where(run["fitted"]), color=color, lw=0.8,
                   marker="." if len(run) == 1 else "", ms=3)  # fmt: skip
    if competing(tables, sigma):
        edge = rows[rows["on_frontier"].astype(bool)]
        panel.plot(edge["flops"], edge[column], ls="", ms=1.8, alpha=0.8, **FRONTIER_MARK)
        for law in LAWS:
            _law(panel, tables, sigma, column, law)
        crossed = crossings(tables, sigma, column)
        panel.plot(crossed["flops"], crossed[column], ls="", ms=3, zorder=6, **CROSSING_MARK)
    lowest = _joint(panel, tables, sigma, column)
    low, high = float(seen.min()), float(seen.max())
    reach = high / low
    low = min(low, max(lowest, low / reach**0.5))
    if column == "loss":
        optimal = float(tables.at("verdicts", sigma)["optimal"].iloc[0])
        if optimal > low / reach**0.7:
            panel.axhline(optimal, color=OPTIMAL_COLOR, lw=0.8, ls=OPTIMAL_LINE, zorder=1)
            low = min(low, optimal)
        elif np.isfinite(optimal):
            below = r"$\approx$ 0"
            if optimal > NOTHING * low:
                below = f"= {short_number(float(f'{optimal:.2g}'))}"
            numbers_text(panel, [rf"$\downarrow\,J^*$ {below}"], size)
    # Below the gaps stand their numbers (`numbers_text`).
    margin = reach ** (0.12 if column == "loss" else 0.3)
    log_ticks(panel, low / margin, high * reach**0.08, ticks)


def competing(tables: StudyTables, sigma: float | str) -> bool:
    """Whether sizes cross, so that there is an envelope."""
    return bool(tables.at("verdicts", sigma)["frontier"].iloc[0] == FrontierStatus.FOUND)


def _joint(panel: Axes, tables: StudyTables, sigma: float | str, column: str) -> float:
    """The joint law along its best sizes in the verdict's colour; the lowest value within them.

    Nothing where an exponent is at its bound: there are no best sizes then.
    """
    law = joint_law(tables, sigma)
    if law is None or law["status"] != "converged":
        return np.inf
    line = optimal_line(tables, sigma, law)
    color = VERDICT_STYLE[verdict_of(tables, sigma)]["color"]
    value = line[column].where(line[column] > 0)
    for part, style in ((line["inside"], "-"), (~line["inside"], OUTSIDE)):
        panel.plot(line["flops"], value.where(part), color=color, lw=2.4, alpha=0.65, ls=style,
                   zorder=1.8)  # fmt: skip
    return float(value.where(line["inside"]).min())


def _law(panel: Axes, tables: StudyTables, sigma: float | str, column: str, law: str) -> None:
    """The envelope's law over its compute; its band, below all curves, in its own response."""
    rows = tables.at("predictions", sigma)
    line = rows[rows["law"] == law].sort_values("flops")
    if line.empty:
        return
    panel.plot(line["flops"], line[column].where(line[column] > 0), color=LAW_COLOR[law], lw=0.9,
               zorder=4, ls=LAW_LINE[law])  # fmt: skip
    if column != OWN_COLUMN[law]:
        return
    low, high = (line[f"{column}_{end}"].clip(lower=1e-300) for end in ("low", "high"))
    panel.fill_between(line["flops"], low, high, color=LAW_COLOR[law], alpha=BAND, lw=0, zorder=0)


def numbers_text(panel: Axes, lines: list[str], size: float = 6.5) -> None:
    """Lines of text in the lower left corner, which no curve of a loss over compute enters."""
    panel.text(0.03, 0.03, "\n".join(lines), transform=panel.transAxes, ha="left", va="bottom",
               fontsize=size, linespacing=1.2, zorder=7)  # fmt: skip


def law_lines(numbers: dict[str, Any]) -> list[str]:
    """The exponents of one noise scale (`law_in_numbers`) as lines of a panel's text."""
    joint, envelope = numbers["joint"], numbers["corrected"]
    if np.isfinite(joint["alpha"]):
        lines = [rf"$\alpha$ = {signed(joint['alpha'])}", ends_text(joint, "alpha")]
    else:
        lines = [rf"$\alpha$: {joint['status']}"]
    of, r2 = ("gap", joint["r2_gap"]) if np.isfinite(joint["r2_gap"]) else ("J", joint["r2"])
    if np.isfinite(r2):
        lines.append(rf"$R^2$ of ln {of} = {signed(r2)}")
    found = np.isfinite(envelope["alpha"])
    if numbers["frontier"] != FrontierStatus.FOUND:
        return [*lines, f"envelope: {numbers['frontier']}"]
    return [*lines, f"envelope: {signed(envelope['alpha']) if found else envelope['status']}"]


def signed(value: float, digits: int = 3) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def ends_text(numbers: dict[str, Any], name: str) -> str:
    """[low, high] of a number."""
    return f"[{signed(numbers[name + '_low'])}, {signed(numbers[name + '_high'])}]"


def residual_panel(
    panel: Axes, tables: StudyTables, sigma: float | str, ticks: int = 3, size: float = 6.5
) -> None:
    """ln(J / joint law) in per cent, every run in its size's colour; how alike neighbours are."""
    panel.set_xscale("log")
    law = joint_law(tables, sigma)
    if law is None:
        note(panel, fill(str(tables.at("verdicts", sigma)["reason"].iloc[0]), 24))
        return
    panel.axhline(0, color="#888888", lw=0.6, zorder=1)
    colors = size_colors(tables.models)
    rows = joint_residuals(tables, sigma, law).sort_values("flops")
    for _, run in rows.groupby("run"):
        color = colors[str(run["model"].iloc[0])]
        panel.plot(run["flops"], 100 * run["residual"], color=color, lw=0.7, marker=".", ms=1.6)
    reach = 112 * float(rows["residual"].abs().max())
    panel.set_ylim(-1.3 * reach, reach)
    alike = neighbours_alike(rows)
    if np.isfinite(alike):
        word = "waves" if alike > WAVES else "noise"
        panel.text(0.97, 0.03, f"{word}, $r_1$ = {signed(alike, 2)}", transform=panel.transAxes,
                   ha="right", va="bottom", fontsize=size, zorder=7)  # fmt: skip
    panel.yaxis.set_major_locator(MaxNLocator(nbins=ticks, symmetric=True, steps=[1, 2, 5, 10]))


def flops_ticks(panel: Axes, tables: StudyTables) -> None:
    """The same compute axis in every panel, with a few whole decades."""
    flops = tables.frontier["flops"]
    low, high = flops.min() / 1.5, flops.max() * 1.5
    decades = int(np.floor(np.log10(high)) - np.ceil(np.log10(low))) + 1
    log_ticks(panel, low, high, min(max(decades - 1, 1), 3), along="x")


def laws_legend(figure: Figure, tables: StudyTables, scales: list[float | str]) -> None:
    """Sizes; J*, the laws of `scales` and marks."""
    handles: list[Any] = [
        Line2D([], [], color=OPTIMAL_COLOR, lw=0.8, ls=OPTIMAL_LINE, label=r"$J^*$")
    ]
    shown = [verdict_of(tables, sigma) for sigma in scales if joint_law(tables, sigma) is not None]
    handles += [
        Line2D([], [], color=style["color"], lw=2.4, alpha=0.65, label=f"joint law: {verdict}")
        for verdict, style in VERDICT_STYLE.items() if verdict in shown
    ]  # fmt: skip
    if any(competing(tables, sigma) for sigma in scales):
        handles += [Line2D([], [], color=LAW_COLOR[law], lw=0.9, label=f"envelope: {law}",
                           ls=LAW_LINE[law]) for law in LAWS]  # fmt: skip
        handles.append(Patch(color="#888888", alpha=0.3, lw=0,
                             label=f"envelope: {100 * tables.confidence:g} % band"))  # fmt: skip
        handles.append(Line2D([], [], ls="", ms=3, label="crossing", **CROSSING_MARK))
    if not tables.frontier["fitted"].all():
        handles.append(Line2D([], [], color="#555555", lw=0.6, ls=":", label="before the onset"))
    legend(figure, size_handles(tables.models, tables.params, lw=1.2), handles)


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
        "crossings": int(verdict["crossings"]), "frontier": str(verdict["frontier"]),
        "joint": joint_in_numbers(tables, sigma),
    }  # fmt: skip
    numbers, words = ("alpha", "alpha_low", "alpha_high", "r2"), ("status", "r2_response")
    for law in LAWS:
        fit = tables.fit(sigma, law)
        quoted = fit["status"] == "converged"
        entry[law] = {key: float(fit[key]) if quoted else np.nan for key in numbers}
        entry[law] |= {key: str(fit[key]) for key in words}
    return entry
