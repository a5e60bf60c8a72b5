"""Exponents with their intervals over the noise scale, and how far this design can be trusted."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.panels import LAWS, law_in_numbers
from jstar.figures.style import (
    COLUMN,
    LAW_COLOR,
    ONE_LOSS,
    VERDICT_STYLE,
    new_figure,
    note,
    panel_legend,
    sigma_axis,
)
from jstar.figures.tables import RATES, StudyTables
from jstar.scaling.verdict import WRONG

SHOWN_RATES: dict[str, dict[str, Any]] = {
    "rate_corrected_if_corrected": {
        **VERDICT_STYLE["corrected"],
        "label": "corrected, if $J^*$ holds",
    },
    "rate_raw_if_raw": {**VERDICT_STYLE["raw"], "label": "raw, if no floor"},
    "rate_corrected_if_raw": {"color": "black", "marker": "x", "label": "wrong: floor, if none"},
    "rate_raw_if_corrected": {
        "color": "black",
        "marker": "+",
        "label": "wrong: raw, if $J^*$ holds",
    },
}
PALE = 0.45
REACH = 1.25  # of the panel, in the joint law's intervals: an envelope's may leave it


def draw_exponents(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """alpha(sigma) of the joint law, the envelope's paler; below, how often verdicts are right."""
    laws = [law_in_numbers(tables, sigma) for sigma in tables.scales]
    figure, axes = new_figure(
        2, 1, COLUMN, 4.7, sharex=True, gridspec_kw={"height_ratios": [1.5, 1]}
    )
    top, bottom = axes[0, 0], axes[1, 0]
    if not len(tables.sigmas):
        for panel in (top, bottom):
            note(panel, ONE_LOSS)
        return figure, _numbers(tables, laws)
    handles = _exponents(top, [law for law in laws if law["sigma"] != TOTAL])
    top.set_ylabel(r"exponent $\alpha$")
    panel_legend(top, r"$\mathbf{a}$  exponent of the joint law, by verdict", handles)
    _rates(bottom, tables)
    bottom.set_ylabel("share of studies")
    span = float(tables.sigmas[0]), float(tables.sigmas[-1])
    bottom.set_xlim(span[0] / 1.3, span[1] * 1.3)
    sigma_axis(bottom)
    figure.align_ylabels(axes[:, 0])
    return figure, _numbers(tables, laws)


def _exponents(panel: Axes, laws: list[dict[str, Any]]) -> list[Line2D]:
    """Exponents with intervals; a tick on the lower edge where none is identified."""
    joint = pd.DataFrame(
        [{"sigma": law["sigma"], "verdict": law["verdict"], **law["joint"]} for law in laws]
    )
    known = joint[joint["alpha"].notna()]
    handles = []
    for verdict, style in VERDICT_STYLE.items():
        mine = known[known["verdict"] == verdict]
        if len(mine):
            panel.errorbar(mine["sigma"], mine["alpha"], _bars(mine), ls="", ms=3.8, lw=1, mew=0.8,
                           zorder=4, **style)  # fmt: skip
            handles.append(Line2D([], [], ls="", ms=3.8, mew=0.8, label=verdict, **style))
    lost = joint.loc[joint["alpha"].isna(), "sigma"]
    if len(lost):
        panel.plot(lost, np.full(len(lost), 0.03), "|", color="#777777", ms=5, clip_on=False,
                   transform=panel.get_xaxis_transform())  # fmt: skip
        handles.append(Line2D([], [], ls="", marker="|", color="#777777", ms=5,
                              label=f"not identified ({len(lost)})"))  # fmt: skip
    step = (joint["sigma"].max() / joint["sigma"].min()) ** (0.2 / max(len(joint), 2))
    for law, shift in zip(LAWS, (1 / step, step), strict=True):
        rows = pd.DataFrame([{"sigma": one["sigma"], **one[law]} for one in laws])
        rows = rows[rows["alpha"].notna()]
        if len(rows):
            panel.errorbar(rows["sigma"] * shift, rows["alpha"], _bars(rows), fmt="s", ms=2.2,
                           lw=0.7, color=LAW_COLOR[law], alpha=PALE, zorder=2)  # fmt: skip
            handles.append(Line2D([], [], ls="", marker="s", ms=2.2, color=LAW_COLOR[law],
                                  alpha=PALE, label=f"envelope: {law}"))  # fmt: skip
    panel.set_xscale("log")
    if known.empty:
        note(panel, "no exponent is identified")
    else:
        panel.axhline(0, color="#888888", lw=0.6, zorder=0)
        low, high = float(known["alpha_low"].min()), float(known["alpha_high"].max())
        room = (REACH - 1) * max(high - low, abs(low))
        panel.set_ylim(low - room, max(high, 0) + room)
    return handles


def _bars(rows: pd.DataFrame) -> Any:
    """Lengths of the error bars; an interval may, rarely, not hold the estimate."""
    ends = [rows["alpha"] - rows["alpha_low"], rows["alpha_high"] - rows["alpha"]]
    return np.clip(ends, 0, None)


def _rates(panel: Axes, tables: StudyTables) -> None:
    """How often studies of this design, drawn from a law, get a verdict: right ones and wrong."""
    rows = tables.verdicts[tables.verdicts["sigma"] != TOTAL]
    sigma = rows["sigma"].astype(float)
    panel.set_xscale("log")
    if rows[list(SHOWN_RATES)].isna().all(axis=None):
        note(panel, "no calibration without $J^*$ and a joint law")
        return
    panel.axhline(WRONG, color="#888888", lw=0.6, ls=(0, (4, 2)), zorder=0)
    for rate, style in SHOWN_RATES.items():
        right = style["color"] != "black"
        panel.plot(sigma, rows[rate], ls="-" if right else "", lw=0.8, ms=3.2, mew=0.8,
                   clip_on=False, **style)  # fmt: skip
    panel.set_ylim(0, 1)
    title = r"$\mathbf{b}$  simulated studies of this design that say"
    panel_legend(panel, title, panel.get_legend_handles_labels()[0])


def _numbers(tables: StudyTables, laws: list[dict[str, Any]]) -> dict[str, Any]:
    rows = []
    for law in laws:
        rates = tables.at("verdicts", law["sigma"])[list(RATES)].iloc[0]
        rows.append({**law, **{name: float(rates[name]) for name in RATES}})
    words = [row["verdict"] for row in rows if row["sigma"] != TOTAL]
    return {
        "confidence": 100 * tables.confidence,
        "wrong": 100 * WRONG,
        "verdicts": pd.Series(words).value_counts().to_dict(),
        "scales": len(words),
        "rows": rows,
    }
