"""The floor that the losses ask for, beside J*, which they were not told."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.joint import joint_law
from jstar.figures.panels import OPTIMAL_LINE
from jstar.figures.style import (
    COLUMN,
    ONE_LOSS,
    OPTIMAL_COLOR,
    VERDICT_STYLE,
    legend,
    log_ticks,
    new_figure,
    note,
    sigma_axis,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.verdict import AGREES, ASKS_LESS, ASKS_MORE, CANNOT_TELL, floor_says

# What a floor says looks like the verdict that means the same.
STYLE = {
    AGREES: VERDICT_STYLE["corrected"],
    ASKS_MORE: VERDICT_STYLE["above"],
    ASKS_LESS: VERDICT_STYLE["raw"],
    CANNOT_TELL: VERDICT_STYLE["undecided"],
}
DEEPEST, HIGHEST = -2.0, 1.4  # of the upper panel, in smallest gaps; what lies outside has its edge
PLAIN_COLOR = "#999999"


def draw_floors(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """Above, how far the fitted floor lies from J*, in smallest gaps; below, both floors."""
    floors = floors_frame(tables)
    figure, axes = new_figure(
        2, 1, COLUMN, 4.3, sharex=True, gridspec_kw={"height_ratios": [1.35, 1]}
    )
    top, bottom = axes[0, 0], axes[1, 0]
    single = floors[floors["sigma"] != TOTAL].assign(sigma=lambda f: f["sigma"].astype(float))
    numbers = _numbers(tables, floors)
    if single.empty:
        for panel in (top, bottom):
            note(panel, ONE_LOSS)
        return figure, numbers
    _distances(top, single)
    _absolute(bottom, single)
    span = float(tables.sigmas[0]), float(tables.sigmas[-1])
    bottom.set_xlim(span[0] / 1.3, span[1] * 1.3)
    sigma_axis(bottom)
    top.set_title(_finding(numbers), loc="left", pad=16, fontsize=8.5)
    legend(figure, *_handles(single))
    figure.align_ylabels(axes[:, 0])
    return figure, numbers


def floors_frame(tables: StudyTables) -> pd.DataFrame:
    """One row a noise scale and the total.

    floor, low, high: of the plain losses, or of the only losses there are; says: of optimal, the
    J* of the same draws. gap, best: the smallest. gap_floor ...: of J* + direct gap, less J*, with
    what it says; nan where the gap was not measured directly.
    """
    rows = []
    for sigma in tables.scales:
        verdict = tables.at("verdicts", sigma).iloc[0]
        fitted = tables.at("frontier", sigma)
        row: dict[str, Any] = {
            "sigma": sigma, "verdict": str(verdict["verdict"]), "says": str(verdict["floor_says"]),
            "floor": verdict["floor"], "low": verdict["floor_low"], "high": verdict["floor_high"],
            "optimal": verdict["floor_optimal"], "gap": fitted.loc[fitted["gap"] > 0, "gap"].min(),
            "best": fitted["loss"].min(), "gap_says": "",
        }  # fmt: skip
        law = joint_law(tables, sigma, "free")
        alone = joint_law(tables, sigma, "free", "measured") is not None
        ends = (law["E"], law["E_low"], law["E_high"]) if law is not None and alone else ()
        if ends:
            row["gap_says"] = floor_says(*ends, verdict["optimal"])
        for name, value in zip(("floor", "low", "high"), ends or (np.nan,) * 3, strict=True):
            row[f"gap_{name}"] = value - verdict["optimal"]
        rows.append(row)
    return pd.DataFrame(rows)


def _distances(panel: Axes, floors: pd.DataFrame) -> None:
    """(floor - J*) / smallest gap with intervals; where no floor at all would lie."""
    panel.set_ylabel(r"(floor $-\,J^*$) / smallest gap")
    known = floors[np.isfinite(floors["optimal"] + floors["floor"] + floors["gap"])]
    if known.empty:
        note(panel, "no fitted floor beside $J^*$")
        return
    gap, optimal = known["gap"], known["optimal"]
    panel.axhline(1, color=PLAIN_COLOR, lw=1, zorder=1)
    panel.axhline(0, color=OPTIMAL_COLOR, lw=0.8, ls=OPTIMAL_LINE, zorder=1)
    panel.plot(known["sigma"], -optimal / gap, color=PLAIN_COLOR, lw=1, ls=":", zorder=1)
    step = (known["sigma"].max() / known["sigma"].min()) ** (0.2 / max(len(known), 2))
    for _, row in known.iterrows():
        ends = np.array([row["gap_low"], row["gap_high"]]) / row["gap"]
        place = row["sigma"] * step
        panel.plot([place] * 2, ends, color=PLAIN_COLOR, lw=0.7, zorder=2)
        panel.plot(place, np.clip(row["gap_floor"] / row["gap"], DEEPEST, HIGHEST), marker="s",
                   ms=2.2, color=PLAIN_COLOR, zorder=2, clip_on=False)  # fmt: skip
    middle, low, high = ((known[n] - optimal) / gap for n in ("floor", "low", "high"))
    _points(panel, known, np.clip(middle, DEEPEST, HIGHEST), low, high)
    panel.set_ylim(DEEPEST, HIGHEST)
    for sigma, verdict in zip(floors["sigma"], floors["verdict"], strict=True):
        panel.plot(sigma, 1.05, ms=3.2, mew=0.7, ls="", clip_on=False,
                   transform=panel.get_xaxis_transform(), **VERDICT_STYLE[verdict])  # fmt: skip
    panel.text(-0.015, 1.05, "verdict", transform=panel.transAxes, ha="right", va="center",
               fontsize=7)  # fmt: skip


def _absolute(panel: Axes, floors: pd.DataFrame) -> None:
    """J*, the fitted floors and the best loss, on log axes."""
    panel.set_xscale("log")
    panel.plot(floors["sigma"], floors["best"], color=PLAIN_COLOR, lw=1, zorder=1)
    panel.plot(floors["sigma"], floors["optimal"].where(floors["optimal"] > 0),
               color=OPTIMAL_COLOR, lw=0.8, ls=OPTIMAL_LINE, zorder=2)  # fmt: skip
    known = floors[floors["floor"] > 0]
    _points(panel, known, known["floor"], known["low"].clip(lower=1e-300), known["high"])
    low, high = float(floors["best"].min()) / 30, 1.6 * float(floors["best"].max())
    log_ticks(panel, low, high)
    panel.set_ylabel("loss")


def _points(panel: Axes, rows: pd.DataFrame, middle: Any, low: Any, high: Any) -> None:
    """Floors with intervals, in the style of what they say of J*."""
    for says, style in STYLE.items():
        mine = (rows["says"] == says).to_numpy()
        bars = [(middle - low)[mine].clip(lower=0), (high - middle)[mine].clip(lower=0)]
        panel.errorbar(rows["sigma"][mine], middle[mine], bars, ls="", ms=3.8, lw=1, mew=0.8,
                       zorder=4, **style)  # fmt: skip


def _handles(floors: pd.DataFrame) -> list[list[Line2D]]:
    """What floors say of J*; and the lines."""
    count = floors["says"].value_counts()
    found = [
        Line2D([], [], ls="", ms=3.8, mew=0.8, **style,
               label=f"{says.replace('J*', '$J^*$')} ({count[says]})")
        for says, style in STYLE.items() if says in count
    ]  # fmt: skip
    if np.isfinite(floors["gap_floor"]).any():
        found.append(Line2D([], [], color=PLAIN_COLOR, lw=0.7, marker="s", ms=2.2,
                            label="floor of $J^*$ + direct gap"))  # fmt: skip
    lines = [
        Line2D([], [], color=OPTIMAL_COLOR, lw=0.8, ls=OPTIMAL_LINE, label="$J^*$"),
        Line2D([], [], color=PLAIN_COLOR, lw=1, ls=":", label="no floor"),
        Line2D([], [], color=PLAIN_COLOR, lw=1, label="lowest loss"),
    ]
    return [found, lines]


def _finding(numbers: dict[str, Any]) -> str:
    """The figure's title: what was found, in numbers."""
    if not numbers["known"]:
        return "Fitted floors; no $J^*$ to compare them with"
    found = f"Losses alone find $J^*$ at {numbers['says'].get(AGREES, 0)} of {numbers['scales']}"
    if numbers["largest"] is None:
        return f"{found} noise scales"
    return (
        f"{found} noise scales,\noff by at most {100 * numbers['largest']:.2g} % "
        f"({numbers['largest_in_gaps']:.2g} of the smallest gap)"
    )


def _numbers(tables: StudyTables, floors: pd.DataFrame) -> dict[str, Any]:
    """Counts, the largest deviation where they agree, and one row a noise scale."""
    single = floors[floors["sigma"] != TOTAL]
    agree = single[single["says"] == AGREES]
    off = (agree["floor"] / agree["optimal"] - 1).abs()
    in_gaps = ((agree["floor"] - agree["optimal"]) / agree["gap"]).abs()
    direct = single[single["gap_says"] != ""]
    return {
        "confidence": 100 * tables.confidence,
        "scales": len(single),
        "known": int(np.isfinite(single["optimal"]).sum()),
        "says": single["says"].value_counts().to_dict(),
        "largest": float(off.max()) if len(off) else None,
        "largest_in_gaps": float(in_gaps.max()) if len(off) else None,
        "of_gap": direct["gap_says"].value_counts().to_dict(),
        "rows": floors.to_dict("records"),
    }
